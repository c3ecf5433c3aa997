"""Reads what a broker answers: every packet but the messages themselves."""

from collections.abc import Callable

from ...exceptions import InvalidMessage
from .packets import MQTT_5, Ack, Auth, ConnAck, Disconnect, Kind, Packet, PingResp
from .properties import NONE, Properties, read_number, read_properties

_IN_ACK = frozenset(("reason_string", "user_properties"))
_IN_DISCONNECT = _IN_ACK | {"session_expiry_interval", "server_reference"}
_IN_CONNACK = _IN_ACK | {
    "session_expiry_interval",
    "receive_maximum",
    "maximum_qos",
    "retain_available",
    "maximum_packet_size",
    "assigned_client_identifier",
    "topic_alias_maximum",
    "wildcard_subscription_available",
    "subscription_identifier_available",
    "shared_subscription_available",
    "server_keep_alive",
    "response_information",
    "server_reference",
    "authentication_method",
    "authentication_data",
}


def read_answer(first: int, body: bytes, version: int) -> Packet:
    """Read the packet that begins with ``first``; ``body`` follows its length.

    Raises :class:`InvalidMessage` for what a broker may not send.
    """
    kind, flags = first >> 4, first & 0x0F
    read = _READERS.get(kind)
    if read is None or flags != (2 if kind == Kind.PUBREL else 0):
        message = f"a packet that begins with {first:#04x}"
        raise InvalidMessage(message)
    return read(Kind(kind), body, version)


def read_packet_id(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Read a packet identifier, which is never 0; return also where it ends."""
    packet_id, start = read_number(data, start, end, 2)
    if not packet_id:
        message = "a packet identifier of 0"
        raise InvalidMessage(message)
    return packet_id, start


def _conn_ack(_: Kind, body: bytes, version: int) -> ConnAck:
    flags, start = read_number(body, 0, len(body), 1)
    code, start = read_number(body, start, len(body), 1)
    if flags > 1:
        message = f"a CONNACK with the flags {flags:#04x}"
        raise InvalidMessage(message)
    if version == MQTT_5:
        return ConnAck(bool(flags), code, _last(body, start, _IN_CONNACK))
    _end(body, start)
    return ConnAck(bool(flags), code)


def _ack(kind: Kind, body: bytes, version: int) -> Ack:
    packet_id, start = read_packet_id(body, 0, len(body))
    if len(body) == start or version != MQTT_5:  # MQTT 5 may leave out what is usual
        _end(body, start)
        return Ack(kind, packet_id)
    code = body[start : start + 1]
    if len(body) == start + 1:
        return Ack(kind, packet_id, code)
    return Ack(kind, packet_id, code, _last(body, start + 1, _IN_ACK))


def _codes(kind: Kind, body: bytes, version: int) -> Ack:
    packet_id, start = read_packet_id(body, 0, len(body))
    properties = NONE
    if version == MQTT_5:
        properties, start = read_properties(body, start, len(body), _IN_ACK)
    return Ack(kind, packet_id, body[start:], properties)


def _ping_resp(_: Kind, body: bytes, __: int) -> PingResp:
    _end(body, 0)
    return PingResp()


def _disconnect(kind: Kind, body: bytes, version: int) -> Disconnect:
    _only_5(kind, version)
    if len(body) <= 1:
        return Disconnect(body[0] if body else 0)
    return Disconnect(body[0], _last(body, 1, _IN_DISCONNECT))


def _auth(kind: Kind, _: bytes, version: int) -> Auth:
    _only_5(kind, version)
    return Auth()


def _only_5(kind: Kind, version: int) -> None:
    if version != MQTT_5:
        message = f"a packet of MQTT 5: {kind.name}"
        raise InvalidMessage(message)


def _last(body: bytes, start: int, allowed: frozenset[str]) -> Properties:
    """Read the properties with which a packet ends."""
    properties, start = read_properties(body, start, len(body), allowed)
    _end(body, start)
    return properties


def _end(body: bytes, end: int) -> None:
    if len(body) > end:
        message = "a packet that goes on behind its end"
        raise InvalidMessage(message)


_READERS: dict[int, Callable[[Kind, bytes, int], Packet]] = {
    Kind.CONNACK: _conn_ack,
    Kind.PUBACK: _ack,
    Kind.PUBREC: _ack,
    Kind.PUBREL: _ack,
    Kind.PUBCOMP: _ack,
    Kind.SUBACK: _codes,
    Kind.UNSUBACK: _codes,
    Kind.PINGRESP: _ping_resp,
    Kind.DISCONNECT: _disconnect,
    Kind.AUTH: _auth,
}
