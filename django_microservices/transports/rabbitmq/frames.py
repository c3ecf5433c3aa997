"""The frames that we write: the hot ones packed by hand, all others by pamqp.

Source: AMQP 0-9-1, sections 4.2.3 to 4.2.6. A frame is a type, a channel and a size,
the payload, and the byte 206. A message is three kinds of frames: a method, a header
with the size of the body and the properties, and the body in as many parts as needed.
"""

from struct import Struct

from pamqp import base, frame, header

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
END = b"\xce"
BEAT = b"\x08\0\0\0\0\0\0\xce"
PROTOCOL = header.ProtocolHeader().marshal()
OVERHEAD = 8  # bytes of a frame beside its payload
LONGEST = 255  # bytes of a short string: names of queues, routing keys

_BASIC = 60
_PUBLISH, _ACK, _REJECT, _NACK = 40, 80, 90, 120
_FRAME = Struct(">BHI")
_PUBLISHED = Struct(">BHIHHH")
_SETTLED = Struct(">BHIHHQBB")
_CONTENT = Struct(">BHIHHQ")
_NO_PROPERTIES = 12  # bytes of a header's payload before the properties
_MULTIPLE, _REQUEUE, _MANDATORY = 1, 2, 1


def method(channel: int, value: base.Frame) -> bytes:
    """Pack any method; raise ``ValueError`` or ``TypeError`` for what it cannot say."""
    return frame.marshal(value, channel)


def short(text: str | bytes) -> bytes:
    """Pack a short string; raise ``ValueError`` for one of more than 255 bytes."""
    data = text if isinstance(text, bytes) else text.encode()
    if len(data) > LONGEST:
        message = f"{text!r:.64} has more than {LONGEST} bytes."
        raise ValueError(message)
    return b"%c%b" % (len(data), data)


def publish(
    channel: int, exchange: str, routing_key: str | bytes, *, mandatory: bool = False
) -> bytes:
    """Pack ``basic.publish``, in front of the content's own frames."""
    names = short(exchange) + short(routing_key)
    start = _PUBLISHED.pack(METHOD, channel, 7 + len(names), _BASIC, _PUBLISH, 0)
    return b"%b%b%c\xce" % (start, names, _MANDATORY if mandatory else 0)


def room_of(frame_max: int) -> int:
    """Return how many bytes of properties fit into one frame."""
    return frame_max - OVERHEAD - _NO_PROPERTIES


def content(channel: int, properties: bytes, body: bytes, frame_max: int) -> bytes:
    """Pack the header and the body; ``frame_max`` bounds each frame.

    Raises ``ValueError`` for properties that do not fit into one.
    """
    size = len(body)
    if len(properties) > room_of(frame_max):
        message = f"headers: {len(properties)} bytes do not fit into a frame."
        raise ValueError(message)
    start = _CONTENT.pack(
        HEADER, channel, _NO_PROPERTIES + len(properties), _BASIC, 0, size
    )
    if 0 < size <= frame_max - OVERHEAD:
        return b"%b%b\xce%b%b\xce" % (
            start,
            properties,
            _FRAME.pack(BODY, channel, size),
            body,
        )
    parts = [start, properties, END]
    most = frame_max - OVERHEAD
    for position in range(0, size, most):
        part = body[position : position + most]
        parts += (_FRAME.pack(BODY, channel, len(part)), part, END)
    return b"".join(parts)


def ack(channel: int, tag: int, *, multiple: bool = False) -> bytes:
    """Pack ``basic.ack``, of one delivery or of all up to it."""
    flags = _MULTIPLE if multiple else 0
    return _SETTLED.pack(METHOD, channel, 13, _BASIC, _ACK, tag, flags, END[0])


def requeue(channel: int, tag: int) -> bytes:
    """Pack ``basic.nack`` of one delivery, which goes back into its queue."""
    return _SETTLED.pack(METHOD, channel, 13, _BASIC, _NACK, tag, _REQUEUE, END[0])


def reject(channel: int, tag: int) -> bytes:
    """Pack ``basic.reject`` of one delivery: the broker's own dead letter, or gone."""
    return _SETTLED.pack(METHOD, channel, 13, _BASIC, _REJECT, tag, 0, END[0])
