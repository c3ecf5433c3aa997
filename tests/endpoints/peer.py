"""A peer of a server without a wire, and the handlers that it asks."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from django_microservices import UNSET
from django_microservices.dispatch.errors import TIMED_OUT
from django_microservices.endpoints.server import Server
from django_microservices.wire.codecs import decode
from django_microservices.wire.messages import Message, Reply
from django_microservices.wire.patterns import Pattern
from tests.endpoints.ends import until

INTERNAL = {"status": "error", "message": "Internal server error"}
LATE = {"status": "error", "message": TIMED_OUT}

Start = Callable[..., Any]


class Peer:
    """Hands messages to a server of the functions given, and keeps the replies."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.replies: list[Reply] = []
        self.respond: Callable[[Reply], Any] = self.replies.append

    def send(self, **more: Any) -> Any:
        """Deliver a request, or with ``id=UNSET`` an event."""
        more = {"data": b"1", "id": "id", **more}
        message = Message(Pattern.of("it"), **more)
        return self.server.deliver(message, self._respond)

    def _respond(self, reply: Reply) -> Any:
        return self.respond(reply)

    async def ask(self, **more: Any) -> Any:
        """Deliver, and return what was answered last, decoded, or the error."""
        delivery = self.send(**more)
        await until(lambda: delivery.outcome)
        reply = self.replies[-1]
        if reply.error is not None:
            return decode(reply.error)
        return UNSET if reply.data is None else decode(bytes(reply.data))

    @property
    def items(self) -> list[Any]:
        """What a stream sent."""
        return [decode(bytes(r.data)) for r in self.replies if r.data is not None]


class Gate:
    """What a thread waits for, until the test lets it go on."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go_on = threading.Event()

    def wait(self) -> None:
        """Wait on a thread."""
        self.entered.set()
        assert self.go_on.wait(10)


def sync_handler(data: Any) -> Any:
    """Return what came."""
    return data


async def async_handler(data: Any) -> Any:
    """Return what came."""
    return data


BOTH = pytest.mark.parametrize("handler", [sync_handler, async_handler])


def raising(error: BaseException, *, is_async: bool) -> Any:
    """Make a handler that raises."""

    def fail(data: Any) -> None:
        raise error

    async def afail(data: Any) -> None:
        raise error

    return afail if is_async else fail
