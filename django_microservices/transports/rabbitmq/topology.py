"""Queues, exchanges and bindings: Nest's by default, argument for argument.

The broker refuses a queue that exists with other arguments (406), so that what Nest's
driver leaves out is left out here too (``reference/nest-wire.md`` A.7, B).
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, NamedTuple, TypedDict

from ...wire.ranges import CountOrZero, Range, Seconds, SecondsOrZero
from .channel import Channel
from .methods import BindQueue, DeclareExchange, DeclareQueue

TOPIC, FANOUT = "topic", "fanout"
DEAD_LETTER_EXCHANGE = "x-dead-letter-exchange"
QUEUE_TYPE, QUORUM = "x-queue-type", "quorum"
PREDECLARED = "amq."
"""How the names of the exchanges begin that every broker has."""


class QueueOptions(TypedDict, total=False):
    """``queue_options``: how the queue is declared; times are in seconds."""

    durable: bool
    auto_delete: bool
    exclusive: bool
    arguments: dict[str, Any]
    message_ttl: SecondsOrZero
    expires: Seconds
    dead_letter_exchange: str
    dead_letter_routing_key: str
    max_length: CountOrZero
    max_priority: Annotated[int, Range(0, 255)]
    no_assert: bool


_ARGUMENTS = {
    "message_ttl": "x-message-ttl",
    "expires": "x-expires",
    "dead_letter_exchange": DEAD_LETTER_EXCHANGE,
    "dead_letter_routing_key": "x-dead-letter-routing-key",
    "max_length": "x-max-length",
    "max_priority": "x-max-priority",
}
_TIMES = {"message_ttl", "expires"}


def queue_arguments(options: QueueOptions) -> dict[str, Any]:
    """Return the arguments of a queue's declaration, as Nest's driver makes them."""
    given: Mapping[str, Any] = options
    return dict(options.get("arguments", {})) | {
        argument: milliseconds(given[name]) if name in _TIMES else given[name]
        for name, argument in _ARGUMENTS.items()
        if name in given
    }


def milliseconds(seconds: float) -> int:
    """Return a time as the broker takes it."""
    return round(seconds * 1000)


class Topology(NamedTuple):
    """What is declared: options of the transport.

    A queue without a name is private: the broker names it, and it ends with its
    consumer. ``exchange`` is empty where only the queue itself is addressed.
    """

    queue: str
    queue_options: QueueOptions
    asserts_queue: bool
    exchange: str
    exchange_type: str
    exchange_arguments: Mapping[str, Any]
    routing_key: str | None

    @property
    def is_quorum(self) -> bool:
        """Whether the options say that the queue is a quorum queue."""
        return queue_arguments(self.queue_options).get(QUEUE_TYPE) == QUORUM

    async def declare_queue(self, channel: Channel) -> str:
        """Declare the queue where it is ours to declare; return its name."""
        if self.queue and not self.asserts_queue:
            return self.queue
        options, is_private = self.queue_options, not self.queue
        declared = await channel.call(
            DeclareQueue(
                queue=self.queue,
                durable=options.get("durable", not is_private),
                exclusive=options.get("exclusive", is_private),
                auto_delete=options.get("auto_delete", is_private),
                arguments=queue_arguments(options),
            )
        )
        return str(declared.queue)

    async def declare_exchange(self, channel: Channel) -> None:
        """Declare the exchange, always durable as Nest's, unless the broker has it."""
        if self.exchange and not self.exchange.startswith(PREDECLARED):
            await channel.call(
                DeclareExchange(
                    exchange=self.exchange,
                    exchange_type=self.exchange_type,
                    durable=True,
                    arguments=dict(self.exchange_arguments),
                )
            )

    async def bind(self, channel: Channel, queue: str, keys: Iterable[str]) -> None:
        """Have the exchange bring the queue what goes to each of the keys."""
        if not self.exchange:
            return
        wanted = dict.fromkeys(keys)
        if self.exchange_type == FANOUT:
            wanted = {"": None}
        elif self.routing_key is not None:
            wanted[self.routing_key] = None
        await asyncio.gather(
            *(
                channel.call(
                    BindQueue(queue=queue, exchange=self.exchange, routing_key=key)
                )
                for key in wanted
            )
        )
