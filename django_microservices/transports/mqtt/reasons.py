"""What a broker's codes mean: the return codes of 3.1.1 and the reason codes of 5.

Sources: MQTT 3.1.1, table 3.1; MQTT 5, table 2-6.
"""

from collections.abc import Mapping
from typing import Any

REFUSED = 0x80
"""The first of the codes that are refusals; in a SUBACK of 3.1.1 the only one."""
NO_SUBSCRIBERS = 0x10
MALFORMED = 0x81
BAD_AUTHENTICATION_METHOD = 0x8C
RETAIN_NOT_SUPPORTED = 0x9A
QOS_NOT_SUPPORTED = 0x9B
SHARED_NOT_SUPPORTED = 0x9E
WILDCARDS_NOT_SUPPORTED = 0xA2

RETURN_CODES = {
    1: 0x84,
    2: 0x85,
    3: 0x88,
    4: 0x86,
    5: 0x87,
}
"""The codes of a CONNACK of 3.1.1, as MQTT 5 has them."""

_TEXTS = {
    0x80: "unspecified error",
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "implementation specific error",
    0x84: "the broker does not speak this protocol_version",
    0x85: "the client id is not valid",
    0x86: "bad username or password",
    0x87: "not authorized",
    0x88: "the broker is unavailable",
    0x89: "the broker is busy",
    0x8A: "banned",
    0x8B: "the broker is shutting down",
    0x8C: "bad authentication method",
    0x8D: "keep alive timeout",
    0x8E: "session taken over: another client has the same client_id",
    0x8F: "the topic filter is not valid",
    0x90: "the topic name is not valid",
    0x91: "packet identifier in use",
    0x92: "packet identifier not found",
    0x93: "receive maximum exceeded",
    0x94: "the topic alias is not valid",
    0x95: "packet too large",
    0x96: "message rate too high",
    0x97: "quota exceeded",
    0x98: "administrative action",
    0x99: "the payload format is not valid",
    0x9A: "retain is not supported",
    0x9B: "the QoS is not supported",
    0x9C: "use another server",
    0x9D: "the server has moved",
    0x9E: "shared subscriptions are not supported",
    0x9F: "connection rate exceeded",
    0xA0: "maximum connect time",
    0xA1: "subscription identifiers are not supported",
    0xA2: "wildcard subscriptions are not supported",
}

_MAY_PASS = frozenset((0x83, 0x88, 0x89, 0x8B, 0x8E, 0x93, 0x96, 0x97, 0x98, 0x9F))


def is_permanent(code: int) -> bool:
    """Whether trying again would bring the same refusal."""
    return code not in _MAY_PASS


def text_of(code: int, properties: Mapping[str, Any]) -> str:
    """Say it in words, with what the broker itself says of it."""
    text = _TEXTS.get(code, f"code {code:#04x}")
    said = properties.get("reason_string")
    return f"{text} ({said})" if said else text
