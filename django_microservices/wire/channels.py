"""Messages of the wires on which the name of a channel is the pattern.

Redis, NATS and MQTT: the body is Nest's packet, but the channel, subject or topic alone
decides which handler runs (``reference/nest-wire.md`` A.1, A.2).
"""

import msgspec

from ..exceptions import InvalidMessage
from .codecs import encode, is_too_deep
from .headers import remaining
from .messages import UNSET, Message, Reply
from .packets import read_envelope
from .patterns import Pattern
from .text import shown
from .unreadable import unreadable

_REPLY_KEYS = frozenset(("id", "err", "response", "isDisposed", "status"))
_ENDS_REPLY = _REPLY_KEYS - {"id", "status"}
_read_keys = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_channel_message(
    channel: str, body: bytes, *, reply_suffix: str = "", takes_text: bool = False
) -> Message | Reply | None:
    """Return the Message that arrived, the Reply that refuses it, or ``None``.

    A body with neither ``pattern`` nor ``data`` is *external*: an event, and the whole
    of it its data. ``None`` is what must be dropped: what cannot be read nor answered,
    and replies, which a wildcard may bring from the channels that end in
    ``reply_suffix``. ``takes_text`` says that a body which is no JSON is a text, as
    Nest has it on Redis and MQTT.
    """
    try:
        envelope = read_envelope(body)
    except InvalidMessage:
        is_text = takes_text and body and not is_too_deep(body)
        return _text(channel, body) if is_text else None
    if envelope is None or not (envelope.pattern or envelope.data):
        if reply_suffix and channel.endswith(reply_suffix) and is_reply(body):
            return None
        return _external(channel, body)
    if is_too_deep(body):
        reason = f"{shown(channel)} brought what nests too deeply"
        return unreadable(envelope.id, reason)
    headers = envelope.metadata
    return Message(
        Pattern.from_channel(channel),
        envelope.data or UNSET,
        envelope.id,
        headers,
        None if headers is None else remaining(headers),
    )


def _external(channel: str, body: bytes) -> Message | None:
    if is_too_deep(body):
        return None
    return Message(Pattern.from_channel(channel), body)


def _text(channel: str, body: bytes) -> Message:
    return Message(Pattern.from_channel(channel), encode(body.decode(errors="replace")))


def is_reply(body: bytes) -> bool:
    """Whether a body is one of Nest's replies, whose keys are a closed set (A.1)."""
    try:
        keys = _read_keys(body).keys()
    except msgspec.MsgspecError:
        return False
    return keys <= _REPLY_KEYS and not _ENDS_REPLY.isdisjoint(keys)
