"""A broker that may be harmed, the two ends on it, and the numbers that came."""

import asyncio
import contextlib
import json
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from django_microservices import (
    Client,
    MicroserviceError,
    Status,
    event_pattern,
    message_pattern,
)
from django_microservices.endpoints.server import Server
from django_microservices.transports import Transport
from django_microservices.wire.status import StatusStream
from tests.brokers.server import Server as Broker
from tests.conftest import Figures
from tests.endpoints.ends import PATIENCE, client_of, running, server_of, until

from .load import RATE, SOON, Away, Load, numbers
from .processes import process_of


class Bench:
    """A ``broker``, and the ``kind`` of transport by which its two ends reach it.

    ``figure`` takes note of what is measured.
    ``options`` are the server's. Patterns begin with ``name``. ``patience`` is how many
    seconds anything may take, ``down`` how many it stays away before it starts. A
    number below 0 is poison; ``tries`` keeps each time that it was handled, ``entered``
    the calls that hang.
    """

    def __init__(
        self,
        broker: Broker[Any],
        kind: type[Transport],
        figure: Figures,
        *,
        name: str = "tested",
        patience: float = PATIENCE,
        down: float = 0.5,
        **options: Any,
    ) -> None:
        self.broker = broker
        self.kind: Callable[..., Transport] = kind
        self._figure = figure
        self.name = name
        self.patience = patience
        self.down = down
        self.options = {"url": broker.url, **options}
        self.pattern = f"{name}.noted"
        self.seen: list[int] = []
        self.tries: list[int] = []
        self.entered: list[int] = []

    # --- the two ends ---

    def server(self, **options: Any) -> Server:
        """Make a server; ``options`` are more of its transport's."""

        @event_pattern(self.pattern)
        async def noted(data: int) -> None:
            if data < 0:
                self.tries.append(data)
                raise RuntimeError("the poison")
            self.seen.append(data)

        @message_pattern(f"{self.name}.echo")
        async def echo(data: int) -> int:
            return data

        @message_pattern(f"{self.name}.hang")
        async def hang(data: int) -> None:
            self.entered.append(data)
            await asyncio.Event().wait()

        return server_of(self.kind(**{**self.options, **options}), noted, echo, hang)

    @contextlib.asynccontextmanager
    async def serving(self, **options: Any) -> AsyncIterator[Server]:
        """Run such a server inside the block."""
        server = self.server(**options)
        async with running(server):
            yield server

    def served(self, file: Path) -> AbstractAsyncContextManager[Process]:
        """Have ``broker_served`` run inside the block, which notes in a file."""
        options = json.dumps(self.options)
        return process_of(
            "broker_served", self.kind.__name__, options, self.name, str(file)
        )

    @contextlib.asynccontextmanager
    async def calling(self, **options: Any) -> AsyncIterator[Client]:
        """Give a client that is closed with the block."""
        client = client_of(self.kind(url=self.broker.url, **options))
        try:
            yield client
        finally:
            await client.aclose()

    def load(self, client: Client, **options: Any) -> Load:
        """Make a load of numbers for the server."""
        return Load(client, self.pattern, **options)

    async def restart(
        self, end: Callable[[Any], None], server: Server, load: Load
    ) -> Away:
        """Have the broker be away for a while, which its server notices.

        Return when that is ready and has noted what was emitted since.
        """
        time = asyncio.get_running_loop().time
        went, last = time(), max(self.seen)
        await asyncio.to_thread(end, self.broker)
        await self.until(lambda: not server.is_ready)
        await asyncio.sleep(self.down)
        await asyncio.to_thread(self.broker.start)
        came, number = time(), load.number
        await self.until(lambda: self.latest > number and server.is_ready)
        return Away(went, came, time(), last, self.latest)

    @property
    def latest(self) -> int:
        """The greatest of the numbers noted last."""
        return max(self.seen[-50:])

    # --- what is seen of them ---

    def figure(self, row: str, what: str, *figure: Any) -> None:
        """Take note of what was measured of this wire, and hold it to its bound."""
        self._figure(f"{row}: {self.kind.__name__}: {what}", *figure)

    async def until(self, condition: Callable[[], Any]) -> None:
        """Return as soon as a condition holds."""
        await until(condition, patience=self.patience)

    async def sees(self, count: int = RATE // 2) -> None:
        """Wait until so many more numbers were noted."""
        wanted = len(self.seen) + count
        await self.until(lambda: len(self.seen) >= wanted)

    async def noted(self, file: Path, count: int = 100) -> None:
        """Wait until the servers of other processes have noted so many more."""
        wanted = len(numbers(file)) + count
        await self.until(lambda: len(numbers(file)) >= wanted)

    async def ask(self, client: Client) -> None:
        """Ask until there is an answer."""
        async with asyncio.timeout(SOON):
            while True:
                with contextlib.suppress(MicroserviceError):
                    answer = await client.asend(f"{self.name}.echo", 1, timeout=1)
                    assert answer == 1
                    return
                await asyncio.sleep(0.01)


async def left(statuses: StatusStream) -> None:
    """Return when an end says that it has no connection."""
    async for status in statuses:
        if status is not Status.CONNECTED:
            return
