"""``assert_emitted``: a test says which event a piece of code emits."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from ..endpoints.calls import Call
from ..endpoints.connection import Connection
from .sent import ANY, Sent, plain_of, route_of, told

_watchers: list[list[Sent]] = []


@contextmanager
def assert_emitted(
    pattern: Any, data: Any = ANY, *, times: int | None = None
) -> Iterator[list[Sent]]:
    """Fail unless a client, whichever, emits this event while the block runs.

    ``times`` is how often (0: not at all); without it once or more. Gives the list of
    all events that were emitted. They go where they always go: one that the wire does
    not take is not emitted, and ``on_commit=True`` emits after the transaction.
    """
    seen: list[Sent] = []
    with _watched(seen):
        yield seen
    route, wanted = route_of(pattern), plain_of(data)
    found = sum(sent.is_like(route, wanted) for sent in seen)
    if found != times and not (found and times is None):
        count = "at all" if times is None else f"{times} time(s), but {found}"
        others = "; ".join(map(str, seen)) or "nothing"
        message = f"{told(pattern, data)} was not emitted {count}. Emitted: {others}."
        raise AssertionError(message)


@contextmanager
def _watched(seen: list[Sent]) -> Iterator[None]:
    _watchers.append(seen)
    if len(_watchers) == 1:
        _patch.start()
    try:
        yield
    finally:
        _watchers[:] = [watcher for watcher in _watchers if watcher is not seen]
        if not _watchers:
            _patch.stop()


_emit = Connection.emit


async def _noted_emit(connection: Connection, call: Call) -> None:
    await _emit(connection, call)
    _note(call)


_patch = patch.object(Connection, "emit", _noted_emit)


def _note(call: Call) -> None:
    sent = Sent.of(call)
    for watcher in tuple(_watchers):
        watcher.append(sent)
