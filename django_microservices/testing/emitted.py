"""``assert_emitted``: a test says which event a piece of code emits."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from ..endpoints.calls import Call
from ..endpoints.client import Client
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
        _patches.start()
    try:
        yield
    finally:
        _watchers[:] = [watcher for watcher in _watchers if watcher is not seen]
        if not _watchers:
            _patches.stop()


_emit, _aemit = Client._emit, Client._aemit  # noqa: SLF001


def _noted_emit(client: Client, call: Call) -> None:
    _emit(client, call)
    _note(call)


async def _noted_aemit(client: Client, call: Call) -> None:
    await _aemit(client, call)
    _note(call)


_patches = patch.multiple(Client, _emit=_noted_emit, _aemit=_noted_aemit)


def _note(call: Call) -> None:
    sent = Sent.of(call)
    for watcher in tuple(_watchers):
        watcher.append(sent)
