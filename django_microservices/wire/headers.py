"""The headers of our own that travel beside the user's: ours to ours.

Source: ``reference/nest-wire.md`` A.10. They are texts in a request's ``metadata``, or
native headers where the wire has them, and Nest ignores both.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .codecs import encode

if TYPE_CHECKING:
    from .messages import Message

PEER_HEADER = "dm-peer"
TIMEOUT_HEADER = "dm-timeout"
REPLY_HEADER = "dm-reply"
_OWN = frozenset((PEER_HEADER, TIMEOUT_HEADER, REPLY_HEADER))

_MOST_DIGITS = 9
_MOST_KNOWN = 1024
_known: dict[str | None, float] = {}
"""What the few timeouts that recur mean: bounded, since peers write them."""
_metadata: dict[float | None, bytes] = {}
"""What requests say that say the timeout alone."""


def own_headers(timeout: float | None) -> dict[str, str]:
    """Return what we say of a request: that we ask, and the seconds that we wait."""
    if timeout is None:
        return {PEER_HEADER: "1"}
    return {PEER_HEADER: "1", TIMEOUT_HEADER: str(max(1, int(timeout * 1000)))}


def headers_of(message: "Message") -> dict[str, str] | None:
    """Return the headers that travel with a message: ours on requests, the user's.

    A handler may pass on the headers that it got: what stands there of ours was said of
    another message.
    """
    headers = message.headers
    if headers is not None and not _OWN.isdisjoint(headers):
        headers = {name: headers[name] for name in headers if name not in _OWN}
    if message.is_event:
        return headers
    own = own_headers(message.timeout)
    return own if headers is None else headers | own


def metadata_of(message: "Message") -> bytes | None:
    """Return :func:`headers_of` as JSON, where the packet has them as ``metadata``.

    Those of most requests say the timeout alone, and few of these recur.
    """
    timeout = message.timeout
    if message.headers is not None:
        return encode(headers_of(message))
    if message.is_event:
        return None
    try:
        return _metadata[timeout]
    except KeyError:
        if len(_metadata) >= _MOST_KNOWN:
            _metadata.clear()
        text = _metadata[timeout] = encode(own_headers(timeout))
        return text


def remaining(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the caller will still wait, or ``None`` if unsaid."""
    text = headers.get(TIMEOUT_HEADER)
    return _known.get(text) or _seconds(text)


def _seconds(text: str | None) -> float | None:
    """Read a text in milliseconds; what is not one says nothing."""
    if text is None or not text.isdecimal() or len(text) > _MOST_DIGITS:
        return None
    seconds = int(text) / 1000
    if len(_known) < _MOST_KNOWN:
        _known[text] = seconds
    return seconds
