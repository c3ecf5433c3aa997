"""Checks of the addresses on which servers listen."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from django.core.checks import CheckMessage, Warning  # noqa: A004

from ..transports.sockets import address_text
from . import TAG
from .found import Found

_EVERY = {"0.0.0.0", "::", ""}  # noqa: S104 - it is looked for, not bound
_ANY_PORT = 0


def taken_twice(found: Found) -> Iterator[CheckMessage]:
    """W009; each may be run by a process of its own, on another host."""
    transports: dict[str, Any] = {n: c.transport for n, c in found.servers.items()}
    listening = [(name, one) for name, one in transports.items() if one.listens]
    for (first, one), (second, other) in combinations(listening, 2):
        if _meet(one, other):
            yield Warning(
                f"The servers {first!r} and {second!r} listen on the same address, "
                f"{address_text((one.host, one.port))}.",
                hint="Give each a port of its own, if one process is to run both.",
                id=f"{TAG}.W009",
            )


def _meet(one: Any, other: Any) -> bool:
    port = getattr(one, "port", None)
    if port in {None, _ANY_PORT} or port != getattr(other, "port", None):
        return False
    hosts = {one.host, other.host}
    return len(hosts) == 1 or bool(hosts & _EVERY)


CHECKS = (taken_twice,)
