"""Checks of the middleware that settings name."""

from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage, Error
from django.utils.deprecation import MiddlewareMixin

from ..dispatch.modes import layer_of
from ..dispatch.payloads.annotations import is_subclass
from ..dispatch.signatures import name_of
from . import TAG
from .found import Found


def uncomposable(found: Found) -> Iterator[CheckMessage]:
    """E010."""
    for path, middleware in found.middleware.items():
        for factory in middleware:
            reason = _reason(factory)
            if reason is not None:
                yield Error(
                    f"{path}['MIDDLEWARE']: {name_of(factory)} {reason}",
                    hint="Middleware is called with get_response, and returns what is "
                    "called with each message's context, or on a client each call.",
                    id=f"{TAG}.E010",
                )


def _reason(factory: Any) -> str | None:
    """Say why middleware cannot work, having made a layer that nobody calls."""
    if is_subclass(factory, MiddlewareMixin) and factory.__module__.startswith(_DJANGO):
        return "is made for the requests of HTTP."
    for get_response in (_aresponse, _response):
        try:
            layer_of(factory, get_response)
        except Exception as error:  # noqa: BLE001 - anybody may write middleware
            reason = f"cannot be used: {type(error).__name__}: {error}"
        else:
            return None  # it may be for one of the two only
    return reason


_DJANGO = "django."


def _response(context: Any) -> None: ...


async def _aresponse(context: Any) -> None: ...


CHECKS = (uncomposable,)
