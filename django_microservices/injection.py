"""``inject``: what ``Inject`` does for handlers, for any other function."""

from collections.abc import Callable
from typing import Any, TypeVar, overload

from .conf import clients
from .dispatch import params

T = TypeVar("T")


@overload
def inject(target: type[T]) -> type[T]: ...
@overload
def inject(target: Callable[..., T]) -> Callable[..., T]: ...
def inject(target: Any) -> Any:
    """Fill the parameters that are annotated with ``Inject`` at every call.

    For sync and async views, class-based views (over the class, or what ``as_view()``
    returned) and any other function or class. What the caller passes by name is left
    alone. Inside a handler the factories share what they made for this message.
    """
    return params.inject(target, clients.__getitem__)
