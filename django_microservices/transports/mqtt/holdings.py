"""What a server holds of messages, whichever connection brought them."""

import asyncio
import logging
from typing import TYPE_CHECKING

from ..base import Deliver
from ..room import Room
from .failures import Failures
from .flows import Accepted
from .packer import Packer
from .packets import MQTT_5
from .receipt import Receipt
from .streams import Streams

if TYPE_CHECKING:
    from .connection import Connection
    from .intake import Intake
    from .transport import MQTTTransport

logger = logging.getLogger(__name__)

RESTING = 100
"""How many may rest unacknowledged for long beside what is handled (MQTT 5)."""
_RESTING_3 = 10
"""... with 3.1.1, whose broker decides alone: mosquitto sends 20 at most."""


class Holdings:
    """What is handled, waits, rests, or is buried, and what the broker waits for.

    It goes on when a connection is lost, and belongs to the next one's intake then: a
    broker that keeps no session has forgotten all of it, and one that does sends it
    again, which is not to be handled twice at once.
    """

    def __init__(self, options: "MQTTTransport", deliver: Deliver, limit: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.limit = limit
        self.streams = Streams(deliver, options.max_stream_age)
        self.room = Room(limit, self.streams.deliver, self._pause, self._resume)
        self.failures = Failures(
            options.redelivery,
            Packer(options.protocol_version, options.user_properties),
            options.dead_letter_topic,
            self.take,
            forgets=options.clean,
            most_unacknowledged=(
                RESTING if options.protocol_version == MQTT_5 else _RESTING_3
            ),
        )
        self.speaker: Connection | None = None
        self._forgets = options.clean
        self._accepted: dict[str, Accepted] = {}
        self._intake: Intake | None = None

    def accepted(self, client_suffix: str) -> Accepted:
        """Return what a client of ours has accepted, over all its connections."""
        return self._accepted.setdefault(client_suffix, Accepted(None))

    def take(self, receipt: Receipt) -> None:
        """Deliver a message that the broker waits for, or waited."""
        self.room.take(receipt.message, receipt.respond, receipt.finished)

    def speak_over(self, connection: "Connection") -> None:
        """Publish over this connection what belongs to none that is still there."""
        self.speaker = connection
        self.failures.use(connection)

    def serve(self, intake: "Intake") -> None:
        """Hold back an intake that brings too much, from now on.

        It has subscribed: before that the broker's answers would be held back as well.
        """
        self._intake = intake
        if self.room.is_paused:
            intake.pause_reading()

    # --- the end of connections ---

    def part(self) -> None:
        """Go on alone: the connections are lost."""
        self._intake = None
        waiting = sum(map(len, self._accepted.values()))
        count = waiting + self.failures.unawaited
        if self._forgets and count:
            text = "The broker forgets %s unfinished messages: only we have them now."
            logger.warning(text, count)

    @property
    def goes_on(self) -> bool:
        """Whether it is for the next intake; not when the server stops."""
        return not self.failures.is_leaving

    async def close(self) -> None:
        """Begin nothing more, and leave or bury the rest."""
        self.failures.leave()
        for message in self.room.drop():
            if message.settle is not None:
                message.settle("retry", None, "it was not begun")
        self.streams.close()
        await self.failures.buried()

    # --- the room ---

    def _pause(self) -> None:
        if self._intake is not None:
            self._intake.pause_reading()

    def _resume(self) -> None:
        if self._intake is not None:
            self._intake.resume_reading()
