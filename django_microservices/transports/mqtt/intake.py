"""The server's half of the MQTT wire."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from ...exceptions import TransportRefused
from ...wire.messages import Subscription
from ..base import Deliver
from ..room import Room
from .connection import Connection
from .dial import dialled
from .inlet import IDENTIFIERS, Inlet
from .packer import Packer
from .packets import MQTT_5
from .receipt import Failures, Receipt
from .topics import Filter, filters_of, separated

if TYPE_CHECKING:
    from .transport import MQTTTransport

_SOON = 5.0
"""Seconds for the broker to confirm that it sends no more."""


class Intake:
    """Subscribes, bounds what is in flight, and ends in good order.

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
        deliver: Deliver,
        limit: int,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.options = options
        self.limit = limit
        self.filters = _filters(options, subscriptions)
        self.room = Room(limit, deliver, self._pause_reading, self._resume_reading)
        self.failures = Failures(
            options.redelivery,
            Packer(options.protocol_version, options.user_properties),
            options.dead_letter_topic,
            self.take,
            forgets=options.clean,
        )
        self.is_leaving = False
        self.closed: asyncio.Future[BaseException | None] = loop.create_future()
        self._inlets: list[Inlet] = []

    @property
    def driver(self) -> list[Connection]:
        """The connections."""
        return [inlet.connection for inlet in self._inlets]

    @property
    def address(self) -> str:
        """The broker's."""
        return self.options.address

    # --- life ---

    async def open(self, stack: AsyncExitStack) -> None:
        """Connect and subscribe; the connections end with ``stack``."""
        is_5 = self.options.protocol_version == MQTT_5
        parts = [self.filters] if is_5 else separated(self.filters)
        first = await self._open(stack, parts[0], "")
        if is_5 and not first.connection.has(IDENTIFIERS):
            parts = separated(self.filters)
            first.take_over(parts[0])
        for number, part in enumerate(parts[1:], start=2):
            await self._open(stack, part, f"-{number}")
        await asyncio.gather(*(inlet.subscribe() for inlet in self._inlets))

    async def _open(
        self, stack: AsyncExitStack, filters: Sequence[Filter], client_suffix: str
    ) -> Inlet:
        inlet = Inlet(self, filters, client_suffix)
        self._inlets.append(inlet)
        await stack.enter_async_context(dialled(self.options, inlet.connection))
        inlet.connection.closed.add_done_callback(self._lost)
        return inlet

    def _lost(self, closed: "asyncio.Future[BaseException | None]") -> None:
        if not self.closed.done():
            self.closed.set_result(closed.result())

    async def pause(self) -> None:
        """Unsubscribe; return when what was accepted is answered.

        Where the broker keeps the session, the filters of events of QoS 1 and 2 stay,
        so that it keeps what comes from now on.
        """
        answers = []
        for inlet in self._inlets:
            left = [one.text for one in inlet.filters if not self._stays(one)]
            if left and not inlet.connection.lost:
                answers.append(inlet.connection.unsubscribe(left))
        if answers:
            await asyncio.wait(answers, timeout=_SOON)
        self.is_leaving = True
        self.failures.leave()
        await self.room.empty()
        await self.failures.buried()

    def _stays(self, one: Filter) -> bool:
        return one.is_of_events and one.qos > 0 and not self.options.clean

    async def close(self) -> None:
        """Begin nothing more; unless the link was lost, whose messages are handled."""
        self.is_leaving = True
        self.failures.leave()
        if not self.closed.done():
            self._resume_reading()  # the broker's confirms are to be read
            for message in self.room.drop():
                if message.settle is not None:
                    message.settle("retry", None, "it was not begun")
        await self.failures.buried()

    # --- messages ---

    def take(self, receipt: Receipt) -> None:
        """Deliver a message that the broker waits for."""
        self.room.take(receipt.message, receipt.respond, receipt.finished)

    def is_own_letter(self, topic: str) -> bool:
        """Whether a wildcard brought back what this server had buried.

        It is for those alone who ask for dead letters by their name.
        """
        letters = self.options.dead_letter_topic
        asked_for = any(f"{letters}/" in one.text for one in self.filters)
        return f"{topic}/".startswith(f"{letters}/") and not asked_for

    def _pause_reading(self) -> None:
        for inlet in self._inlets:
            inlet.connection.pause_reading()

    def _resume_reading(self) -> None:
        for inlet in self._inlets:
            inlet.connection.resume_reading()


def _filters(
    options: "MQTTTransport", subscriptions: Sequence[Subscription]
) -> list[Filter]:
    try:
        return filters_of(subscriptions, options.group, options.default_qos)
    except ValueError as error:
        raise TransportRefused(str(error)) from None
