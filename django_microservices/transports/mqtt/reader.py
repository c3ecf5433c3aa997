"""Cuts a stream of bytes into packets, without I/O, and trusts none of them."""

from typing import TypeVar

from ...exceptions import InvalidMessage
from .answers import read_answer, read_packet_id
from .packets import DUP, MQTT_5, RETAIN, Kind, Oversized, Packet, Publish
from .properties import (
    NONE,
    OF_MESSAGES,
    Properties,
    checked_text,
    read_binary,
    read_length,
    read_number,
    read_properties,
)

_IN_PUBLISH = OF_MESSAGES | {"subscription_identifier"}  # no alias: we allow none

_HEADER = 2
_REMEMBERED = 1024
_LONGEST_REMEMBERED = 128


class PacketReader:
    """Takes what was read, and returns the packets that are complete now.

    ``max_size`` is the most bytes of one packet. After ``error`` is set (a text that
    says why) nothing more is read.
    """

    def __init__(self, version: int, max_size: int) -> None:
        self.version = version
        self.is_5 = version == MQTT_5
        self.max_size = max_size
        self.error: str | None = None
        self._buffer: bytearray | None = None
        self._wanted = 0
        self._to_skip = 0
        self._topics: dict[bytes, str] = {}
        self._properties: dict[bytes, Properties] = {}

    @property
    def partial(self) -> bool:
        """Whether a packet has begun and not ended."""
        return self._buffer is not None or self._to_skip > 0

    def receive(self, data: bytes) -> list[Packet]:
        """Take what was read."""
        if self._to_skip:
            skipped = min(self._to_skip, len(data))
            self._to_skip -= skipped
            data = data[skipped:]
        if self._buffer is not None:
            self._buffer += data
            if len(self._buffer) < self._wanted:
                return []
            data, self._buffer = bytes(self._buffer), None
        packets: list[Packet] = []
        try:
            rest = self._cut(data, packets)
        except InvalidMessage as error:
            self.error = str(error)
            return packets
        if rest < len(data):
            self._buffer = bytearray(memoryview(data)[rest:])
        return packets

    def _cut(self, data: bytes, packets: list[Packet]) -> int:
        """Read every packet that is whole; return where the rest begins."""
        position, end = 0, len(data)
        topics, is_3 = self._topics, not self.is_5
        while end - position >= _HEADER:
            first, length, start = data[position], data[position + 1], position + 2
            if length > 0x7F:  # noqa: PLR2004 - more bytes of it follow
                length, start = read_length(data, position + 1, end)
                if start < 0:
                    break
            stop = start + length
            if stop - position > self.max_size:
                known = self._end_of_head(first, data, start, stop)
                if known > end:
                    self._wanted = known - position
                    return position
                packets.append(self._oversized(first, data, start, stop))
                self._to_skip = max(0, stop - end)
                position = min(stop, end)
                continue
            if stop > end:
                self._wanted = stop - position
                return position
            if first == _AT_MOST_ONCE and is_3 and length > 1:
                # The hot path: what _publish() does, without its frame.
                begin = start + 2 + (data[start] << 8 | data[start + 1])
                name = data[start + 2 : begin]
                topic = topics.get(name)
                if topic is None or begin > stop:
                    topic = self._topic(name, begin, stop)
                packets.append(Publish(topic, data[begin:stop]))
            else:
                packets.append(self._packet(first, data, start, stop))
            position = stop
        self._wanted = 0
        return position

    # --- messages ---

    def _publish(self, first: int, data: bytes, start: int, stop: int) -> Publish:
        topic, packet_id, start = self._head(first, data, start, stop)
        properties = NONE
        if self.is_5:
            properties, start = self._properties_of(data, start, stop)
        return Publish(
            topic,
            data[start:stop],
            first >> 1 & 3,
            bool(first & RETAIN),
            bool(first & DUP),
            packet_id,
            properties,
        )

    def _head(
        self, first: int, data: bytes, start: int, stop: int
    ) -> tuple[str, int, int]:
        """Read the topic and the packet identifier; return also where they end."""
        name, start = read_binary(data, start, stop)
        topic = self._topics.get(name) or self._topic(name, start, stop)
        qos = first >> 1 & 3
        if qos > 2:  # noqa: PLR2004 - there is no QoS 3
            message = "a message of QoS 3"
            raise InvalidMessage(message)
        if not qos:
            return topic, 0, start
        packet_id, start = read_packet_id(data, start, stop)
        return topic, packet_id, start

    def _topic(self, name: bytes, end: int, stop: int) -> str:
        """Read a topic's name, and remember it: few recur in most messages."""
        if end > stop:
            message = "a topic that is longer than its packet"
            raise InvalidMessage(message)
        topic = checked_text(name)
        if not topic or "+" in topic or "#" in topic:
            message = "a topic that is no name"
            raise InvalidMessage(message)
        return _remember(self._topics, name, topic)

    def _properties_of(
        self, data: bytes, start: int, stop: int
    ) -> tuple[Properties, int]:
        if start < stop and not data[start]:
            return NONE, start + 1
        size, begin = read_length(data, start, stop)
        raw = data[start : begin + size]
        found = self._properties.get(raw)
        if found is not None:
            return found, begin + size
        found, start = read_properties(data, start, stop, _IN_PUBLISH)
        return _remember(self._properties, raw, found), start

    # --- what is too large ---

    def _end_of_head(self, first: int, data: bytes, start: int, stop: int) -> int:
        """Return where topic and packet identifier end, or how much tells that.

        One message that is too large does not end the connection of 3.1.1: it would
        come again. A broker of MQTT 5 was told the limit, and sends no such thing.
        """
        if first >> 4 != Kind.PUBLISH or self.is_5:
            message = f"a packet of {stop - start} bytes is over max_frame_size"
            raise InvalidMessage(message)
        if len(data) < start + 2:
            return start + 2
        size, start = read_number(data, start, stop, 2)
        return start + size + (2 if first >> 1 & 3 else 0)

    def _oversized(self, first: int, data: bytes, start: int, stop: int) -> Oversized:
        topic, packet_id, _ = self._head(first, data, start, stop)
        is_again = bool(first & DUP)
        return Oversized(topic, stop - start, first >> 1 & 3, packet_id, is_again)

    def _packet(self, first: int, data: bytes, start: int, stop: int) -> Packet:
        if first >> 4 == Kind.PUBLISH:
            return self._publish(first, data, start, stop)
        return read_answer(first, data[start:stop], self.version)


_AT_MOST_ONCE = Kind.PUBLISH << 4  # QoS 0, not retained

_Value = TypeVar("_Value")


def _remember(known: dict[bytes, _Value], key: bytes, value: _Value) -> _Value:
    """Keep a value, within bounds that no peer can push outwards."""
    if len(key) <= _LONGEST_REMEMBERED:
        if len(known) >= _REMEMBERED:
            known.clear()
        known[key] = value
    return value
