"""What a service offers on whatever wire: the ``handlers.py`` of the last cases."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec

from ...dispatch.decorators import Controller, event_pattern, message_pattern
from ...exceptions import RpcException
from ...wire.context import MessageContext
from ...wire.contracts import Event, Request


class Order(msgspec.Struct):
    """What is ordered."""

    sku: str
    number: int = 1


SUM = Request({"cmd": "conformance.sum"}, list[int], int)
PLACE = Request("conformance.place", Order, Order)
COUNT = Request("conformance.count", int, int)
COUNT_SYNC = Request("conformance.count-sync", int, int)
REFUSE = Request("conformance.refuse", str, type(None))
PLACED = Event("conformance.placed", Order)

placed: list[tuple[str, Order, Any]] = []
"""What the handlers of the event saw: who, what, and the header ``tenant``."""


@message_pattern(SUM)
def total(data: list[int]) -> int:
    """Answer on a thread."""
    return sum(data)


@message_pattern(COUNT)
async def count(data: int) -> AsyncIterator[int]:
    """Answer item by item."""
    for number in range(data):
        yield number


@message_pattern(COUNT_SYNC)
def count_sync(data: int) -> Iterator[int]:
    """Answer item by item, on a thread."""
    yield from range(data)


@message_pattern(REFUSE)
async def refuse(data: str) -> None:
    """Answer with an error."""
    raise RpcException({"refused": data})


class Orders(Controller):
    """Handlers of one instance."""

    @message_pattern(PLACE)
    async def place(self, data: Order) -> Order:
        """Answer on the loop."""
        return Order(data.sku.upper(), data.number + 1)

    @event_pattern(PLACED)
    async def note(self, data: Order, context: MessageContext[Any]) -> None:
        """Note an event."""
        placed.append(("controller", data, context.headers.get("tenant")))


@event_pattern(PLACED)
def note(data: Order, context: MessageContext[Any]) -> None:
    """Note the same event, on a thread."""
    placed.append(("function", data, context.headers.get("tenant")))
