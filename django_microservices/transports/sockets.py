"""What is asked of, and told to, the sockets themselves."""

import asyncio
import os
import socket
import ssl
import struct
from typing import Any

from .tls import reason_of

UNHEARD = 6000
"""Milliseconds without a sign of life after which a host that owes one has vanished."""

KEEP_ALIVE = 3.0
"""Seconds after which a silent host is asked for a sign of life."""

_ASKED_AGAIN = (("TCP_KEEPINTVL", 3), ("TCP_KEEPCNT", 2))

# Linux's struct tcp_info: tcpi_retransmits, tcpi_unacked, tcpi_last_ack_recv and
# tcpi_bytes_acked.
_TCP_INFO = struct.Struct("@2x B 21x I 28x I 60x Q")


def address_text(name: Any) -> str:
    """Write a socket's address as people do."""
    if isinstance(name, tuple) and len(name) >= 2:  # noqa: PLR2004 - host and port
        host = f"[{name[0]}]" if ":" in str(name[0]) else name[0]
        return f"{host}:{name[1]}"
    return str(name or "?")


def unreachable(address: str, error: OSError) -> str:
    """Say why there is no connection, in the system's words: asyncio has its own."""
    if isinstance(error, TimeoutError):
        return f"{address} did not answer in time"
    if isinstance(error, ssl.SSLError):
        return f"{address} refused by TLS: {reason_of(error)}"
    if error.errno is not None and error.errno > 0:  # a resolver's are negative
        return f"{address}: {os.strerror(error.errno)}"
    reason = error.strerror or str(error) or "the connection ended at once"
    return f"{address}: {reason}"


def is_tcp(sock: Any) -> bool:
    """Whether this is a TCP socket, and not one that a test or a proxy put in."""
    return sock is not None and sock.family in {socket.AF_INET, socket.AF_INET6}


def set_options(sock: Any, *, no_delay: bool, keep_alive: float = KEEP_ALIVE) -> None:
    """No delay, and keep-alive so that a vanished host is seen within ten seconds.

    ``keep_alive`` is in seconds; 0 does without.
    """
    if not is_tcp(sock):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(no_delay))
    if not keep_alive:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", max(1, round(keep_alive))), *_ASKED_AGAIN):
        if hasattr(socket, name):  # not every option exists on every system
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def has_vanished(sock: Any) -> bool:
    """Whether the other host owes acknowledgements, and none comes any more.

    Keep-alive is silent while output is unacknowledged, and TCP_USER_TIMEOUT also ends
    a peer that is alive and only reads slowly (tried), so the kernel is asked itself.
    """
    retransmits, unacked, unheard, _ = _tcp_info(sock)
    return bool(retransmits and unacked and unheard > UNHEARD)


def acknowledged(sock: Any) -> int:
    """Return how many bytes the other host has taken; 0 where nobody can tell."""
    return _tcp_info(sock)[3]


def _tcp_info(sock: Any) -> tuple[int, int, int, int]:
    if not is_tcp(sock) or not hasattr(socket, "TCP_INFO"):
        return 0, 0, 0, 0
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    retransmits, unacked, unheard, taken = _TCP_INFO.unpack(
        info.ljust(_TCP_INFO.size, b"\0")
    )
    return retransmits, unacked, unheard, taken


async def connect(
    loop: asyncio.AbstractEventLoop,
    protocol: asyncio.BaseProtocol,
    host: str,
    port: int,
    **tls: Any,
) -> None:
    """Connect to the first address of a host that takes us; raise :class:`OSError`.

    ``loop.create_connection`` alone would do, but uvloop's leaves an error that nobody
    retrieves when it is cancelled while a name is looked up that does not exist. It
    gets no socket of ours: uvloop lets go only of the class that it found when it was
    imported, and one of another, after a late patch by gevent, is closed twice.
    """
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure: OSError = OSError(f"no address of {host}")
    for family, _, _, _, address in found:
        try:
            await loop.create_connection(
                lambda: protocol, *_numeric(address), family=family, **tls
            )
        except ssl.SSLError:
            raise  # somebody is there
        except OSError as error:
            failure = error
        else:
            return
    raise failure


def _numeric(address: tuple[Any, ...]) -> tuple[str, int]:
    """Return host and port; the host of one link only (IPv6) names the link as well."""
    host, port, *more = address
    return (f"{host}%{more[1]}" if more and more[1] else host), port
