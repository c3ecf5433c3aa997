"""Which handlers of one server a message goes to."""

from collections.abc import Callable
from typing import Any

import msgspec

from ..dispatch.handlers import Handler
from ..dispatch.registry import Registry
from ..wire.context import MessageContext
from ..wire.messages import UNSET, Message

_MOST_REMEMBERED = 1024


class Route(msgspec.Struct, frozen=True, eq=False):
    """A handler as one server runs it, decided at start-up."""

    handler: Handler
    call: Callable[[MessageContext[Any]], Any]
    is_async: bool
    streams: bool
    encode: Callable[[Any], bytes]
    timeout: float | None


class Routes:
    """The routes of one server, by the pattern of what arrives."""

    def __init__(self, registry: Registry, make: Callable[[Handler], Route]) -> None:
        self._registry = registry
        self._routes = {handler: make(handler) for handler in registry.handlers}
        self._requests: dict[str, list[Route]] = {}
        self._events: dict[str, list[Route]] = {}

    def of(self, message: Message) -> list[Route] | None:
        """Return those a message goes to: none if nothing here handles it.

        ``None`` is for a copy whose handlers run for another copy of the same message.
        """
        pattern = message.pattern.route
        if message.id is UNSET:
            known, find = self._events, self._registry.event
        else:
            known, find = self._requests, self._registry.request
        routes = known.get(pattern)
        if routes is None:
            routes = self._look_up(known, pattern, find)
        if message.subscription is not None and routes:
            return self._of_this_copy(message, routes) or None
        return routes

    def _look_up(
        self,
        known: dict[str, list[Route]],
        pattern: str,
        find: Callable[[str], list[Handler]],
    ) -> list[Route]:
        """Look handlers up; only what was found is kept, and not without end."""
        routes = [self._routes[handler] for handler in find(pattern)]
        if routes and len(known) < _MOST_REMEMBERED:
            known[pattern] = routes
        return routes

    def _of_this_copy(self, message: Message, routes: list[Route]) -> list[Route]:
        """Choose the handlers that run for this copy and not for another one.

        The wire makes one for each subscription that matches; of a handler's patterns
        the one that suits the message best decides.
        """
        assert message.subscription is not None
        via, pattern = message.subscription.pattern.route, message.pattern.route
        chosen = self._registry.chosen
        return [one for one in routes if chosen(one.handler, pattern) == via]
