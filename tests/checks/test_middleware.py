"""Checks of the middleware that settings name."""

from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction
from django.core.exceptions import MiddlewareNotUsed
from django.middleware.common import CommonMiddleware
from django.utils.deprecation import MiddlewareMixin

from .running import found, ids, one, served

Inner = Callable[[Any], Any]


def sync_only(get_response: Inner) -> Inner:
    """Refuse what is async."""
    if iscoroutinefunction(get_response):
        raise TypeError
    return get_response


def async_only(get_response: Inner) -> Inner:
    """Refuse what is sync."""
    if not iscoroutinefunction(get_response):
        raise TypeError
    return get_response


def unused(get_response: Inner) -> Inner:
    """Take no part."""
    raise MiddlewareNotUsed


class Hooks(MiddlewareMixin):
    """Middleware of a project, in the shape of Django's."""


def places(part: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return the settings that name middleware, and where each does."""
    return [
        ("", {"MIDDLEWARE": [part], "SERVERS": served()}),
        ("['SERVERS']['default']", {"SERVERS": served(MIDDLEWARE=[part])}),
        ("['CLIENTS']['a']", {"CLIENTS": {"a": {"MIDDLEWARE": [part]}}}),
    ]


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("math.sqrt", "math.sqrt cannot be used: TypeError: must be real number"),
        (list, "builtins.list cannot be used: TypeError: 'function' object is not"),
        (repr, "builtins.repr cannot be used: ImproperlyConfigured: Middleware repr"),
        (
            "django.middleware.common.CommonMiddleware",
            "django.middleware.common.CommonMiddleware is made for the requests of ",
        ),
    ],
)
def test_middleware_that_cannot_be_used(part: Any, reason: str, place: int) -> None:
    """It would fail with the first message, or the first call."""
    path, entries = places(part)[place]
    message = one(found(**entries), "E010")
    assert message.msg.startswith(f"MICROSERVICES{path}['MIDDLEWARE']: {reason}")


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("part", [sync_only, async_only, unused, Hooks])
def test_middleware_that_can_be_used(part: Any, place: int) -> None:
    """It may be for one of the modes only, and step aside."""
    _, entries = places(part)[place]
    assert ids(found(**entries)) == []


class Own(CommonMiddleware):
    """What a project makes of Django's is its own concern."""


def test_middleware_that_derives_from_djangos() -> None:
    """It may have replaced what reads the request."""
    assert ids(found(SERVERS=served(MIDDLEWARE=[Own]))) == []


def test_middleware_that_is_not_there() -> None:
    """It is one error, of the settings."""
    assert ids(found(MIDDLEWARE=["nowhere.at_all"], SERVERS=served())) == ["E001"]
