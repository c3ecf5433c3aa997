"""The client's half of the MQTT wire."""

import asyncio
import logging
from collections.abc import Awaitable
from functools import partial
from typing import TYPE_CHECKING, Any

from ...exceptions import InvalidMessage, NotConnected
from ...wire.codecs import is_too_deep
from ...wire.messages import UNSET, Message, Reply
from ...wire.packets import read_reply
from ...wire.text import shown
from ...wire.unreadable import TOO_DEEP
from .connection import Connection
from .packer import Packer, flags_of
from .packets import AT_LEAST_ONCE, Oversized, Publish
from .properties import text_bytes
from .reasons import NO_SUBSCRIBERS
from .replies import Replies, ReplyTopic
from .topics import check_topic

if TYPE_CHECKING:
    from ..base import Receive
    from .transport import MQTTTransport

logger = logging.getLogger(__name__)

_MOST_KNOWN = 1024


class Link:
    """Publishes, and listens for answers on the topics that all clients share."""

    def __init__(self, options: "MQTTTransport", receive: "Receive") -> None:
        self.ignored = 0
        self.connection = Connection(
            options, options.connect_of_client(), self.received
        )
        self.closed = self.connection.closed
        self.replies = Replies(self.connection, options.reply_qos, self._send)
        self._receive = receive
        self._packer = Packer(options.protocol_version, options.user_properties)
        self._how_events = flags_of(options.publish_options)
        self._topics: dict[str, bytes] = {}
        self._asked: dict[Any, ReplyTopic] = {}
        self._warned: set[str] = set()

    @property
    def driver(self) -> Connection:
        """The connection."""
        return self.connection

    # --- out ---

    def publish(self, message: Message) -> Awaitable[Any] | None:
        """Write a message; an awaitable ends when the broker has it, or reads on.

        A request waits until the broker will bring its answer. Raises ``ValueError``
        for a pattern that is no topic, :class:`MessageTooLarge`, :class:`NotConnected`.
        """
        if self.connection.lost:
            raise NotConnected(self.connection.reason or "the connection ended")
        route = message.pattern.route
        topic = self._topics.get(route) or self._topic(route)
        properties, body = self._packer.pack(message)
        is_event, options = message.id is UNSET, message.options
        flags = self._how_events if is_event else 0
        if options is not None:
            flags = flags_of(options, flags)
            if options.get("delay"):
                self._warn_of_delay(route)
        if is_event:
            return self._send(UNSET, flags, topic, properties, body)
        replies = self.replies.join(route)
        self._asked[message.id] = replies
        if replies.is_ready:
            return self._send(message.id, flags, topic, properties, body)
        return replies.hold(message.id, flags, topic, properties, body)

    def _warn_of_delay(self, route: str) -> None:
        """Say once for each pattern what every wire takes and this one cannot do."""
        if route in self._warned:
            return
        if len(self._warned) >= _MOST_KNOWN:
            self._warned.clear()
        self._warned.add(route)
        logger.warning("MQTT delays nothing: %s arrives at once.", shown(route))

    def _send(
        self, id_: Any, flags: int, topic: bytes, properties: bytes, body: bytes
    ) -> Awaitable[Any] | None:
        connection = self.connection
        if flags < AT_LEAST_ONCE:
            return connection.send(topic + properties, body, flags)
        confirmed = connection.publish(flags, topic, properties, body)
        if id_ is not UNSET:
            confirmed.add_done_callback(partial(self._confirmed, id_))
        return confirmed

    def _confirmed(self, id_: Any, confirmed: "asyncio.Future[int]") -> None:
        """End a request of which the broker says that nobody listens for it."""
        if confirmed.cancelled() or confirmed.exception() is not None:
            return
        if confirmed.result() == NO_SUBSCRIBERS:
            self._receive(Reply(id_, missing=True))

    def _topic(self, route: str) -> bytes:
        """Write a topic's name, and remember it: few recur in most messages."""
        topic = text_bytes(check_topic(route))
        if len(self._topics) >= _MOST_KNOWN:
            self._topics.clear()
        self._topics[route] = topic
        return topic

    def forget(self, id_: Any, *, answered: bool) -> None:  # noqa: ARG002 - no cancel
        """Listen no more for the answers of a request that ended."""
        replies = self._asked.pop(id_, None)
        if replies is not None:
            replies.leave(id_)

    # --- in ---

    def received(self, publish: Publish | Oversized) -> None:
        """Hand a reply to the client; everybody's come, and most may be others'."""
        if publish.qos:
            self.connection.accepted.acknowledge(publish)
        if isinstance(publish, Oversized):
            topic = shown(publish.topic)
            logger.warning("Dropped an answer of %s bytes on %s.", publish.size, topic)
            return
        text = publish.payload
        try:
            reply = read_reply(text)
        except InvalidMessage:
            reply = None
        if reply is None:
            self.ignored += 1
        elif is_too_deep(text):
            self._receive(Reply(reply.id, TOO_DEEP))
        else:
            self._receive(reply)

    def close(self) -> None:
        """Look after nothing any more."""
        self.replies.close()
