"""TCP, Nest's default wire: its options and its two halves."""

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from ...exceptions import InvalidMessage, NotConnected, TransportRefused
from ...wire.codecs import decode, encode
from ...wire.messages import Reply, Subscription
from ...wire.packets import (
    Envelope,
    envelope_of,
    read_envelope,
    read_reply,
    reply_of_packet,
    write_message,
    write_reply,
)
from ...wire.ranges import Count, CountOrZero, Range, Seconds, SecondsOrZero
from ...wire.secrets import masked
from ..base import Changed, Deliver, Receive, Transport
from ..sockets import connect, unreachable
from ..tls import ClientContext, TLSOptions, save_memory, server_context
from .protocol import JsonSocket

if TYPE_CHECKING:
    from .intake import Intake
    from .link import Link

logger = logging.getLogger(__name__)

_REFUSED = {errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL, errno.EPERM}


class TCPTransport(Transport):
    """Nest's TCP wire (``reference/nest-wire.md`` A.3) and our extension of it.

    Times are in seconds. ``max_frame_size`` is in UTF-16 units, as Nest counts, and
    holds for both directions; ``max_buffer_size``, Nest's name, is what may be received
    where that differs. ``max_send_buffer_size`` is in bytes. ``url``
    (``tcp://host:port``) stands for ``host`` and ``port``.
    """

    server_only = frozenset(
        (
            "retry_attempts",
            "retry_delay",
            "max_connections",
            "max_connections_per_address",
            "backlog",
        )
    )
    client_only = frozenset(("connect_timeout",))
    headers = True
    answers_unknown = True
    stream_links = True
    ends_streams = True
    shares_work = True
    listens = True
    tls_option = "tls_options"

    def __init__(
        self,
        *,
        url: str | None = None,
        host: str = "127.0.0.1",
        port: Annotated[int, Range(0, 65_535)] = 3000,
        retry_attempts: CountOrZero | None = None,
        retry_delay: SecondsOrZero | None = None,
        tls_options: TLSOptions | None = None,
        socket_class: type[JsonSocket] = JsonSocket,
        serializer: Callable[[Any], Any] | None = None,
        deserializer: Callable[[Any], Any] | None = None,
        max_frame_size: Count = 1024 * 1024,
        max_buffer_size: Count | None = None,
        max_send_buffer_size: CountOrZero = 128 * 1024 * 1024,
        incomplete_message_timeout: SecondsOrZero = 10.0,
        unread_timeout: SecondsOrZero = 30.0,
        connect_timeout: Seconds = 5.0,
        max_connections: Count = 10_000,
        max_connections_per_address: Count = 256,
        backlog: Count = 1024,
        no_delay: bool = True,
    ) -> None:
        self.host, self.port = (host, port) if url is None else _split(url)
        self.retry_attempts = retry_attempts
        self.retry_delay = retry_delay
        self.tls_options = tls_options
        self._client_tls = None if tls_options is None else ClientContext(tls_options)
        self.socket_class = socket_class
        self.serializer = _method(serializer, "serialize")
        self.deserializer = _method(deserializer, "deserialize")
        self.max_frame_size = max_frame_size
        self.max_buffer_size = max_buffer_size
        self.max_send_buffer_size = max_send_buffer_size
        self.incomplete_message_timeout = incomplete_message_timeout
        self.unread_timeout = unread_timeout
        self.connect_timeout = connect_timeout
        self.max_connections = max_connections
        self.max_connections_per_address = max_connections_per_address
        self.backlog = backlog
        self.no_delay = no_delay
        self._check_socket_class()
        self._choose_codec()

    def _check_socket_class(self) -> None:
        framing = self.new_socket()
        for name in ("write", "receive", "partial", "error"):
            if not hasattr(framing, name):
                message = f"socket_class: {self.socket_class!r} has no {name!r}."
                raise ImproperlyConfigured(message)

    def _choose_codec(self) -> None:
        """Put ``serializer`` and ``deserializer`` in, Nest's seams, where given."""
        self.read: Callable[[bytes], Envelope | None] = read_envelope
        self.read_reply: Callable[[bytes], Reply | None] = read_reply
        self.write: Callable[[Reply], bytes] = write_reply
        self.write_packet: Callable[..., bytes] = write_message
        if self.deserializer is not None:
            self.read = self._read_with_deserializer
            self.read_reply = self._read_reply_with_deserializer
        if self.serializer is not None:
            self.write = self._write_with_serializer
            self.write_packet = self._write_packet_with_serializer

    def new_socket(self) -> JsonSocket:
        """Make the framing of one connection."""
        limit = self.max_buffer_size
        return self.socket_class(self.max_frame_size if limit is None else limit)

    # --- the two halves ---

    @asynccontextmanager
    async def serve(
        self,
        subscriptions: Sequence[Subscription],  # noqa: ARG002 - TCP brings everything
        deliver: Deliver,
        changed: Changed,  # noqa: ARG002
        *,
        limit: int,
    ) -> "AsyncIterator[Intake]":
        """Listen; raise :class:`TransportRefused` where that can never work."""
        tls = self.tls_options
        context = None if tls is None else server_context(tls)
        if context is not None:
            save_memory()
        from .intake import Intake  # not by who only reads settings, checks for one

        loop = asyncio.get_running_loop()
        intake = Intake(self, deliver, loop, limit, context)
        try:
            await self._listen(intake)
            yield intake
        finally:
            if intake.listener is not None:
                await intake.close()

    async def _listen(self, intake: "Intake") -> None:
        """Bind first: who is cancelled while it begins to serve has what to close."""
        try:
            intake.listener = await intake.loop.create_server(
                intake.accept,
                self.host,
                self.port,
                backlog=self.backlog,
                start_serving=False,
            )
            await intake.listener.start_serving()
        except OSError as error:
            address = f"{self.host}:{self.port}"
            message = f"Cannot listen on {unreachable(address, error)}"
            if error.errno in _REFUSED or isinstance(error, socket.gaierror):
                raise TransportRefused(message) from error
            raise NotConnected(message) from error

    @asynccontextmanager
    async def connect(
        self, receive: Receive, changed: Changed
    ) -> "AsyncIterator[Link]":
        """Connect; raise :class:`NotConnected` with the reason."""
        from .link import Link

        loop = asyncio.get_running_loop()
        link = Link(self, loop, receive, changed)
        tls = self.tls_options or {}
        own = self._client_tls
        context = None if own is None else own.current()
        name = tls.get("server_name") or self.host
        try:
            async with asyncio.timeout(self.connect_timeout):
                await connect(
                    loop,
                    link,
                    self.host,
                    self.port,
                    ssl=context,
                    server_hostname=name if context else None,
                )
        except OSError as error:
            message = unreachable(f"{self.host}:{self.port}", error)
            raise NotConnected(message) from error
        try:
            yield link
        finally:
            await link.close()

    # --- Nest's seams ---

    def _deserialized(self, text: bytes) -> dict[str, Any] | None:
        assert self.deserializer is not None
        value = decode(text)
        try:
            packet = self.deserializer(value)
        except Exception as error:
            message = f"the deserializer failed: {error!r}"
            raise InvalidMessage(message) from error
        return packet if isinstance(packet, dict) else None

    def _read_with_deserializer(self, text: bytes) -> Envelope | None:
        packet = self._deserialized(text)
        return None if packet is None else envelope_of(packet)

    def _read_reply_with_deserializer(self, text: bytes) -> Reply | None:
        packet = self._deserialized(text)
        return None if packet is None else reply_of_packet(packet)

    def _write_with_serializer(self, reply: Reply) -> bytes:
        assert self.serializer is not None
        text = write_reply(reply)
        try:
            return encode(self.serializer(decode(text)))
        except Exception:
            logger.exception("The serializer failed: the caller gets the fixed error.")
            return write_reply(Reply(reply.id, None, _INTERNAL))

    def _write_packet_with_serializer(self, *parts: Any) -> bytes:
        assert self.serializer is not None
        return encode(self.serializer(decode(write_message(*parts))))


_INTERNAL = encode({"status": "error", "message": "Internal server error"})


def _split(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != "tcp" or not parts.hostname or port is None:
        message = f"url: {masked(url)} is not of the form 'tcp://host:port'."
        raise ImproperlyConfigured(message)
    return parts.hostname, port


def _method(part: Any, name: str) -> Callable[[Any], Any] | None:
    """Accept a function, or an object (or class) with Nest's method."""
    if part is None:
        return None
    if isinstance(part, type):
        part = part()
    method = getattr(part, name, part)
    if not callable(method):
        message = f"{part!r} is neither a function nor has it a method {name}()."
        raise ImproperlyConfigured(message)
    if iscoroutinefunction(method) or iscoroutinefunction(type(method).__call__):
        message = f"{part!r}: {name}() must be a plain function, not an async one."
        raise ImproperlyConfigured(message)
    result: Callable[[Any], Any] = method
    return result
