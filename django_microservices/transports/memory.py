"""Memory: client and server in one loop, with the real codec between them.

For tests: sync handlers run on the caller's thread, so that they see the transaction
of a ``TestCase``, and ``emit`` returns when the handlers are done.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from ..exceptions import ConnectionLost, NotConnected
from ..wire.messages import UNSET, Message, Reply, Subscription
from ..wire.packets import read_envelope, read_reply, write_message, write_reply
from ..wire.patterns import Pattern
from .base import Changed, Deliver, Delivery, Receive, Respond, Transport

_intakes: list["Intake"] = []


class MemoryTransport(Transport):
    """Everything in one process; ``name`` says which client meets which server."""

    headers = True
    answers_unknown = True
    ends_streams = True
    in_process = True

    def __init__(self, *, name: str = "default") -> None:
        self.name = name

    def is_served(self) -> bool:
        """Whether a server of this name runs on the running loop."""
        return self._find() is not None

    def _find(self) -> "Intake | None":
        loop = asyncio.get_running_loop()
        for intake in _intakes:
            if intake.name == self.name and intake.loop is loop:
                return intake
        return None

    @asynccontextmanager
    async def serve(
        self,
        subscriptions: Sequence[Subscription],  # noqa: ARG002 - everything arrives
        deliver: Deliver,
        changed: Changed,  # noqa: ARG002
        *,
        limit: int,  # noqa: ARG002 - the caller waits
    ) -> AsyncIterator["Intake"]:
        """Answer the clients of this loop."""
        intake = Intake(self.name, deliver)
        _intakes.append(intake)
        try:
            yield intake
        finally:
            _intakes.remove(intake)
            intake.closed.set_result(None)

    @asynccontextmanager
    async def connect(
        self,
        receive: Receive,
        changed: Changed,  # noqa: ARG002
    ) -> AsyncIterator["Link"]:
        """Find the server of this name on this loop."""
        intake = self._find()
        if intake is None:
            message = f"no server with the memory transport {self.name!r} runs here"
            raise NotConnected(message)
        link = Link(intake, receive)
        intake.closed.add_done_callback(link.end)
        try:
            yield link
        finally:
            intake.closed.remove_done_callback(link.end)


class Intake:
    """The server's half."""

    def __init__(self, name: str, deliver: Deliver) -> None:
        self.name = name
        self.deliver = deliver
        self.loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[BaseException | None] = self.loop.create_future()
        self.deliveries: dict[Delivery, asyncio.Future[None]] = {}

    @property
    def address(self) -> str:
        """The name."""
        return f"memory:{self.name}"

    @property
    def driver(self) -> "Intake":
        """Itself."""
        return self

    async def pause(self) -> None:
        """Return when what was accepted is answered."""
        while self.deliveries:
            await asyncio.wait((next(iter(self.deliveries.values())),))

    def take(self, message: Message, respond: Respond) -> Delivery:
        """Deliver a message, and keep it until it is done."""
        delivery = self.deliver(message, respond)
        self.deliveries[delivery] = self.loop.create_future()
        delivery.when_done(self._finished)
        return delivery

    def _finished(self, delivery: Delivery) -> None:
        self.deliveries.pop(delivery).set_result(None)

    async def done(self, delivery: Delivery) -> None:
        """Wait until a delivery is done."""
        future = self.deliveries.get(delivery)
        if future is not None:
            await asyncio.shield(future)


class Link:
    """The client's half."""

    def __init__(self, intake: Intake, receive: Receive) -> None:
        self.intake = intake
        self.receive = receive
        self.closed: asyncio.Future[BaseException | None] = intake.loop.create_future()
        self.deliveries: dict[Any, Delivery] = {}

    @property
    def driver(self) -> Intake:
        """The server's half."""
        return self.intake

    def end(self, _: Any) -> None:
        """Say that the server is gone."""
        if not self.closed.done():
            self.closed.set_result(ConnectionLost("the server has stopped"))

    def publish(self, message: Message) -> Any:
        """Deliver at once; an event's awaitable ends when its handlers did."""
        event = message.id is UNSET
        text = write_message(
            message.pattern.route_json if event else message.pattern.json,
            None if message.data is UNSET else message.data,
            message.id,
            None,
        )
        envelope = read_envelope(text)
        assert envelope is not None
        arrived = Message(
            Pattern.from_json(bytes(envelope.pattern)),
            envelope.data or UNSET,
            envelope.id,
            dict(message.headers or {}),
            message.timeout,
        )
        delivery = self.intake.take(arrived, self.respond)
        if event:
            return self.intake.done(delivery)
        self.deliveries[message.id] = delivery
        return None

    def respond(self, reply: Reply) -> None:
        """Hand a reply over, through the codec."""
        arrived = read_reply(write_reply(reply))
        assert arrived is not None
        self.receive(arrived)

    def forget(self, id_: Any, *, answered: bool) -> None:
        """Cancel what nobody awaits any more."""
        delivery = self.deliveries.pop(id_, None)
        if delivery is not None and not answered:
            delivery.cancel()
