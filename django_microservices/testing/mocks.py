"""``mock_client``: a client that answers what a test says, with nothing behind it."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import wraps
from inspect import isawaitable, iscoroutinefunction
from typing import Any, Self, TypeVar

from ..conf import clients
from ..endpoints.calls import Call, StreamCall
from ..endpoints.client import Client
from ..endpoints.config import ClientConfig
from ..transports.base import Changed, Receive, Transport
from .expectations import Expectation
from .sent import ANY, Sent, route_of

F = TypeVar("F", bound=Callable[..., Any])

_originals: dict[Client, Callable[[], Any]] = {}
_active: dict[Client, list["MockClient"]] = {}


def mock_client(client: str | Client) -> "MockClient":
    """Let a client of settings, or another one, answer what a test says.

    ::

        with mock_client("STOCK") as stock:
            stock.on("reserve", {"sku": 1}).reply({"left": 2})
            ...
        assert stock.calls == [Sent("reserve", {"sku": 1})]

    As a decorator it holds for the whole function, sync or async.
    """
    return MockClient(clients[client] if isinstance(client, str) else client)


class MockClient:
    """What stands behind a client while the block runs, whoever holds the client.

    All verbs work as ever, with the client's own middleware and timeout, and what is
    sent and answered goes through the codec. A message that was not expected raises
    ``AssertionError`` at its caller; if that swallowed it, the block's end does. Of
    several expectations that match, the last one made counts. Of several blocks for
    one client, the last one entered.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.calls: list[Sent] = []
        self._expectations: list[Expectation] = []
        self._unexpected: list[str] = []
        self._original: Callable[[], Any]
        self._transport = _MockTransport(self)

    def on(self, pattern: Any, data: Any = ANY) -> Expectation:
        """Expect a message; ``data`` may be or contain ``ANY``."""
        expectation = Expectation(pattern, data)
        self._expectations.append(expectation)
        return expectation

    def calls_of(self, pattern: Any) -> list[Sent]:
        """Return the messages with this pattern."""
        route = route_of(pattern)
        return [sent for sent in self.calls if route_of(sent.pattern) == route]

    # --- the block ---

    def __enter__(self) -> Self:
        active = _active.setdefault(self.client, [])
        if self not in active:
            self._begin()
        active.append(self)
        original = self.client._load  # noqa: SLF001
        self._original = _originals.setdefault(self.client, original)
        self._follow()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        active = _active[self.client]
        # The last time that it was entered, though another may be entered since.
        del active[len(active) - 1 - active[::-1].index(self)]
        self._follow()
        if kind is None and self._unexpected:
            raise AssertionError(self._unexpected[0])

    def _begin(self) -> None:
        self.calls.clear()
        self._unexpected.clear()
        for expectation in self._expectations:
            expectation.reset()

    def _follow(self) -> None:
        """Let the client load what is active now."""
        active = _active[self.client]
        if active:
            load: Callable[[], Any] = active[-1].load
        else:
            load = _originals.pop(self.client)
            del _active[self.client]
        self.client._load = load  # noqa: SLF001
        self.client.forget()

    def load(self) -> ClientConfig | Awaitable[ClientConfig]:
        """Read the client's settings, with nothing behind them."""
        loaded = self._original()
        return self._awaited(loaded) if isawaitable(loaded) else self._mocked(loaded)

    async def _awaited(self, loaded: Awaitable[ClientConfig]) -> ClientConfig:
        return self._mocked(await loaded)

    def _mocked(self, config: ClientConfig) -> ClientConfig:
        self._transport.take_options_of(config.transport)
        return config._replace(transport=self._transport, serve=None)

    def __call__(self, function: F) -> F:
        """Decorate a function: the block is its body."""

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        @wraps(function)
        async def acall(*args: Any, **kwargs: Any) -> Any:
            with self:
                return await function(*args, **kwargs)

        wrapped: Any = acall if iscoroutinefunction(function) else call
        result: F = wrapped
        return result

    # --- messages ---

    def take(self, call: Call, receive: Receive) -> None:
        """Note a message and answer it; raise what its caller is to get."""
        sent = Sent.of(call)
        self.calls.append(sent)
        for expectation in reversed(self._expectations):
            if expectation.matches(sent):
                expectation.answer(call, receive)
                return
        message = self._refusal(sent)
        self._unexpected.append(message)
        raise AssertionError(message)

    def _refusal(self, sent: Sent) -> str:
        kind = "event" if sent.is_event else "request"
        expected = "; ".join(map(str, self._expectations)) or "nothing"
        return (
            f"Client {self.client.name!r} sent the unexpected {kind} {sent}. "
            f"Expected: {expected}."
        )


class _MockTransport(Transport):
    """A wire to the test itself, on the caller's own loop and thread."""

    headers = True
    in_process = True

    def __init__(self, mock: MockClient) -> None:
        self.mock = mock

    def take_options_of(self, wire: Transport) -> None:
        """Let a call name the options that the client's own wire knows."""
        vars(self)["message_options"] = wire.message_options

    @asynccontextmanager
    async def connect(
        self,
        receive: Receive,
        changed: Changed,  # noqa: ARG002
    ) -> AsyncIterator["_MockLink"]:
        yield _MockLink(self.mock, receive)


class _MockLink:
    def __init__(self, mock: MockClient, receive: Receive) -> None:
        self.driver = mock
        self.receive = receive
        loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[BaseException | None] = loop.create_future()

    def publish(self, call: Any) -> None:
        if isinstance(call, StreamCall):
            call.high_water = sys.maxsize  # all items come before the first is read
        self.driver.take(call, self.receive)

    def forget(self, id_: Any, *, answered: bool) -> None:
        """Nothing is kept of a call."""
