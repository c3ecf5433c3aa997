"""AMQP 0-9-1 without I/O: what was read becomes methods and messages.

Source: the specification's sections 4.2.3 to 4.2.6, and RabbitMQ's own extensions
(``basic.nack``, ``basic.cancel`` by the broker, ``connection.blocked``). Methods are
read by pamqp, except those of the hot path: deliveries, and the broker's confirms.
"""

import struct
from typing import Any

import msgspec
from pamqp import base, frame
from pamqp.exceptions import PAMQPException

from .frames import BODY, END, HEADER, HEARTBEAT, METHOD, OVERHEAD

DELIVER, RETURN, GET_OK = 0x003C003C, 0x003C0032, 0x003C0047
ACK, NACK = 0x003C0050, 0x003C0078
FRAME_ERROR, SYNTAX_ERROR, UNEXPECTED_FRAME = 501, 502, 505
FIRST_FRAME_MAX = 131_072
"""Bytes of a frame before both sides agreed on a bound."""
HEAD = 64 * 1024
"""Bytes that are kept of a message that is too large."""

_FRAME = struct.Struct(">BHI")
_DELIVERY = b"\0\x3c\0\x3c"  # how the payload of that method begins
_INDEX = struct.Struct(">I")
_SETTLED = struct.Struct(">QB")
_TAG_SIZE = 8
_CONTENT = struct.Struct(">xxxxQ")
_NO_PROPERTIES = 12
_CONTENT_FRAMES = frozenset((HEADER, BODY))
_SETTLES = frozenset((ACK, NACK))
_WITH_CONTENT = frozenset((DELIVER, RETURN, GET_OK))
_UNREADABLE = (PAMQPException, ValueError, LookupError, TypeError, ArithmeticError)


class Content(msgspec.Struct, gc=False):
    """A message and the method that brought it: a delivery, a return, or one got.

    ``index`` is that method's number and ``arguments`` its bytes. ``body`` is ``None``
    where the message is larger than the parser keeps, and ``head`` is how it begins;
    ``size`` is its size.
    """

    channel: int
    index: int
    arguments: bytes
    properties: bytes = b"\0\0"
    body: bytes | None = b""
    size: int = 0
    head: bytes = b""

    @property
    def tag(self) -> int:
        """The number of a delivery on its channel."""
        tag: int = _SETTLED.unpack_from(self.arguments, self._behind_consumer)[0]
        return tag

    @property
    def consumer_tag(self) -> str:
        """Which consumer got a delivery."""
        return _text(self.arguments[1 : self._behind_consumer])

    @property
    def redelivered(self) -> bool:
        """Whether the broker delivered it before, and heard of no end."""
        return bool(self.arguments[self._behind_consumer + _TAG_SIZE])

    @property
    def came_by(self) -> tuple[str, str]:
        """The exchange and the routing key of a delivery.

        Texts of peers: what is no UTF-8 in them is replaced.
        """
        names = self.arguments[self._behind_consumer + _TAG_SIZE + 1 :]
        key = 1 + names[0]
        return _text(names[1:key]), _text(names[key + 1 :])

    @property
    def _behind_consumer(self) -> int:
        return 1 + self.arguments[0]

    @property
    def return_reason(self) -> tuple[str, str]:
        """Why a message came back, and the routing key that it was published with."""
        method: Any = read_method(_INDEX.pack(self.index) + self.arguments)
        return method.reply_text, method.routing_key or method.exchange


class Settled(msgspec.Struct, gc=False):
    """The broker's word on messages that we published: ``basic.ack`` or ``.nack``."""

    tag: int
    multiple: bool
    accepted: bool


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


Item = tuple[int, Any]
"""A channel, and a :class:`Content`, a :class:`Settled` or a method of pamqp."""


class _Begun:
    """A message whose frames are still coming."""

    __slots__ = ("content", "missing", "parts")

    def __init__(self, content: Content) -> None:
        self.content = content
        self.parts: list[bytes] | None = None  # until the header came
        self.missing = 0


def read_method(data: bytes) -> base.Frame:
    """Read a method's payload; raise ``ValueError`` for what is none."""
    packed = b"%b%b%b" % (_FRAME.pack(METHOD, 0, len(data)), data, END)
    try:
        value: Any = frame.unmarshal(packed)[2]
    except (*_UNREADABLE, RecursionError) as error:
        message = f"a method that cannot be read: {error}"
        raise ValueError(message) from error
    method: base.Frame = value
    return method


class Parser:
    """Cuts what was read into methods and messages, of all channels.

    After ``error`` is set (AMQP's code and a text) nothing more is read. A body of more
    than ``max_size`` bytes is passed over but for its head, so that nobody makes us
    keep it.
    """

    __slots__ = ("_begun", "_buffer", "_wanted", "error", "frame_max", "max_size")

    def __init__(self, max_size: int) -> None:
        self.max_size = max_size
        self.frame_max = FIRST_FRAME_MAX
        self.error: tuple[int, str] | None = None
        self._begun: dict[int, _Begun] = {}
        self._buffer: bytearray | None = None
        self._wanted = 0

    def receive(self, data: bytes) -> list[Item]:
        """Take what was read; return what is complete now."""
        if self._buffer is not None:
            self._buffer += data
            if len(self._buffer) < self._wanted:
                return []
            data = bytes(self._buffer)
            self._buffer = None
        items: list[Item] = []
        position, end = 0, len(data)
        self._wanted = OVERHEAD
        while end - position >= OVERHEAD:
            kind, channel, size = _FRAME.unpack_from(data, position)
            start = position + OVERHEAD - 1
            stop = start + size
            if size > self.frame_max - OVERHEAD:
                self.error = (FRAME_ERROR, f"a frame of {size} bytes")
            elif stop >= end:
                self._wanted = size + OVERHEAD
                break
            elif data[stop] != END[0]:
                self.error = (FRAME_ERROR, "a frame without an end")
            elif (
                kind == METHOD
                and data.startswith(_DELIVERY, start)
                and (whole := self._whole(data, channel, start, stop))
            ):
                content, position = whole
                items.append((channel, content))
                continue
            else:
                self._frame(items, kind, channel, data[start:stop])
            if self.error is not None:
                return items
            position = stop + 1
        if position < end:
            self._buffer = bytearray(data[position:])
        return items

    def _whole(
        self, data: bytes, channel: int, start: int, stop: int
    ) -> tuple[Content, int] | None:
        """Read a delivery whose three frames have come, as mostly they have, at once.

        Returns the message and where it ends; anything unusual is left to the rest.
        """
        most = self.frame_max - OVERHEAD
        try:
            kind, number, size = _FRAME.unpack_from(data, stop + 1)
            header = stop + OVERHEAD
            header_stop = header + size
            (length,) = _CONTENT.unpack_from(data, header)
            body_kind, body_number, body_size = _FRAME.unpack_from(
                data, header_stop + 1
            )
            body = header_stop + OVERHEAD
            body_stop = body + length
            ends = data[header_stop] == data[body_stop] == END[0]
        except (IndexError, struct.error):
            return None
        if (
            not ends
            or self._begun
            or (kind, body_kind) != (HEADER, BODY)
            or not number == body_number == channel
            or body_size != length
            or length > self.max_size
            or not _NO_PROPERTIES + 2 <= size <= most
            or body_size > most
        ):
            return None
        arguments = data[start + 4 : stop]
        properties = data[header + _NO_PROPERTIES : header_stop]
        text = data[body:body_stop]
        content = Content(channel, DELIVER, arguments, properties, text, length)
        return content, body_stop + 1

    def _frame(self, items: list[Item], kind: int, channel: int, data: bytes) -> None:
        if kind == METHOD:
            self._method(items, channel, data)
        elif kind in _CONTENT_FRAMES:
            begun = self._begun.get(channel)
            if begun is None:
                self.error = (UNEXPECTED_FRAME, "content without a method")
            elif kind == HEADER:
                self._header(items, channel, begun, data)
            else:
                self._body(items, channel, begun, data)
        elif kind != HEARTBEAT:
            self.error = (FRAME_ERROR, f"a frame of the unknown type {kind}")

    def _method(self, items: list[Item], channel: int, data: bytes) -> None:
        if channel in self._begun:
            self.error = (UNEXPECTED_FRAME, "a method in the middle of a message")
            return
        try:
            (index,) = _INDEX.unpack_from(data)
            if index in _WITH_CONTENT:
                self._begun[channel] = _Begun(Content(channel, index, data[4:]))
            elif index in _SETTLES:
                tag, flags = _SETTLED.unpack_from(data, 4)
                items.append((channel, Settled(tag, bool(flags & 1), index == ACK)))
            else:
                items.append((channel, read_method(data)))
        except (ValueError, struct.error) as error:
            self.error = (SYNTAX_ERROR, str(error))

    def _header(
        self, items: list[Item], channel: int, begun: _Begun, data: bytes
    ) -> None:
        if begun.parts is not None or len(data) < _NO_PROPERTIES + 2:
            self.error = (UNEXPECTED_FRAME, "no header where one was due")
            return
        content = begun.content
        (content.size,) = _CONTENT.unpack_from(data)
        content.properties = data[_NO_PROPERTIES:]
        begun.missing = content.size
        begun.parts = []
        if content.size > self.max_size:
            content.body = None
        elif not content.size:
            self._complete(items, channel, content)

    def _body(
        self, items: list[Item], channel: int, begun: _Begun, data: bytes
    ) -> None:
        content, parts = begun.content, begun.parts
        begun.missing -= len(data)
        if parts is None or begun.missing < 0:
            self.error = (UNEXPECTED_FRAME, "a body that is not due")
            return
        if content.body is not None:
            parts.append(data)
        elif len(content.head) < HEAD:
            content.head += data[: HEAD - len(content.head)]
        if not begun.missing:
            if content.body is not None:
                content.body = b"".join(parts)
            self._complete(items, channel, content)

    def _complete(self, items: list[Item], channel: int, content: Content) -> None:
        del self._begun[channel]
        items.append((channel, content))
