"""The client's half of the RabbitMQ wire."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ...exceptions import (
    ConnectionLost,
    MessageTooLarge,
    MicroserviceError,
    NoHandler,
)
from ...wire.codecs import is_too_deep
from ...wire.messages import UNSET, Message, Reply
from ...wire.packets import write_message
from ...wire.seconds import seconds_of
from ...wire.unreadable import TOO_DEEP
from .channel import Channel
from .connection import Connection
from .delays import LONGEST_DELAY, Delays
from .errors import NOT_FOUND, BrokerClosed, copied
from .frames import publish
from .methods import Consume, DeclareQueue
from .names import check_is_concrete, is_private, routing_key
from .outgoing import Outgoing
from .packets import CANCEL, NOT_JSON, read_answer
from .properties import essentials, of_reply
from .protocol import Content

if TYPE_CHECKING:
    from ..base import Receive
    from .transport import RabbitMQTransport

logger = logging.getLogger(__name__)

_REOPENING = "reopening"
_MOST_KNOWN = 4096


class Link:
    """One connection to a broker, with a channel for requests and one for events.

    Replies come back on the channel that asked: direct reply-to wants that. The other
    one confirms. ``asked`` are the ids of requests that wait for a reply, each with the
    address of the server of ours that streams it, where one does.
    """

    def __init__(
        self, options: "RabbitMQTransport", connection: Connection, receive: "Receive"
    ) -> None:
        self.options = options
        self.connection = connection
        self.closed: asyncio.Future[Any] = connection.closed
        self.ignored = 0
        self.asked: dict[Any, bytes | None] = {}
        self.requests = self.events = Channel(connection)
        self._receive = receive
        self._reply_to = options.reply_queue
        self._outgoing = Outgoing(
            options.headers_of_all,
            options.persistent,
            options.names_events,
            connection.address.user,
            {},
        )
        self._starts: dict[tuple[int, str, bool], bytes] = {}
        self._delays = Delays(connection)
        self._opening: set[asyncio.Task[None]] = set()

    @property
    def driver(self) -> Connection:
        """The connection."""
        return self.connection

    # --- life ---

    async def open(self) -> None:
        """Declare what is ours to declare, and wait for replies.

        Raises what :meth:`BrokerClosed.when_opening` makes of a refusal.
        """
        try:
            await self._open_requests()
            if self.options.confirms:
                await self._open_events()
            else:
                self.events = self.requests
        except BrokerClosed as refusal:
            raise refusal.when_opening() from refusal

    async def _open_requests(self) -> None:
        channel = self.requests = Channel(self.connection)
        await channel.open()
        channel.ended = self._requests_ended
        topology = self.options.topology
        if self.options.sends_to_queue:
            await topology.declare_queue(channel)
        else:
            await topology.declare_exchange(channel)
        channel.delivered = self._replied
        channel.returned = self._came_back
        channel.cancelled = self._cancelled
        queue = self.options.reply_queue
        if not queue:
            declared = await channel.call(DeclareQueue(exclusive=True))
            queue = self._reply_to = declared.queue
        await channel.call(Consume(queue=queue, no_ack=True))

    async def _open_events(self) -> None:
        channel = self.events = Channel(self.connection)
        await channel.open(confirms=True)
        channel.ended = self._events_ended

    def _cancelled(self, _: Any) -> None:
        self.connection.abort(ConnectionLost("the broker ended the queue of replies"))

    def _events_ended(self, _: MicroserviceError) -> None:
        self._reopen(self._open_events)

    def _requests_ended(self, reason: MicroserviceError) -> None:
        """End the requests whose replies cannot come any more, as their callers know.

        Where there is no exchange nobody can listen; all else counts as a lost link.
        """
        if self.connection.lost:
            return
        if not isinstance(reason, BrokerClosed) or reason.code != NOT_FOUND:
            self.connection.abort(ConnectionLost(str(reason)))
            return
        logger.warning("%s", reason)
        for id_ in tuple(self.asked):
            self._receive(Reply(id_, missing=True))
        self._reopen(self._open_requests)

    def _reopen(self, open_: Callable[[], Awaitable[None]]) -> None:
        """Open a channel anew that the broker closed; publishers wait meanwhile."""
        if not self.connection.lost:
            self.connection.gate.shut(_REOPENING)
            task = asyncio.ensure_future(self._reopened(open_))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _reopened(self, open_: Callable[[], Awaitable[None]]) -> None:
        try:
            await open_()
        except MicroserviceError as error:
            self.connection.abort(ConnectionLost(str(error)))
        else:
            self._starts.clear()
            self._outgoing.known.clear()
            self.connection.gate.open(_REOPENING)

    async def close(self) -> None:
        """Close, and return when that is done."""
        await self.connection.close()
        if self._opening:
            await asyncio.wait(self._opening)

    # --- out ---

    def publish(self, message: Message) -> Awaitable[None] | None:
        """Publish a message; the awaitable of an event ends when the broker has it.

        While the broker takes nothing the awaitable waits for that first. Raises
        ``ValueError`` for a pattern or an option that cannot travel,
        :class:`MessageTooLarge` and :class:`ConnectionLost`.
        """
        if not self.connection.gate.is_open:
            if self.connection.gate.lost is not None:
                raise copied(self.connection.gate.lost)
            return self._publish_later(message)
        pattern, data, id_ = message.pattern, message.data, message.id
        body = write_message(pattern.json, None if data is UNSET else data, id_, None)
        if len(body) > self.options.max_message_size:
            self._refuse(len(body))
        if id_ is UNSET:
            return self._publish_event(message, body)
        properties = self._outgoing.of_request(message, self._reply_to)
        channel = self.requests
        start = self._start(channel, message, mandatory=self.options.returns_requests)
        channel.send(start, properties, body)
        self.asked[id_] = None
        return None

    def _publish_event(self, message: Message, body: bytes) -> Awaitable[None] | None:
        channel = self.events
        mandatory = self.options.returns_events
        if message.options:
            if message.options.get("delay"):
                return self._publish_delayed(message, body)
            mandatory = message.options.get("mandatory", mandatory)
        start = self._start(channel, message, mandatory=mandatory)
        properties, name = self._outgoing.of_event(message, mandatory=mandatory)
        channel.send(start, properties, body)
        confirms = channel.confirms
        if confirms is None:
            return None
        return confirms.expect(name if mandatory else None)

    async def _publish_delayed(self, message: Message, body: bytes) -> None:
        """Publish to where an event rests, and comes from it as if sent then."""
        exchange, key = self._destination(message)
        if message.options.get("expiration") is not None:
            text = "options: 'delay' and 'expiration' exclude each other on RabbitMQ."
            raise ValueError(text)
        seconds = seconds_of(message.options["delay"], "options['delay']")
        if seconds > LONGEST_DELAY:
            text = f"options['delay']: at most {LONGEST_DELAY} s on RabbitMQ."
            raise ValueError(text)
        try:
            resting = await self._delays.exchange_for(exchange, seconds)
        except BrokerClosed as refusal:
            raise refusal.when_publishing() from refusal
        await self.connection.gate.passed()
        channel = self.events
        properties, name = self._outgoing.of_event(message, mandatory=True)
        start = publish(channel.number, resting, key, mandatory=True)
        channel.send(start, properties, body)
        if channel.confirms is not None:
            try:
                await channel.confirms.expect(name)
            except NoHandler:  # the place is gone, and declared by the next one
                self._delays.forget()
                raise

    def _start(self, channel: Channel, message: Message, *, mandatory: bool) -> bytes:
        """Return the packed ``basic.publish``: few of them recur."""
        key = channel.number, message.pattern.route, mandatory
        try:
            return self._starts[key]
        except KeyError:
            if len(self._starts) >= _MOST_KNOWN:
                self._starts.clear()
        start = publish(
            channel.number, *self._destination(message), mandatory=mandatory
        )
        self._starts[key] = start
        return start

    def _destination(self, message: Message) -> tuple[str, str]:
        """Return the exchange and the routing key; the empty one is that of queues."""
        if self.options.sends_to_queue:
            check_is_concrete(message.pattern)
            return "", self.options.queue or ""
        return self.options.topology.exchange, routing_key(message.pattern)

    async def _publish_later(self, message: Message) -> None:
        """Publish once the broker takes something, unless nobody waits any more."""
        id_ = message.id
        if id_ is not UNSET:
            self.asked[id_] = None
        await self.connection.gate.passed()
        if id_ is UNSET or id_ in self.asked:
            waiting = self.publish(message)
            if waiting is not None:
                await waiting

    def _refuse(self, size: int) -> None:
        most = self.options.max_message_size
        message = (
            f"A message of {size} bytes is over max_message_size ({most}): "
            "raise it on both ends, or send less."
        )
        raise MessageTooLarge(message)

    def forget(self, id_: Any, *, answered: bool) -> None:
        """Wait for this reply no more, and tell a server of ours that streams it."""
        server = self.asked.pop(id_, None)
        if server is not None and not answered and self.connection.gate.is_open:
            channel = self.requests
            start = publish(channel.number, "", server)
            channel.send(start, of_reply(id_.encode()), CANCEL)

    # --- in ---

    def _replied(self, content: Content) -> None:
        """Hand a reply to the client: the correlation id alone says whose it is."""
        _, id_, server = essentials(content.properties)
        if id_ is None:
            self.ignored += 1
            return
        name, body = id_.decode(errors="replace"), content.body
        if server is not None and name in self.asked and is_private(server):
            self.asked[name] = server
        if body is None:
            self._receive(Reply(name, NOT_JSON))
        elif is_too_deep(body):
            self._receive(Reply(name, TOO_DEEP))
        else:
            self._receive(read_answer(name, body))

    def _came_back(self, content: Content) -> None:
        """End a request that no queue took: nobody listens."""
        id_ = essentials(content.properties)[1]
        if id_ is not None:
            self._receive(Reply(id_.decode(), missing=True))
