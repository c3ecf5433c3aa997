"""What every case stands on: the wire's hooks, two ends that talk, and waiting."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Any, ClassVar

import pytest

from ...conf import clients as named_clients
from ...dispatch.decorators import marks_of
from ...dispatch.handlers import Handler
from ...endpoints.client import Client
from ...endpoints.config import ClientConfig, ServerConfig
from ...endpoints.server import Server
from ...exceptions import MicroserviceError
from ...options import build_transport, options_of
from ...runtime.microservice import Microservice
from ...transports.base import Transport
from ...wire.messages import new_id
from ...wire.patterns import Grammar

PAUSE = 0.002  # seconds between two looks at what a test waits for
SILENCE = 0.1  # seconds to wait for an answer that will not come


class Bench:
    """What the class of a wire says, and what the cases use.

    ``transport`` and the options are enough; each hook that is given beside them lets
    more cases run. ``patience`` is in seconds. ``max_deliveries`` is handed to a server
    that has this option; one that has not says here how often it delivers a message.
    ``grace`` is for how many seconds a broker may keep the request of a caller that has
    gone.
    """

    transport: ClassVar[type[Transport]]
    patience: ClassVar[float] = 10.0
    max_deliveries: ClassVar[int] = 3
    grace: ClassVar[float] = 0.0

    # --- what the class of a wire says ---

    def options(self) -> dict[str, Any]:
        """Return the ``OPTIONS`` of both ends."""
        return {}

    def server_options(self) -> dict[str, Any]:
        """Return the ``OPTIONS`` of a server, where they are its own."""
        return self.options()

    def client_options(self) -> dict[str, Any]:
        """Return the ``OPTIONS`` of a client, where they are its own."""
        return self.options()

    async def send_raw(self, pattern: str, body: bytes) -> None:
        """Hook: have ``body`` arrive as it is where ``pattern`` is served."""
        raise NotImplementedError

    async def break_links(self) -> None:
        """Hook: cut every connection that is open; new ones can be made."""
        raise NotImplementedError

    async def stop_broker(self) -> None:
        """Hook: have the broker be away, with its connections."""
        raise NotImplementedError

    async def start_broker(self) -> None:
        """Hook: have it be back; called after :meth:`stop_broker`, whatever came."""
        raise NotImplementedError

    async def dead_letters(self) -> list[str]:
        """Hook: return the reasons that this test's dead letters were given."""
        raise NotImplementedError

    # --- which cases run ---

    def needs(self, *flags: str) -> None:
        """Skip the test where the wire does not claim these flags."""
        for flag in flags:
            of_clients = flag == "confirms"
            wire = self.client_transport() if of_clients else self.server_transport()
            if not getattr(wire, flag):
                pytest.skip(f"{type(wire).__name__} says {flag} = False")

    def needs_hook(self, *names: str) -> None:
        """Skip the test where a hook is not given."""
        for name in names:
            if not self.has_hook(name):
                pytest.skip(f"{type(self).__name__} has no {name}()")

    def has_hook(self, name: str) -> bool:
        """Whether the class of the wire gives this hook."""
        return getattr(type(self), name) is not getattr(Bench, name)

    def skip_where(self, flag: str, because: str) -> None:
        """Skip the test where the wire claims a flag."""
        wire = self.server_transport()
        if getattr(wire, flag):
            pytest.skip(f"{type(wire).__name__}: {because}")

    @cached_property
    def clients(self) -> list[Client]:
        """The open clients of this test, for hooks."""
        return []

    # --- names that no other test has ---

    @cached_property
    def name(self) -> str:
        """The service's ``NAME``, with which every pattern of the test begins."""
        return f"t{new_id()}"

    def pattern(self, *levels: str) -> str:
        """Return a pattern, its levels parted as on this wire."""
        return (self.grammar.separator or ".").join((self.name, *levels))

    @cached_property
    def grammar(self) -> Grammar:
        """How the patterns of the wire spell wildcards."""
        return self.server_transport().grammar

    # --- two ends that talk ---

    def server_transport(self) -> Transport:
        """Make the transport of a server as settings do, with this test's ``NAME``.

        Where it has them, redelivery begins at once and ends soon.
        """
        soon = {"max_deliveries": self.max_deliveries, "redelivery_delay": 0.05}
        known = options_of(self.transport, "server")
        options = {name: value for name, value in soon.items() if name in known}
        return self._build("server", self.server_options() | options)

    def client_transport(self) -> Transport:
        """Make the transport of a client as settings do."""
        return self._build("client", self.client_options())

    def _build(self, end: str, options: dict[str, Any]) -> Transport:
        path = f"{type(self).__name__}.{end}_options()"
        return build_transport(self.transport, options, path, end, lambda: self.name)

    def server(self, *functions: Callable[..., Any], **config: Any) -> Server:
        """Make a server that offers decorated functions."""
        handlers = [
            Handler(function, mark, None, named_clients.__getitem__)
            for function in functions
            for mark in marks_of(function)
        ]
        known = ServerConfig(self.server_transport(), handlers, **config)
        return Server(self.name, lambda: known)

    @asynccontextmanager
    async def running(self, *servers: Server) -> AsyncIterator[Microservice]:
        """Run servers inside the block, which is entered when all of them consume."""
        microservice = Microservice(servers, sync_threads=4, stream_threads=2)
        async with asyncio.timeout(self.patience):
            await microservice.start()
        try:
            yield microservice
        finally:
            await microservice.stop()

    @asynccontextmanager
    async def serving(
        self, *functions: Callable[..., Any], **config: Any
    ) -> AsyncIterator[Server]:
        """Serve decorated functions inside the block."""
        server = self.server(*functions, **config)
        async with self.running(server):
            yield server

    @asynccontextmanager
    async def calling(self, **config: Any) -> AsyncIterator[Client]:
        """Give a client that is closed with the block."""
        known = ClientConfig(self.client_transport(), **config)
        client = Client(self.name, lambda: known)
        self.clients.append(client)
        try:
            yield client
        finally:
            self.clients.remove(client)  # pytest keeps what the test's object has
            await client.aclose()

    @asynccontextmanager
    async def talking(
        self, *functions: Callable[..., Any], **config: Any
    ) -> AsyncIterator[Client]:
        """Serve decorated functions, and give a client that reaches them."""
        async with self.serving(*functions, **config), self.calling() as client:
            yield client

    # --- waiting ---

    async def until(self, condition: Callable[[], Any]) -> None:
        """Return as soon as a condition holds; fail where it never does."""
        async with asyncio.timeout(self.patience):
            while not condition():  # noqa: ASYNC110 - whatever it looks at
                await asyncio.sleep(PAUSE)

    async def answered(self, client: Client, pattern: Any, data: Any = None) -> Any:
        """Ask until somebody answers, as a caller does whose other side comes back."""
        async with asyncio.timeout(self.patience):
            while True:
                try:
                    return await client.asend(pattern, data, timeout=1)
                except MicroserviceError:
                    await asyncio.sleep(PAUSE)
