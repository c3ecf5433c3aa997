"""The properties of what a client sends."""

import struct
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pamqp import commands

from ...wire.headers import headers_of
from ...wire.messages import Message, new_id
from ...wire.seconds import seconds_of
from .frames import LONGEST, short
from .properties import (
    CORRELATION_ID,
    DELIVERY_MODE,
    EXPIRATION,
    HEADERS,
    MESSAGE_ID,
    PERSISTENT,
    REPLY_TO,
    TRANSIENT,
    packed_name,
    write_properties,
    write_texts,
)
from .topology import milliseconds

MESSAGE_OPTIONS = frozenset(
    (
        "app_id",
        "bcc",
        "cc",
        "content_encoding",
        "mandatory",
        "timestamp",
        "type",
        "user_id",
    )
)
"""Options of one message that only this wire knows."""

GRACE = 1.0
"""Seconds for which a request whose caller gave up may still be taken out of its queue,
so that the clock of the broker does not race with ours."""

LONGEST_EXPIRATION = (2**32 - 1) / 1000
"""Seconds, the broker's own bound: beyond it the channel would end."""

_AS_GIVEN = {
    "app_id": "app_id",
    "content_encoding": "content_encoding",
    "content_type": "content_type",
    "message_id": "message_id",
    "priority": "priority",
    "timestamp": "timestamp",
    "type": "message_type",
    "user_id": "user_id",
}
_COPIES = {"cc": "CC", "bcc": "BCC"}
_MOST_KNOWN = 1024


class Outgoing(NamedTuple):
    """Packs properties; the options are the client's.

    ``persistent`` ``None`` has the broker keep events on disk and not requests, whose
    callers are gone when it returns. ``names_events`` gives each event an id by which
    it can be told apart from its copies. ``user`` is who we are at the broker, where
    that is known.
    """

    headers: Mapping[str, str]
    persistent: bool | None
    names_events: bool
    user: str | None
    known: dict[float | None, tuple[bytes, bytes]]

    def of_request(self, message: Message, reply_to: str) -> bytes:
        """Pack a request's properties: whom to answer, and how long that is of use."""
        if message.headers or message.options or self.headers:
            properties = self._properties(message, persistent=self.persistent is True)
            properties.reply_to = reply_to
            properties.correlation_id = str(message.id)
            if properties.expiration is None:
                properties.expiration = _patience(message.timeout)
            return _packed(properties)
        timeout = message.timeout
        before, after = self.known.get(timeout) or self._learn(message, reply_to)
        id_ = message.id.encode()
        return b"%b%c%b%b" % (before, len(id_), id_, after)

    def _learn(self, message: Message, reply_to: str) -> tuple[bytes, bytes]:
        """Pack what requests with the same timeout share, before and after the id."""
        timeout = message.timeout
        flags = HEADERS | DELIVERY_MODE | CORRELATION_ID | REPLY_TO
        mode = PERSISTENT if self.persistent is True else TRANSIENT
        after = short(reply_to)
        expiration = _patience(timeout)
        if expiration is not None:
            flags |= EXPIRATION
            after += short(expiration)
        table = write_texts(headers_of(message) or {})
        parts = b"%b%b%c" % (struct.pack(">H", flags), table, mode), after
        if len(self.known) >= _MOST_KNOWN:
            self.known.clear()
        self.known[timeout] = parts
        return parts

    def of_event(
        self, message: Message, *, mandatory: bool = False
    ) -> tuple[bytes, str | None]:
        """Pack an event's properties; return them and its ``message_id``.

        One that is ``mandatory`` has an id in any case: by it we know what came back.
        """
        persistent = self.persistent is not False
        is_named = self.names_events or mandatory
        if message.headers or message.options or self.headers:
            properties = self._properties(message, persistent=persistent)
            if not properties.message_id and is_named:
                properties.message_id = new_id()
            return _packed(properties), properties.message_id
        mode = PERSISTENT if persistent else TRANSIENT
        if not is_named:
            return b"%b%c" % (_MODE_ONLY, mode), None
        name = new_id()
        return b"%b%c%c%b" % (_MODE_AND_ID, mode, len(name), name.encode()), name

    def _properties(
        self, message: Message, *, persistent: bool
    ) -> commands.Basic.Properties:
        options = message.options or {}
        headers: dict[str, Any] = {**self.headers, **(headers_of(message) or {})}
        check_headers(headers)
        for name, header in _COPIES.items():
            if name in options:
                headers[header] = _routing_keys(name, options[name])
        self._check_user(options.get("user_id"))
        properties = commands.Basic.Properties(headers=headers or None)
        for name, field in _AS_GIVEN.items():
            if name in options:
                setattr(properties, field, options[name])
        if "expiration" in options:
            seconds = seconds_of(
                options["expiration"], "options['expiration']", zero=True
            )
            if seconds > LONGEST_EXPIRATION:
                text = f"options['expiration']: at most {LONGEST_EXPIRATION:.0f} s."
                raise ValueError(text)
            properties.expiration = _expiration(seconds)
        persistent = options.get("persistent", persistent)
        properties.delivery_mode = PERSISTENT if persistent else TRANSIENT
        return properties

    def _check_user(self, user: Any) -> None:
        """Raise ``ValueError`` for somebody else: the broker would end the channel."""
        if user is not None and self.user is not None and user != self.user:
            message = f"options['user_id']: {user!r:.64} is not the user of the URL."
            raise ValueError(message)


def check_headers(headers: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` for names that are too long, or the broker's own."""
    for name in headers:
        packed_name(name)
    for option, header in _COPIES.items():
        if header in headers:
            message = (
                f"headers: {header!r} is the broker's own; use options[{option!r}]."
            )
            raise ValueError(message)


def _routing_keys(option: str, given: Any) -> list[str]:
    is_list = isinstance(given, Iterable) and not isinstance(given, str | bytes)
    keys: list[Any] = list(given) if is_list else [None]
    if not all(isinstance(key, str) and len(key.encode()) <= LONGEST for key in keys):
        message = (
            f"options[{option!r}]: a list of routing keys of at most {LONGEST} bytes, "
            f"not {given!r:.64}."
        )
        raise ValueError(message)
    return keys


_MODE_ONLY = struct.pack(">H", DELIVERY_MODE)
_MODE_AND_ID = struct.pack(">H", DELIVERY_MODE | MESSAGE_ID)


def _patience(timeout: float | None) -> str | None:
    """Return when a request leaves its queue: never, where the broker cannot say it."""
    if timeout is None or timeout + GRACE > LONGEST_EXPIRATION:
        return None
    return _expiration(timeout + GRACE)


def _expiration(seconds: float) -> str:
    return str(max(1, milliseconds(seconds)))


def _packed(properties: commands.Basic.Properties) -> bytes:
    try:
        return write_properties(properties)
    except (TypeError, ValueError, struct.error) as error:
        message = f"options: {error}"
        raise ValueError(message) from error
