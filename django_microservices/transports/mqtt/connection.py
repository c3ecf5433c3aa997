"""One connection with a broker: packets in, packets out, and whether it lives."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ...exceptions import (
    ConnectionLost,
    NotConnected,
    TransportRefused,
)
from ..stream import Drained
from . import reasons
from .flows import LARGEST_ID, Accepted, Asked, Outgoing
from .limits import Limits
from .packets import (
    MQTT_5,
    PINGREQ,
    Ack,
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    Kind,
    Oversized,
    Packet,
    PingResp,
    Publish,
    Subscribe,
    connect_packet,
    disconnect_packet,
    publish_packet,
    subscribe_packet,
    unsubscribe_packet,
)
from .reader import PacketReader
from .stream import Stream

if TYPE_CHECKING:
    from .transport import MQTTTransport

Receive = Callable[[Publish | Oversized], None]

INTERVAL = 4.0
"""Seconds between two PINGREQs, at most: a broker that hangs is found within ten."""
PATIENCE = 1.0
"""Seconds more: a loop that was held up itself reads what has come in between."""


class Connection(Stream):
    """What both halves share. ``receive(publish)`` gets each message once.

    ``greeted`` ends with the CONNACK of a broker that takes us. ``accepted`` is what
    the connection before this one left, where the broker may keep the session.
    """

    def __init__(
        self,
        options: "MQTTTransport",
        connect: Connect,
        receive: Receive,
        accepted: Accepted | None = None,
    ) -> None:
        super().__init__(asyncio.get_running_loop())
        self.version = connect.version
        self.limits = Limits(options.max_frame_size)
        self.reader = PacketReader(connect.version, options.max_frame_size)
        self.asked = Asked(self.write)
        self.accepted = Accepted(self.write) if accepted is None else accepted
        self.greeted: asyncio.Future[ConnAck] = self.loop.create_future()
        self._connect = connect
        self._receive = receive
        self._pings: deque[asyncio.Future[None] | None] = deque()
        self._interval = INTERVAL
        self._asked_at = 0.0
        self._overdue = False
        self._timer: asyncio.TimerHandle | None = None

    # --- life ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce ourselves."""
        super().connection_made(transport)
        self.write(connect_packet(self._connect))

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what waits for the broker."""
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()
        reason = self.reason or ""
        if not self.greeted.done():
            _fail(self.greeted, NotConnected(reason))
        self.asked.fail(reason)
        while self._pings:
            self._pong()

    def ended(self) -> None:
        """Acknowledge nothing more."""
        self.accepted.use(None)

    def refuse(self, what: str, code: int = reasons.MALFORMED) -> None:
        """End the connection because of what the broker sent."""
        self.write(disconnect_packet(self.version, code))
        self.flush()
        self.abort(f"the broker sent {what}")

    async def close(self) -> None:
        """Say goodbye, and return when the connection is gone."""
        self.write(disconnect_packet(self.version))
        await self.end()

    def _watch(self) -> None:
        """See every few seconds that the broker answers.

        One that hangs has a kernel that acknowledges for it. While we do not read
        ourselves, silence says nothing.
        """
        answered = self.deaf or self.heard >= self._asked_at
        if not answered and self._overdue:
            silent = self.loop.time() - self.heard
            self.abort(f"the broker was silent for {silent:.0f} s")
            return
        self._overdue = not answered
        if answered:
            self._asked_at = self.loop.time()
            self._ping(None)
        delay = self._interval if answered else PATIENCE
        self._timer = self.loop.call_later(delay, self._watch)

    def ping(self) -> "asyncio.Future[None]":
        """Ask; the future ends when everything sent before the answer was read."""
        future: asyncio.Future[None] = self.loop.create_future()
        if self.lost:
            future.set_result(None)
        else:
            self._ping(future)
        return future

    def _ping(self, future: "asyncio.Future[None] | None") -> None:
        self._pings.append(future)
        self.write(PINGREQ)

    def _pong(self) -> None:
        """Take an answer; they come in the order of the questions."""
        future = self._pings.popleft() if self._pings else None
        if future is not None and not future.done():
            future.set_result(None)

    # --- in ---

    def data_received(self, data: bytes) -> None:
        """Hand messages over, and take the broker's answers."""
        super().data_received(data)
        receive, reader = self._receive, self.reader
        is_greeted = self.greeted.done()
        for packet in reader.receive(data):
            if is_greeted and type(packet) is Publish and not packet.qos:
                receive(packet)
            elif not self.lost:
                self._take(packet)
        if reader.error is not None and not self.lost:
            self.refuse(reader.error)

    def _take(self, packet: Packet) -> None:
        if not self.greeted.done():
            self._greet(packet)
        elif isinstance(packet, Publish | Oversized):
            if not packet.qos or self.accepted.is_new(packet):
                self._receive(packet)
        elif isinstance(packet, Ack):
            if packet.kind is Kind.PUBREL:
                self.accepted.released(packet)
            else:
                self.asked.answered(packet)
        elif isinstance(packet, Disconnect):
            said = reasons.text_of(packet.code, packet.properties)
            self.abort(f"the broker says goodbye: {said}")
        elif isinstance(packet, PingResp):
            self._pong()
        elif isinstance(packet, Auth):
            self.refuse("an AUTH", reasons.BAD_AUTHENTICATION_METHOD)
        else:
            self.refuse("a second CONNACK")

    def _greet(self, packet: Packet) -> None:
        """Take the CONNACK; a broker that says anything else first is none."""
        if not isinstance(packet, ConnAck):
            self.refuse("something before its CONNACK")
            return
        if packet.code:
            self._refused(packet)
            return
        properties = packet.properties
        self.asked.window = properties.get("receive_maximum", LARGEST_ID)
        keepalive = properties.get("server_keep_alive", self._connect.keepalive)
        self._interval = min(INTERVAL, keepalive / 2 or INTERVAL)
        self.limits.learn(properties)
        if not packet.session_present:
            self.accepted.forget()
        self.accepted.use(self.write)
        self.greeted.set_result(packet)
        self._timer = self.loop.call_later(self._interval, self._watch)

    def _refused(self, packet: ConnAck) -> None:
        code = packet.code
        if self.version != MQTT_5:
            code = reasons.RETURN_CODES.get(code, code)
        text = reasons.text_of(code, packet.properties)
        kind = TransportRefused if reasons.is_permanent(code) else NotConnected
        _fail(self.greeted, kind(text))
        self.abort(text)

    # --- out ---

    def send(self, head: bytes, payload: bytes, retain: int = 0) -> Drained | None:
        """Publish with QoS 0; an awaitable says that the broker does not keep up.

        ``head`` is the topic, in MQTT 5 with the properties, ``retain`` the flag.
        Raises :class:`MessageTooLarge`, and :class:`TransportRefused` for what this
        broker has not.
        """
        if retain:
            self.limits.check_flags(retain)
        packet = publish_packet(head, payload, retain)
        if len(packet) > self.limits.size:
            self.limits.check_size(len(packet))
        self.write(packet)
        return Drained(self.drained) if self.paused else None

    def publish(
        self, flags: int, topic: bytes, properties: bytes, payload: bytes
    ) -> "asyncio.Future[int]":
        """Publish with QoS 1 or 2; the future ends with the code that confirms it.

        Raises as :meth:`send` does; the future :class:`TransportRefused` and
        :class:`ConnectionLost`.
        """
        self.limits.check_flags(flags)
        self.limits.check_size(len(topic) + len(properties) + len(payload) + _HEADER)
        future: asyncio.Future[int] = self.loop.create_future()
        done = partial(_confirm, future)
        self.asked.publish(Outgoing(flags, topic, properties, payload, done))
        return future

    def subscribe(self, subscribe: Subscribe) -> "asyncio.Future[Ack]":
        """Subscribe; the future ends with the SUBACK, which may be a refusal."""
        return self._ask(
            Kind.SUBSCRIBE, partial(subscribe_packet, self.version, subscribe)
        )

    def unsubscribe(self, filters: Sequence[str]) -> "asyncio.Future[Ack]":
        """Unsubscribe; the future ends when the broker sends no more of it."""
        return self._ask(
            Kind.UNSUBSCRIBE, partial(unsubscribe_packet, self.version, filters)
        )

    def _ask(self, kind: Kind, make: Callable[[int], bytes]) -> "asyncio.Future[Ack]":
        future: asyncio.Future[Ack] = self.loop.create_future()
        self.asked.ask(kind, make, partial(_answer, future))
        return future


_HEADER = 7  # bytes at most, besides what a caller gives


def _answer(future: "asyncio.Future[Ack]", answer: Ack | ConnectionLost) -> None:
    if future.done():
        return  # nobody waits any more
    if isinstance(answer, Ack):
        future.set_result(answer)
    else:
        _fail(future, answer)


def _confirm(future: "asyncio.Future[int]", answer: Ack | ConnectionLost) -> None:
    if future.done():
        return
    if not isinstance(answer, Ack):
        _fail(future, answer)
    elif answer.codes[0] >= reasons.REFUSED:
        said = reasons.text_of(answer.codes[0], answer.properties)
        _fail(future, TransportRefused(f"the broker refused the message: {said}"))
    else:
        future.set_result(answer.codes[0])


def _fail(future: "asyncio.Future[Any]", error: BaseException) -> None:
    future.set_exception(error)
    future.exception()  # nobody has to look at it
