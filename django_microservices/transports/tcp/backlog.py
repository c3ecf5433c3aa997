"""What a server read and has no room for yet, without I/O."""

from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

MOST = 128 * 1024
"""Bytes of one peer that are kept before nothing more is read from it."""

UNWANTED = -1.0
"""In the place of the seconds that a caller still waits: it waits no more."""

_FEW = 128
_PART = 512
_READ, _TEXT = 1024, 64
"""What a read and a text cost beside their bytes, about."""


class Backlog:
    """The texts of one peer that wait, the oldest first.

    ``count`` is how many they are, ``size`` about what they take of memory.
    """

    __slots__ = ("_came", "_kept", "_next", "_reads", "_unwanted", "count", "size")

    def __init__(self) -> None:
        self.count = 0
        self.size = 0
        self._kept = 0
        self._reads: deque[tuple[float, int, Iterator[bytes]]] = deque()
        self._came = 0.0
        self._next: list[bytes] = []
        self._unwanted: dict[Any, int] = {}

    def keep(self, texts: Sequence[bytes], now: float) -> None:
        """Add what one read brought."""
        size, parts = _READ + sum(map(len, texts)), iter(texts)
        if len(texts) > _FEW:
            parts = _joined(texts)
        else:
            size += _TEXT * len(texts)
        self._reads.append((now, size, parts))
        self._kept += len(texts)
        self.count += len(texts)
        self.size += size

    def take(self) -> bytes:
        """Remove the oldest text; there is one."""
        if not self._next:
            self._unpack()
        self.count -= 1
        return self._next.pop()

    def _unpack(self) -> None:
        self._came, size, parts = self._reads[0]
        while not (texts := [*islice(parts, _PART)]):
            self._reads.popleft()
            self.size -= size
            self._came, size, parts = self._reads[0]
        texts.reverse()
        self._next = texts

    # --- what nobody wants any more ---

    def cancel(self, id_: str | int) -> None:
        """Forget the request ``id_`` if it is among those that wait now."""
        if len(self._unwanted) < self.count:
            self._unwanted[id_] = self._kept

    def left(self, id_: Any, timeout: float | None, now: float) -> float | None:
        """Return what waiting left of the patience of who sent the text taken last."""
        if self._unwanted and self._was_cancelled(id_):
            return UNWANTED
        if timeout is not None:
            timeout -= now - self._came
            return timeout if timeout > 0 else 0.0
        return None

    def _was_cancelled(self, id_: Any) -> bool:
        key = id_ if isinstance(id_, str | int) else None
        return self._unwanted.pop(key, 0) >= self._kept - self.count


def _joined(texts: Sequence[bytes]) -> Iterator[bytes]:
    """Keep texts as one: thousands of tiny ones weigh far more apart."""
    return _cut(b"".join(texts), array("I", map(len, texts)))


def _cut(whole: bytes, lengths: Sequence[int]) -> Iterator[bytes]:
    start = 0
    for length in lengths:
        yield whole[start : start + length]
        start += length
