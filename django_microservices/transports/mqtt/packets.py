"""The packets of MQTT 3.1.1 and 5: what a client may get, and what it sends.

Source: the OASIS standards "MQTT Version 3.1.1" and "MQTT Version 5.0", section 3.
"""

from collections.abc import Iterable
from enum import IntEnum
from typing import Any, NamedTuple

import msgspec

from .properties import (
    LARGEST_LENGTH,
    NONE,
    Properties,
    binary_bytes,
    length_bytes,
    property_bytes,
    text_bytes,
)

MQTT_3, MQTT_5 = 4, 5
"""The protocol levels of 3.1.1 and 5."""


class Kind(IntEnum):
    """The types of packets: the upper half of their first byte."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


PINGREQ = bytes((Kind.PINGREQ << 4, 0))
RETAIN, DUP = 0x01, 0x08  # in the first byte of a PUBLISH; its QoS stands between them
AT_LEAST_ONCE = 0x02  # QoS 1


# --- in ----------------------------------------------------------------------------


class Publish(msgspec.Struct, frozen=True, gc=False):
    """A message as it arrived."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0
    properties: Properties = NONE


class Oversized(msgspec.Struct, frozen=True):
    """A message whose payload was too large to be read; ``size`` is in bytes."""

    topic: str
    size: int
    qos: int = 0
    packet_id: int = 0
    dup: bool = False


class ConnAck(msgspec.Struct, frozen=True):
    """The answer to CONNECT; ``code`` 0 is a success."""

    session_present: bool
    code: int
    properties: Properties = NONE


class Ack(msgspec.Struct, frozen=True):
    """A PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK or UNSUBACK.

    ``codes`` has one code for each filter; of the first four exactly one, and an
    UNSUBACK of 3.1.1 has none.
    """

    kind: Kind
    packet_id: int
    codes: bytes = b"\0"
    properties: Properties = NONE


class PingResp(msgspec.Struct, frozen=True):
    """The answer to a PINGREQ."""


class Disconnect(msgspec.Struct, frozen=True):
    """The broker of MQTT 5 ends the connection, and says why."""

    code: int = 0
    properties: Properties = NONE


class Auth(msgspec.Struct, frozen=True):
    """The broker of MQTT 5 wants an exchange of credentials that we do not have."""


Packet = Publish | Oversized | ConnAck | Ack | PingResp | Disconnect | Auth


# --- out ---------------------------------------------------------------------------


class Will(NamedTuple):
    """What the broker publishes when the connection ends without a DISCONNECT."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties = NONE


class Connect(NamedTuple):
    """The first packet; ``keepalive`` in seconds."""

    version: int
    client_id: str
    clean: bool
    keepalive: int
    username: str | None = None
    password: str | None = None
    will: Will | None = None
    properties: Properties = NONE


def connect_packet(connect: Connect) -> bytes:
    """Write a CONNECT."""
    username, password, will = connect.username, connect.password, connect.will
    flags = (
        connect.clean << 1 | (username is not None) << 7 | (password is not None) << 6
    )
    is_5 = connect.version == MQTT_5
    payload = [text_bytes(connect.client_id)]
    if will is not None:
        flags |= 0x04 | will.qos << 3 | will.retain << 5
        if is_5:
            payload.append(property_bytes(will.properties))
        payload += text_bytes(will.topic), binary_bytes(will.payload)
    payload += (text_bytes(text) for text in (username, password) if text is not None)
    header = b"\0\4MQTT%c%c%b" % (
        connect.version,
        flags,
        connect.keepalive.to_bytes(2),
    )
    properties = property_bytes(connect.properties) if is_5 else b""
    return packet(Kind.CONNECT << 4, header, properties, *payload)


def packet(first: int, *parts: bytes) -> bytes:
    """Put the fixed header in front of a packet's parts."""
    size = sum(map(len, parts))
    if size > LARGEST_LENGTH:
        message = f"A packet of {size} bytes is more than MQTT takes."
        raise ValueError(message)
    return b"".join((bytes((first,)), length_bytes(size), *parts))


_LENGTHS = [length_bytes(size) for size in range(4096)]
_AT_MOST_ONCE = [b"\x30" + length for length in _LENGTHS]


def publish_packet(head: bytes, payload: bytes, retain: int = 0) -> bytes:
    """Write a PUBLISH of QoS 0; ``head`` is the topic, in MQTT 5 with properties."""
    size = len(head) + len(payload)
    if size < len(_AT_MOST_ONCE) and not retain:
        return _AT_MOST_ONCE[size] + head + payload
    return packet(Kind.PUBLISH << 4 | retain, head, payload)


def acknowledged_publish(
    flags: int, topic: bytes, packet_id: int, properties: bytes, payload: bytes
) -> bytes:
    """Write a PUBLISH of QoS 1 or 2; ``flags`` has the QoS, RETAIN and DUP."""
    first = Kind.PUBLISH << 4 | flags
    return packet(first, topic, packet_id.to_bytes(2), properties, payload)


def ack_packet(kind: Kind, packet_id: int) -> bytes:
    """Write a PUBACK, PUBREC, PUBREL or PUBCOMP that tells of a success."""
    flags = 2 if kind is Kind.PUBREL else 0
    return bytes((kind << 4 | flags, 2)) + packet_id.to_bytes(2)


class Subscribe(NamedTuple):
    """One topic filter, and how: ``options`` is its QoS, in MQTT 5 with more bits.

    ``identifier`` comes back with each message that it brings (MQTT 5; 0 for none).
    """

    topic_filter: str
    options: int = 0
    identifier: int = 0


def subscribe_packet(version: int, subscribe: Subscribe, packet_id: int) -> bytes:
    """Write a SUBSCRIBE for one filter."""
    named = {"subscription_identifier": (subscribe.identifier,)}
    return packet(
        Kind.SUBSCRIBE << 4 | 2,
        packet_id.to_bytes(2),
        _properties(version, named if subscribe.identifier else NONE),
        text_bytes(subscribe.topic_filter),
        bytes((subscribe.options,)),
    )


def unsubscribe_packet(version: int, filters: Iterable[str], packet_id: int) -> bytes:
    """Write an UNSUBSCRIBE."""
    return packet(
        Kind.UNSUBSCRIBE << 4 | 2,
        packet_id.to_bytes(2),
        _properties(version, NONE),
        *map(text_bytes, filters),
    )


def disconnect_packet(version: int, code: int = 0) -> bytes:
    """Write a DISCONNECT; only MQTT 5 says why."""
    says_why = code and version == MQTT_5
    return packet(Kind.DISCONNECT << 4, bytes((code,)) if says_why else b"")


def _properties(version: int, properties: dict[str, Any] | Properties) -> bytes:
    return property_bytes(properties) if version == MQTT_5 else b""
