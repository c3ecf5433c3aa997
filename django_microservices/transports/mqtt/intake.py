"""The server's half of the MQTT wire."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from ...exceptions import TransportRefused
from ...wire.messages import Subscription
from .connection import Connection
from .dial import dialled
from .holdings import Holdings
from .inlet import IDENTIFIERS, Inlet
from .packets import AT_LEAST_ONCE, MQTT_5
from .topics import Filter, filters_of, is_below, separated

if TYPE_CHECKING:
    from .transport import MQTTTransport

_SOON = 5.0
"""Seconds for the broker to confirm that it sends no more."""


class Intake:
    """Subscribes, hands what comes to ``holdings``, and ends in good order.

    Of an event that several filters match the broker makes a copy for each, and each
    must be known by its filter. In MQTT 5 a copy says so itself. In 3.1.1 it does not,
    and mosquitto leaves out all but one per client, so that filters which overlap are
    subscribed on connections of their own.

    ``is_leaving`` says that nothing is begun any more.
    """

    def __init__(
        self,
        options: "MQTTTransport",
        subscriptions: Sequence[Subscription],
        holdings: Holdings,
    ) -> None:
        self.options = options
        self.filters = _filters(options, subscriptions)
        self.holdings = holdings
        self.room = holdings.room
        self.failures = holdings.failures
        self.is_leaving = False
        self.closed: asyncio.Future[BaseException | None]
        self.closed = holdings.loop.create_future()
        self._inlets: list[Inlet] = []

    @property
    def driver(self) -> list[Connection]:
        """The connections."""
        return [inlet.connection for inlet in self._inlets]

    @property
    def address(self) -> str:
        """The broker's."""
        return self.options.address

    @property
    def unburied(self) -> int:
        """How many messages have a dead letter that the broker refused."""
        return self.failures.unburied

    # --- life ---

    async def open(self, stack: AsyncExitStack) -> None:
        """Connect and subscribe; the connections end with ``stack``."""
        is_5 = self.options.protocol_version == MQTT_5
        parts = [self.filters] if is_5 else separated(self.filters)
        first = await self._open(stack, parts[0], "")
        if is_5 and not first.connection.limits.has(IDENTIFIERS):
            parts = separated(self.filters)
            first.take_over(parts[0])
        for number, part in enumerate(parts[1:], start=2):
            await self._open(stack, part, f"-{number}")
        self.holdings.speak_over(await self._speaker(stack))
        await asyncio.gather(*(inlet.subscribe() for inlet in self._inlets))
        self.holdings.serve(self)

    async def _open(
        self, stack: AsyncExitStack, filters: Sequence[Filter], client_suffix: str
    ) -> Inlet:
        inlet = Inlet(self, filters, client_suffix)
        self._inlets.append(inlet)
        await self._dial(stack, inlet.connection)
        return inlet

    async def _speaker(self, stack: AsyncExitStack) -> Connection:
        """Return the connection for what is confirmed.

        Answers of QoS 1 have one of their own: while all that may be in flight is, and
        streams wait for their confirms, the others are not read.
        """
        if not self.options.reply_qos:
            return self._inlets[0].connection
        connect = self.options.connect_of_answers()
        speaker = Connection(self.options, connect, _nothing)
        await self._dial(stack, speaker)
        speaker.limits.check_flags(AT_LEAST_ONCE)
        return speaker

    async def _dial(self, stack: AsyncExitStack, connection: Connection) -> None:
        await stack.enter_async_context(dialled(self.options, connection))
        connection.closed.add_done_callback(self._lost)

    def _lost(self, closed: "asyncio.Future[BaseException | None]") -> None:
        self.holdings.streams.cut()
        if not self.closed.done():
            self.closed.set_result(closed.result())

    async def pause(self) -> None:
        """Unsubscribe; return when what was accepted is answered.

        Where the broker keeps the session, the filters of events of QoS 1 and 2 stay,
        so that it keeps what comes from now on. Else what it has for us already comes
        yet, and is handled.
        """
        answers = []
        for inlet in self._inlets:
            left = [one.text for one in inlet.filters if not self._stays(one)]
            if left and not inlet.connection.lost:
                answers.append(inlet.connection.unsubscribe(left))
        if answers:
            await asyncio.wait(answers, timeout=_SOON)
        self.failures.leave()
        if self.options.clean:
            await asyncio.gather(*map(self._emptied, self._inlets))
        self.is_leaving = True
        await self.room.empty()
        await self.failures.buried()

    async def _emptied(self, inlet: Inlet) -> None:
        """Return when the broker has nothing more for a connection.

        Of QoS 1 and 2 it sends so many at once, and then one for each that is
        acknowledged: when all are, and nothing comes between a PINGREQ and its answer,
        there is nothing.
        """
        accepted = inlet.connection.accepted
        before = -1
        while before != accepted.steps and not inlet.connection.lost:
            before = accepted.steps
            await self.room.empty()
            await self.failures.buried()
            await inlet.connection.ping()

    def _stays(self, one: Filter) -> bool:
        return one.is_of_events and one.qos > 0 and not self.options.clean

    async def close(self) -> None:
        """Begin nothing more; or have the next intake go on, if the link was lost."""
        if self.closed.done() and not self.is_leaving:
            self.holdings.part()
            return
        self.is_leaving = True
        self.resume_reading()  # the broker's confirms are to be read
        await self.holdings.close()

    # --- messages ---

    def is_of_letters(self, topic: str) -> bool:
        """Whether what a wildcard brings by a topic may be what this server buried.

        That is for those alone who ask for dead letters by their name.
        """
        letters = self.options.dead_letter_topic
        asked_for = any(f"{letters}/" in one.text for one in self.filters)
        return is_below(topic, letters) and not asked_for

    def pause_reading(self) -> None:
        """Read nothing more that could be a message."""
        for inlet in self._inlets:
            inlet.connection.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        for inlet in self._inlets:
            inlet.connection.resume_reading()


def _nothing(_: object) -> None:
    """Take what nobody has subscribed to."""


def _filters(
    options: "MQTTTransport", subscriptions: Sequence[Subscription]
) -> list[Filter]:
    try:
        return filters_of(subscriptions, options.group, options.default_qos)
    except ValueError as error:
        raise TransportRefused(str(error)) from None
