"""Redis' protocol without I/O: commands as bytes, and what comes back in its place.

RESP2, as https://redis.io/docs/latest/develop/reference/protocol-spec/ has it: every
command is answered, in order, and on a connection that has subscribed messages stand
in between.
"""

import re
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

import hiredis

from ...exceptions import InvalidMessage, MessageTooLarge
from ...wire.codecs import is_too_deep
from ...wire.text import shown

ReplyError = hiredis.ReplyError

Answered: TypeAlias = Callable[[Any], None]
"""Called with what answers a command; a refusal is a :class:`ReplyError` as value."""
Received: TypeAlias = Callable[[list[bytes]], None]
"""Called with ``message, channel, body`` or ``pmessage, glob, channel, body``."""

LONGEST_NAME = 4096
"""Bytes of the name of a channel or stream."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_MORE = object()
_MESSAGES = (b"message", b"pmessage")


def command(*words: str | bytes | int) -> bytes:
    """Write a command."""
    return bytes(hiredis.pack_command(words))  # type: ignore[arg-type] # any number


def publish_head(channel: bytes) -> bytes:
    """Write what every PUBLISH to a channel begins with."""
    return b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$" % (len(channel), channel)


def publish(head: bytes, body: bytes) -> bytes:
    """Write a PUBLISH that begins with ``head``."""
    return b"%b%d\r\n%b\r\n" % (head, len(body), body)


def target_of(route: str) -> bytes:
    """Return the channel or stream to which the messages of a pattern are sent.

    Raises :class:`ValueError` for a wildcard, too: it is nowhere to send to, and Redis
    would take it at its word. In the JSON of an object an asterisk is one.
    """
    if "*" in route and not route.startswith("{"):
        message = f"The pattern {shown(route)!r} is a wildcard: nothing is sent there."
        raise ValueError(message)
    return name_of(route)


def name_of(route: str) -> bytes:
    """Return the name of a pattern's channel or stream.

    Raises :class:`ValueError` where Redis would take it, but no pattern is meant.
    """
    if not route:
        reason = "is empty"
    elif _CONTROL.search(route):
        reason = "has control characters"
    elif len(name := route.encode(errors="replace")) > LONGEST_NAME:
        reason = f"is longer than {LONGEST_NAME} bytes"
    elif name.decode() != route:
        reason = "has half a surrogate pair"
    else:
        return name
    message = f"The pattern {shown(route)!r} {reason}: it cannot name a channel."
    raise ValueError(message)


def check(body: bytes, most: int) -> None:
    """Raise :class:`InvalidMessage` or :class:`MessageTooLarge` for what is refused."""
    check_depth(body)
    check_size(len(body), most)


def check_depth(body: bytes) -> None:
    """Raise :class:`InvalidMessage` for what nests too deeply."""
    if is_too_deep(body):
        message = "The message nests too deeply."
        raise InvalidMessage(message)


def check_size(size: int, most: int) -> None:
    """Raise :class:`MessageTooLarge` for more than ``most`` bytes."""
    if size > most:
        message = (
            f"A message of {size} bytes is over max_frame_size ({most}): raise it "
            "on both ends, or send less."
        )
        raise MessageTooLarge(message)


class Conversation:
    """Tells which answer belongs to which command, and which bytes are messages.

    ``received`` is called with each message, ``refused`` with the error that answers a
    command whose answer nobody awaits.
    """

    __slots__ = ("_reader", "_received", "_refused", "awaited")

    def __init__(
        self, received: Received, refused: Callable[[ReplyError], None]
    ) -> None:
        self._reader = hiredis.Reader(notEnoughData=_MORE)
        self._received = received
        self._refused = refused
        self.awaited: deque[Answered | None] = deque()
        """What is called with the answers to come, in order."""

    def receive(self, data: bytes) -> None:
        """Take what was read.

        Raises :class:`InvalidMessage` for what is not Redis' protocol, and for an
        answer to nothing: so Redis says what it has against the connection itself.
        """
        received, awaited = self._received, self.awaited
        self._reader.feed(data)
        gets = self._reader.gets
        try:
            while (value := gets()) is not _MORE:
                if type(value) is list and value and value[0] in _MESSAGES:
                    received(value)
                elif not awaited:
                    raise InvalidMessage(shown(str(value)))
                elif (answered := awaited.popleft()) is not None:
                    answered(value)
                elif type(value) is ReplyError:
                    self._refused(value)
        except hiredis.ProtocolError as error:
            raise InvalidMessage(str(error)) from None
