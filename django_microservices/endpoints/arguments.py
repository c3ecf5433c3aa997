"""What a verb takes beside the pattern and the data, checked where it is called."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TypedDict

from ..dispatch.payloads import decoder_for
from ..transports.base import MESSAGE_OPTIONS, Transport
from ..wire.secrets import masked
from ..wire.text import suggestion

Timeout = float | timedelta | None


class _Default:
    """A timeout that was not given."""

    def __repr__(self) -> str:
        return "the client's TIMEOUT"


DEFAULT: Any = _Default()


class Options(TypedDict, total=False):
    """What every verb takes beside the pattern and the data."""

    timeout: Timeout
    headers: Mapping[str, str] | None
    options: Mapping[str, Any] | None


class EmitOptions(Options, total=False):
    """What the verbs for events take."""

    on_commit: bool
    using: str | None


def headers_of(given: Any) -> dict[str, str]:
    """Return ``headers=``; raise ``TypeError`` for what is not texts by name."""
    headers = _mapping_of(given, "headers")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            kind = type(value if isinstance(name, str) else name).__name__
            message = f"headers[{name!r}]: a header is a text, not {kind}."
            raise TypeError(message)
    return headers


def options_of(given: Any, transport: Transport) -> dict[str, Any]:
    """Return ``options=``; raise ``TypeError`` for a name that the wire does not know.

    Names that other wires know may be given on each.
    """
    options = _mapping_of(given, "options")
    known = MESSAGE_OPTIONS | transport.message_options
    for name in options:
        if name not in known:
            message = f"options[{name!r}]: unknown; {suggestion(name, known)}"
            raise TypeError(message)
    return options


def refuse_unreadable(returns: Any) -> None:
    """Raise ``TypeError`` for a type that no answer can be read as.

    Afterwards the other side would have handled the request.
    """
    try:
        decoder_for(returns)
    except TypeError as error:
        message = f"returns: {error}"
        raise TypeError(message) from error


def _mapping_of(given: Any, name: str) -> dict[Any, Any]:
    if not isinstance(given, Mapping):
        message = f"{name}: {masked(given)} is not a mapping."
        raise TypeError(message)
    return dict(given)
