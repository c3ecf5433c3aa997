"""``inject``: what ``Inject`` does for handlers, for any other function."""

from typing import Any, TypeVar

from .conf import clients
from .dispatch import params

F = TypeVar("F", bound=Any)


def inject(target: F) -> F:
    """Fill the parameters that are annotated with ``Inject`` at every call.

    For sync and async views, class-based views (over the class, or what ``as_view()``
    returned) and any other function or class. What the caller passes by name is left
    alone. Inside a handler the factories share what they made for this message.
    """
    injected: F = params.inject(target, clients.__getitem__)
    return injected
