"""Makes what is published of a Message: the body, and in MQTT 5 its properties."""

import math
from collections.abc import Mapping
from typing import Any

from ...wire.headers import headers_of, metadata_of
from ...wire.messages import UNSET, Message
from ...wire.packets import write_message
from ...wire.seconds import seconds_of
from .packets import MQTT_5, RETAIN
from .properties import OF_MESSAGES, check_names, property_bytes

_MOST_KEPT = 1024
_LONGEST_EXPIRY = 0xFFFFFFFF
"""Seconds: all that the property can say."""
_GIVEN = OF_MESSAGES - {"user_properties"}  # an option of its own


class Packer:
    """Packs for one version; ``user_properties`` go with every message of MQTT 5.

    Headers are user properties in MQTT 5, and ``metadata`` of the body in 3.1.1.
    """

    def __init__(self, version: int, user_properties: Mapping[str, str]) -> None:
        self.is_5 = version == MQTT_5
        self._user = tuple(user_properties.items())
        self._of_events = self._written(None, {})
        self._of_requests: dict[float | None, bytes] = {}

    def pack(self, message: Message) -> tuple[bytes, bytes]:
        """Return the properties (in 3.1.1 nothing) and the body.

        The pattern stands there as it was given (``nest-wire.md`` A.2). Raises
        ``ValueError`` for a property that cannot be written.
        """
        data = None if message.data is UNSET else message.data
        pattern, id_ = message.pattern.json, message.id
        if self.is_5:
            return self._properties(message), write_message(pattern, data, id_, None)
        return b"", write_message(pattern, data, id_, metadata_of(message))

    def _properties(self, message: Message) -> bytes:
        """Return the properties: few kinds recur, so they are kept."""
        if message.headers is not None or message.options is not None:
            return self._written(headers_of(message), message.options or {})
        if message.id is UNSET:
            return self._of_events
        try:
            return self._of_requests[message.timeout]
        except KeyError:
            if len(self._of_requests) >= _MOST_KEPT:
                self._of_requests.clear()
            written = self._written(headers_of(message), {})
            self._of_requests[message.timeout] = written
            return written

    def _written(
        self, headers: Mapping[str, str] | None, options: Mapping[str, Any]
    ) -> bytes:
        properties = _properties(options)
        given = _mapping(options, "user_properties")
        user = (*self._user, *given.items(), *(headers or {}).items())
        if user:
            properties["user_properties"] = user
        return property_bytes(properties)


def _properties(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties that one message's ``options=`` ask for."""
    properties = dict(_mapping(options, "properties"))
    check_names(properties, _GIVEN, "options['properties']")
    if options.get("content_type") is not None:
        properties["content_type"] = options["content_type"]
    if options.get("expiration") is not None:
        seconds = seconds_of(options["expiration"], "options['expiration']", zero=True)
        expiry = min(math.ceil(seconds), _LONGEST_EXPIRY)
        properties["message_expiry_interval"] = expiry
    return properties


def _mapping(options: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    given = options.get(name) or {}
    if not isinstance(given, Mapping):
        message = f"options[{name!r}]: {given!r} is not a mapping."
        raise TypeError(message)
    return given


def flags_of(options: Mapping[str, Any], default: int = 0) -> int:
    """Return QoS and RETAIN as they stand in a message's first byte.

    ``default`` has those that ``options`` does not name.
    """
    qos = options.get("qos")
    retain = options.get("retain")
    if qos is None:
        qos = default >> 1
    elif not isinstance(qos, int) or qos not in {0, 1, 2}:
        message = f"options['qos']: {qos!r} is not 0, 1 or 2."
        raise ValueError(message)
    if retain is None:
        retain = default & RETAIN
    return qos << 1 | (RETAIN if retain else 0)
