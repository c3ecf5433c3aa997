"""What one peer of a TCP server awaits, and which places of the server it takes."""

from typing import TYPE_CHECKING, Any

from ...wire.messages import UNSET, Reply

if TYPE_CHECKING:
    from .peer import ServerConnection


class Pending:
    """The deliveries of one peer.

    ``deliveries`` has the requests, by the id where that is a key and the only one of
    its kind, else by themselves. Streams that wait for their reader, or have threads
    that bound them, take no place from others, so that no peer can take all;
    ``is_full`` says that one peer has as many of them as there are places.
    """

    __slots__ = (
        "_aside",
        "_connection",
        "_finished",
        "_intake",
        "deliveries",
        "is_full",
    )

    def __init__(self, connection: "ServerConnection") -> None:
        self.deliveries: dict[Any, Any] = {}
        self.is_full = False
        self._aside = 0
        self._connection = connection
        self._intake = connection.intake
        self._finished = self.finished  # bound once, not for every message

    def add(self, delivery: Any, id_: Any) -> None:
        """Take note of a delivery that has begun."""
        if delivery.takes_place:
            self._intake.outstanding += 1
        else:
            self._step_aside()
        if delivery.outcome is None and id_ is not UNSET:
            try:
                other = self.deliveries.setdefault(id_, delivery)
            except TypeError:
                other = None
            if other is not delivery:
                self.deliveries[delivery] = delivery
        delivery.when_done(self._finished)

    def finished(self, delivery: Any) -> None:
        """Forget a delivery that ended."""
        deliveries, id_ = self.deliveries, delivery.message.id
        try:
            found = deliveries.pop(id_, None)
        except TypeError:
            found = None
        if found is not delivery:
            if found is not None:
                deliveries[id_] = found
            deliveries.pop(delivery, None)
        if delivery.takes_place:
            intake = self._intake
            intake.outstanding -= 1
            if intake.waiting:
                intake.make_room()
        else:
            self._step_back()
        if self._connection.finishing:
            self._connection.end_if_answered()

    def find(self, id_: Any) -> Any:
        """Return the delivery of that id; ``None`` also where there may be several."""
        return self.deliveries.get(id_) if isinstance(id_, str | int) else None

    def cancel(self, *, only_streams: bool = False) -> None:
        """The peer awaits none of its requests any more, or none of its streams."""
        for delivery in tuple(self.deliveries.values()):
            if delivery.is_stream or not only_streams:
                delivery.cancel()

    # --- places ---

    async def drained(self, reply: Reply) -> None:
        """Return when the peer has read on; meanwhile others have the place."""
        intake, delivery = self._intake, self.find(reply.id)
        gives_place = delivery is not None and delivery.takes_place
        if gives_place:
            self._step_aside()
            intake.outstanding -= 1
            if intake.waiting:
                intake.make_room()
        try:
            await self._connection.output.drained()
        finally:
            if gives_place:
                intake.outstanding += 1
                self._step_back()

    def _step_aside(self) -> None:
        self._aside += 1
        if self._aside == self._intake.limit:
            self.is_full = True
            self._connection.hold()

    def _step_back(self) -> None:
        self._aside -= 1
        if self.is_full and self._aside < self._intake.limit:
            self.is_full = False
            if self._connection.line is not None:
                self._connection.line.go_on()
