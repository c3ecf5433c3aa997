"""What becomes of a message of QoS 1 or 2: acknowledged, tried again, or buried.

PUBACKs leave in the order in which handlers end, and not, as section 4.6 has it, in
that of the messages: one slow handler would hold up all others.
"""

from typing import TYPE_CHECKING

import msgspec

from ...wire.messages import Message
from ..redelivery import Receipt as BaseReceipt

if TYPE_CHECKING:
    from ..base import Respond
    from .failures import Failures
    from .flows import Accepted
    from .packets import Oversized, Publish


class Receipt(BaseReceipt):
    """One delivery of one message."""

    __slots__ = (
        "accepted",
        "deliveries",
        "failures",
        "message",
        "publish",
        "respond",
    )

    def __init__(
        self,
        failures: "Failures",
        accepted: "Accepted",
        publish: "Publish | Oversized",
        message: Message,
        respond: "Respond",
        *,
        deliveries: int = 1,
    ) -> None:
        super().__init__()
        self.failures = failures
        self.accepted = accepted
        self.publish = publish
        self.message = message
        self.respond = respond
        self.deliveries = deliveries
        message.settle = self.settle

    def tell(self, outcome: str, delay: float | None, reason: str) -> None:
        """Acknowledge, rest, or bury; be the broker there or not."""
        if outcome == "ack":
            self.acknowledge()
        elif outcome == "dead":
            self.failures.bury(self, reason)
        else:
            self.failures.retry(self, delay, reason)

    def acknowledge(self) -> None:
        """Tell the broker that it may forget the message."""
        self.accepted.acknowledge(self.publish)

    @property
    def is_awaited(self) -> bool:
        """Whether the broker waits for the outcome."""
        return self.accepted.has(self.publish)

    def again(self) -> "Receipt":
        """Return the receipt of the next delivery."""
        message = msgspec.structs.replace(self.message)
        return Receipt(
            self.failures,
            self.accepted,
            self.publish,
            message,
            self.respond,
            deliveries=self.deliveries + 1,
        )
