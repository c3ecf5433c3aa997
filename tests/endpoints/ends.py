"""Servers and clients for the tests of the two ends, and a wire without a network."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sized
from contextlib import asynccontextmanager, contextmanager
from types import SimpleNamespace
from typing import Any

from django_microservices.concurrency.portal import Portal
from django_microservices.conf import clients
from django_microservices.dispatch.decorators import marks_of
from django_microservices.dispatch.handlers import Handler
from django_microservices.endpoints.client import Client
from django_microservices.endpoints.config import ClientConfig, ServerConfig
from django_microservices.endpoints.server import Server
from django_microservices.exceptions import ConnectionLost
from django_microservices.runtime.microservice import Microservice
from django_microservices.transports.base import Changed, Deliver, Receive, Transport
from django_microservices.transports.tcp import TCPTransport
from django_microservices.wire.messages import Message, Reply
from django_microservices.wire.status import Status

PATIENCE = 10.0


def handlers_of(*functions: Callable[..., Any]) -> list[Handler]:
    """Make handlers of decorated functions, as discovery does."""
    return [
        Handler(function, mark, None, clients.__getitem__)
        for function in functions
        for mark in marks_of(function)
    ]


def server_of(
    transport: Transport, *functions: Callable[..., Any], **more: Any
) -> Server:
    """Make a server that offers decorated functions."""
    config = ServerConfig(transport, handlers_of(*functions), **more)
    return Server("tested", lambda: config)


@asynccontextmanager
async def running(
    *servers: Server, threads: int = 4, **options: Any
) -> AsyncIterator[Microservice]:
    """Run servers inside the block."""
    microservice = Microservice(
        servers, sync_threads=threads, stream_threads=2, **options
    )
    await microservice.start()
    try:
        yield microservice
    finally:
        await microservice.stop()


@asynccontextmanager
async def serving(
    port: int, *functions: Callable[..., Any], threads: int = 4, **more: Any
) -> AsyncIterator[Server]:
    """Serve decorated functions on a TCP port inside the block."""
    transport = more.pop("transport", None) or TCPTransport(port=port)
    server = server_of(transport, *functions, **more)
    async with running(server, threads=threads):
        yield server


@contextmanager
def serving_elsewhere(
    port: int, *functions: Callable[..., Any], **more: Any
) -> Iterator[Server]:
    """Serve on the loop of another thread, for sync callers."""
    elsewhere = Portal()
    server = server_of(TCPTransport(port=port), *functions, **more)
    microservice = Microservice([server], sync_threads=4, stream_threads=2)
    elsewhere.run(microservice.start)
    try:
        yield server
    finally:
        elsewhere.run(microservice.stop)
        elsewhere.stop()


def client_of(transport: Transport, **more: Any) -> Client:
    """Make a client that nobody closes."""
    config = ClientConfig(transport, **more)
    return Client("tested", lambda: config)


@asynccontextmanager
async def calling(port: int, **more: Any) -> AsyncIterator[Client]:
    """Give a client of a TCP port, closed with the block."""
    transport = more.pop("transport", None) or TCPTransport(port=port)
    client = client_of(transport, **more)
    try:
        yield client
    finally:
        await client.aclose()


@contextmanager
def calling_sync(port: int, **more: Any) -> Iterator[Client]:
    """Give a client for sync callers, closed with the block."""
    client = client_of(TCPTransport(port=port), **more)
    try:
        yield client
    finally:
        client.close()


async def until(condition: Callable[[], Any], *, patience: float = PATIENCE) -> None:
    """Return as soon as ``condition`` is true; fail where it never is."""
    async with asyncio.timeout(patience):
        while not condition():  # noqa: ASYNC110 - whatever it looks at
            await asyncio.sleep(0.002)


async def grown(items: Sized, beyond: int) -> None:
    """Return as soon as there are more than ``beyond`` items."""
    await until(lambda: len(items) > beyond)


def sent(call: Any) -> Any:
    """Have a call stand as one that was sent."""
    link = SimpleNamespace(forget=lambda *_, **__: None)
    call.session = SimpleNamespace(pending={}, link=link, draining=False)
    return call


class FakeLink:
    """A client's half; it keeps what is published."""

    def __init__(self, receive: Receive, changed: Changed) -> None:
        self.receive = receive
        self.changed = changed
        self.closed: asyncio.Future[BaseException | None]
        self.closed = asyncio.get_running_loop().create_future()
        self.published: list[Message] = []
        self.forgotten: list[tuple[Any, bool]] = []
        self.reading: list[str] = []
        self.answer_with: Any = None
        self.left = False

    @property
    def driver(self) -> str:
        """Name it."""
        return "the driver"

    def publish(self, message: Message) -> Any:
        """Keep the message, and do as the test says."""
        self.published.append(message)
        if isinstance(self.answer_with, Exception):
            raise self.answer_with
        return None if self.answer_with is None else self.answer_with()

    def answer(self, data: bytes | None = b"1", **more: Any) -> None:
        """Answer the message published last."""
        self.receive(Reply(self.published[-1].id, data, **more))

    def forget(self, id_: Any, *, answered: bool) -> None:
        """Keep that."""
        self.forgotten.append((id_, answered))

    def pause_reading(self) -> None:
        """Keep that."""
        self.reading.append("pause")

    def resume_reading(self) -> None:
        """Keep that."""
        self.reading.append("resume")

    def lose(self, reason: BaseException | None = None) -> None:
        """End the link."""
        self.closed.set_result(reason or ConnectionLost("cut"))

    def say_goodbye(self) -> None:
        """Drain."""
        self.changed(Status.DRAINING)


class FakeWire(Transport):
    """Links whose opening goes as ``outcomes`` says, one after the other.

    An outcome is an error to raise, or an event to wait for; after them all is well.
    """

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.attempts: list[float] = []
        self.links: list[FakeLink] = []
        self.cancelled = 0

    @property
    def link(self) -> FakeLink:
        """The latest."""
        return self.links[-1]

    @asynccontextmanager
    async def connect(
        self, receive: Receive, changed: Changed
    ) -> AsyncIterator[FakeLink]:
        """Open a link, or not."""
        self.attempts.append(asyncio.get_running_loop().time())
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is not None:
            try:
                await outcome.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        link = FakeLink(receive, changed)
        self.links.append(link)
        try:
            yield link
        finally:
            link.left = True


class FakeStreamWire(FakeWire):
    """As above, with a link of its own for each stream."""

    stream_links = True


class FakeIntake:
    """A server's half."""

    def __init__(self, deliver: Deliver, changed: Changed) -> None:
        self.deliver = deliver
        self.changed = changed
        self.closed: asyncio.Future[BaseException | None]
        self.closed = asyncio.get_running_loop().create_future()
        self.paused = False
        self.left = False
        self.driver = "the driver"
        self.address = "nowhere"

    async def pause(self) -> None:
        """Note it."""
        self.paused = True


class FakeListener(Transport):
    """Intakes whose opening goes as ``outcomes`` says, one after the other."""

    def __init__(self, *outcomes: Any, **options: Any) -> None:
        self.outcomes = list(outcomes)
        self.intakes: list[FakeIntake] = []
        self.entered = 0
        for name, value in options.items():
            setattr(self, name, value)

    @property
    def intake(self) -> FakeIntake:
        """The latest."""
        return self.intakes[-1]

    @asynccontextmanager
    async def serve(
        self, subscriptions: Any, deliver: Deliver, changed: Changed, *, limit: int
    ) -> AsyncIterator[FakeIntake]:
        """Consume, or not."""
        self.entered += 1
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is not None:
            await outcome.wait()
        intake = FakeIntake(deliver, changed)
        self.intakes.append(intake)
        try:
            yield intake
        finally:
            intake.left = True
