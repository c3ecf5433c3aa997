"""One connection of a server: what it brings is delivered, and answered."""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ...exceptions import InvalidMessage, NotConnected, TransportRefused
from ...wire.channels import read_channel_message
from ...wire.codecs import encode, is_too_deep
from ...wire.headers import remaining
from ...wire.messages import UNSET, Message, Reply, Subscription
from ...wire.packets import write_reply
from ...wire.patterns import Pattern
from ...wire.text import shown
from ..redelivery import REASON_HEADER
from . import reasons
from .connection import Connection
from .packets import MQTT_5, Ack, Oversized, Publish, Subscribe
from .properties import NONE, Properties, text_bytes
from .receipt import Receipt
from .topics import REPLY_SUFFIX, Filter

if TYPE_CHECKING:
    from .intake import Intake

logger = logging.getLogger(__name__)

IDENTIFIERS = "subscription_identifier_available"
"""The feature of MQTT 5 by which a message tells what brought it."""

_MOST_KNOWN = 4096


class Topic:
    """A topic that brings messages, by what ``name`` says of them.

    ``filters`` are those of the server that match, on whichever connection: more than
    one means more than one copy, and ``via`` is the one that this connection's copies
    came by, where that is certain.
    """

    __slots__ = (
        "_head",
        "_inlet",
        "filters",
        "is_of_letters",
        "is_shared",
        "name",
        "respond",
        "via",
    )

    def __init__(self, inlet: "Inlet", name: str) -> None:
        intake = inlet.intake
        self.name = name
        self.filters = [one for one in intake.filters if one.matches(name)]
        self.is_of_letters = intake.is_of_letters(name)
        own = [one for one in self.filters if one in inlet.filters]
        self.is_shared = all(one.is_shared for one in own)
        is_certain = len(own) == 1 < len(self.filters)
        self.via = own[0].subscription if is_certain else None
        self.respond = self._answer  # bound once, not for every message
        self._inlet = inlet
        self._head = b""

    def refuse(self, reply: Reply) -> None:
        """Answer what no handler gets."""
        try:
            self._answer(reply)
        except ValueError as error:  # the topic is as long as one can be
            logger.warning("No answer to %s: %s", shown(self.name), error)

    def _answer(self, reply: Reply) -> Awaitable[Any] | None:
        """Publish a reply; an awaitable says that the broker does not keep up."""
        text = write_reply(reply)
        if is_too_deep(text):
            message = "The answer nests too deeply."
            raise InvalidMessage(message)
        if not self._head:
            self._head = text_bytes(self.name + REPLY_SUFFIX)
        waiting = self._inlet.reply(reply, self._head, text)
        if isinstance(waiting, asyncio.Future) and not reply.last:
            waiting.add_done_callback(partial(self._inlet.confirmed, reply.id))
        return waiting


class Inlet:
    """A connection, and the filters that are subscribed on it."""

    def __init__(
        self, intake: "Intake", filters: Sequence[Filter], client_suffix: str
    ) -> None:
        options = intake.options
        holdings = intake.holdings
        connect = options.connect_of_server(holdings.limit, client_suffix)
        accepted = holdings.accepted(client_suffix)
        self.intake = intake
        self.connection = Connection(options, connect, self.received, accepted)
        self.is_5 = connect.version == MQTT_5
        self._nothing = b"\0" if self.is_5 else b""  # no properties
        self._reply_flags = options.reply_qos << 1
        self._topics: dict[str, Topic] = {}
        self.take_over(filters)

    # --- subscriptions ---

    def take_over(self, filters: Sequence[Filter]) -> None:
        """Have these filters, and no others."""
        self.filters = filters
        self._by_identifier = {one.identifier: one.subscription for one in filters}
        self._topics.clear()

    async def subscribe(self) -> None:
        """Subscribe, and return when the broker has taken everything.

        Raises :class:`TransportRefused` for a filter that it does not take.
        """
        options = self.intake.options
        for one in self.filters:
            self._check_features(one)
        if not options.clean:
            await self._unsubscribe_others()
        has_identifiers = self.is_5 and self.connection.limits.has(IDENTIFIERS)
        answers = [
            self.connection.subscribe(
                Subscribe(
                    one.text,
                    options.subscription_bits(one),
                    one.identifier if has_identifiers else 0,
                )
            )
            for one in self.filters
        ]
        for one, ack in zip(self.filters, await asyncio.gather(*answers), strict=True):
            self._check(one, ack)

    async def _unsubscribe_others(self) -> None:
        """Take from a kept session what another connection has today."""
        own = {one.text for one in self.filters}
        others = [one.text for one in self.intake.filters if one.text not in own]
        if others:
            await self.connection.unsubscribe(others)

    def _check_features(self, one: Filter) -> None:
        """Refuse what the broker would end the connection for."""
        has = self.connection.limits.has
        if one.is_shared and not has("shared_subscription_available"):
            self._refused(one, reasons.SHARED_NOT_SUPPORTED)
        if one.has_wildcards and not has("wildcard_subscription_available"):
            self._refused(one, reasons.WILDCARDS_NOT_SUPPORTED)

    def _check(self, one: Filter, ack: Ack) -> None:
        code = ack.codes[0]
        if code >= reasons.REFUSED:
            self._refused(one, code, ack.properties)
        if code < one.qos:
            logger.warning(
                "The broker gives %s with QoS %s, not %s.", one.text, code, one.qos
            )

    def _refused(self, one: Filter, code: int, properties: Properties = NONE) -> None:
        said = reasons.text_of(code, properties)
        kind = TransportRefused if reasons.is_permanent(code) else NotConnected
        message = f"The broker refused the subscription to {one.text}: {said}"
        raise kind(message)

    # --- in ---

    def received(self, publish: Publish | Oversized) -> None:
        """Deliver a message, or what says that it could not be read."""
        name = publish.topic
        topic = self._topics.get(name) or self._new_topic(name)
        if self.intake.is_leaving:
            return  # what is not acknowledged comes again when we are back
        if isinstance(publish, Oversized):
            self._unread(topic, publish, UNSET, f"{publish.size} bytes are too many")
            return
        if (self.is_5 or publish.retain) and not self._is_meant(publish, topic):
            self._drop(publish)
            return
        message = read_channel_message(
            name, publish.payload, reply_suffix=REPLY_SUFFIX, takes_text=True
        )
        if not isinstance(message, Message):
            self._refuse(topic, publish, message)
            return
        message.wire = publish
        if len(topic.filters) > 1:
            message.subscription = topic.via or self._via(publish)
        if self.is_5:
            _read_headers(message, publish)
        if topic.is_of_letters and REASON_HEADER in (message.headers or ()):
            self._drop(publish)
        elif publish.qos:
            self.intake.holdings.take(self._receipt(topic, publish, message))
        else:
            self.intake.room.take(message, topic.respond)

    def _new_topic(self, name: str) -> Topic:
        if len(self._topics) >= _MOST_KNOWN:
            self._topics.clear()
        topic = self._topics[name] = Topic(self, name)
        return topic

    def _receipt(
        self, topic: Topic, publish: Publish | Oversized, message: Message
    ) -> Receipt:
        failures, accepted = self.intake.failures, self.connection.accepted
        return Receipt(failures, accepted, publish, message, topic.respond)

    def _via(self, publish: Publish) -> Subscription | None:
        """Return by which filter it came; a broker may name several for one copy."""
        identifiers = publish.properties.get("subscription_identifier", ())
        if len(identifiers) != 1:
            return None
        return self._by_identifier.get(identifiers[0])

    def _is_meant(self, publish: Publish, topic: Topic) -> bool:
        """Whether it is for this server as it is today.

        A session that was kept may know a filter that is no more; those of today that
        match bring copies of their own. And what was retained is not for who shares.
        """
        if not topic.filters:
            return True
        if not self.is_5:
            return not topic.is_shared
        identifiers = publish.properties.get("subscription_identifier", ())
        known = self._by_identifier.keys()
        return not identifiers or not known.isdisjoint(identifiers)

    def _refuse(self, topic: Topic, publish: Publish, reply: Reply | None) -> None:
        """Answer a request that cannot be read; drop what is no message."""
        if reply is not None:
            topic.refuse(reply)
        elif publish.payload and not topic.name.endswith(REPLY_SUFFIX):
            text = encode(publish.payload.decode(errors="replace"))
            self._unread(topic, publish, text, "it could not be read")
            return
        self._drop(publish)

    def _drop(self, publish: Publish | Oversized) -> None:
        """Have done with what is not for us: replies, and our own dead letters."""
        if publish.qos:
            self.connection.accepted.acknowledge(publish)

    def _unread(
        self, topic: Topic, publish: Publish | Oversized, data: Any, reason: str
    ) -> None:
        """Bury what cannot be read, where the broker waits for an outcome."""
        if publish.qos:
            message = Message(Pattern.from_channel(topic.name), data)
            self._receipt(topic, publish, message).settle("dead", None, reason)
        else:
            logger.warning("Dropped a message of %s: %s.", shown(topic.name), reason)

    # --- out ---

    def reply(self, reply: Reply, topic: bytes, text: bytes) -> Awaitable[Any] | None:
        """Publish a reply, as Nest does with QoS 0, unless told otherwise."""
        connection: Connection | None = self.connection
        if self._reply_flags or self.connection.lost:
            connection = self.intake.holdings.speaker
        if connection is None or connection.lost:
            if not reply.last:
                self.intake.holdings.streams.unsent(reply.id)
            return None
        if not self._reply_flags:
            return connection.send(topic + self._nothing, text)
        return connection.publish(self._reply_flags, topic, self._nothing, text)

    def confirmed(self, id_: Any, confirmed: "asyncio.Future[int]") -> None:
        """End a stream of which the broker says that nobody reads it."""
        if confirmed.cancelled() or confirmed.exception() is not None:
            return
        if confirmed.result() == reasons.NO_SUBSCRIBERS:
            self.intake.holdings.streams.unheard(id_)


def _read_headers(message: Message, publish: Publish) -> None:
    """Take the user properties of MQTT 5 for headers."""
    user = publish.properties.get("user_properties")
    if user is not None:
        message.headers = {**(message.headers or {}), **dict(user)}
        message.timeout = remaining(message.headers)
