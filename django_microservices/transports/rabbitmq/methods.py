"""Methods that name queues and exchanges: which names are valid, the broker decides.

pamqp's own rule is narrower: it refuses the names that direct reply-to makes.
"""

from pamqp import commands

MOST_PREFETCHED = 65_535
"""Messages that ``basic.qos`` can ask for."""


class DeclareQueue(commands.Queue.Declare):
    """``queue.declare``."""

    def validate(self) -> None:
        """Leave it to the broker."""


class BindQueue(commands.Queue.Bind):
    """``queue.bind``."""

    def validate(self) -> None:
        """Leave it to the broker."""


class DeclareExchange(commands.Exchange.Declare):
    """``exchange.declare``."""

    def validate(self) -> None:
        """Leave it to the broker."""


class Consume(commands.Basic.Consume):
    """``basic.consume``."""

    def validate(self) -> None:
        """Leave it to the broker."""
