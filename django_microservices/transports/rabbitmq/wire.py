"""What only RabbitMQ knows of a message: ``context.wire``."""

from functools import cached_property

from pamqp import commands

from .properties import read_properties
from .protocol import Content


class RabbitMQWire:
    """A delivery: Nest's ``RmqContext.getMessage()``, read where it is asked for."""

    def __init__(self, content: Content) -> None:
        self._content = content

    @property
    def exchange(self) -> str:
        """The exchange that it was published to; empty where that was a queue."""
        return self._content.came_by[0]

    @property
    def routing_key(self) -> str:
        """The key that it was published with."""
        return self._content.came_by[1]

    @property
    def redelivered(self) -> bool:
        """Whether the broker delivered it before, and heard of no end."""
        return self._content.redelivered

    @property
    def delivery_tag(self) -> int:
        """Its number on the channel."""
        return self._content.tag

    @property
    def consumer_tag(self) -> str:
        """Which consumer got it."""
        return self._content.consumer_tag

    @cached_property
    def properties(self) -> commands.Basic.Properties:
        """All properties: ``headers``, ``priority``, ``message_id`` and so on.

        Raises ``ValueError`` for what a peer wrote and cannot be read.
        """
        return read_properties(self._content.properties)

    @property
    def body(self) -> bytes:
        """The whole packet, as it came."""
        return self._content.body or b""
