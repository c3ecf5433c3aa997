"""Many deadlines on few timers: a call or delivery costs no timer of its own."""

import asyncio
import logging
from math import frexp
from typing import Protocol

logger = logging.getLogger(__name__)


class Expiring(Protocol):
    """What can run out of time; hashable by identity."""

    def expire(self) -> None:
        """Its time is up. Called at most once, on the loop."""


Bucket = dict[Expiring, None]


_PARTS = 256


class Timers:
    """Deadlines of one loop, rounded up.

    To ``resolution`` seconds, or where that is more to a 256th of the time or less: so
    there are a few hundred buckets, however many different times there are, and however
    far off: a bucket stays until its time, though nobody waits in it any more.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, resolution: float = 0.01
    ) -> None:
        self._loop = loop
        self.time = loop.time
        self._resolution = resolution
        self._buckets: dict[float, Bucket] = {}
        self._now = self._seconds = -1.0
        self._bucket: Bucket = {}

    def add(self, item: Expiring, seconds: float) -> Bucket:
        """Expire ``item`` in ``seconds``; pop it from the bucket to cancel."""
        now = self.time()
        if now != self._now or seconds != self._seconds:
            # What one tick adds mostly ends together: the next one need not search.
            self._now, self._seconds = now, seconds
            self._bucket = self._bucket_at(now, seconds)
        bucket = self._bucket
        bucket[item] = None
        return bucket

    def _bucket_at(self, now: float, seconds: float) -> Bucket:
        width = max(self._resolution, 2.0 ** frexp(seconds)[1] / _PARTS / 2)
        due = ((now + seconds) // width + 1) * width
        bucket = self._buckets.get(due)
        if bucket is None:
            bucket = self._buckets[due] = {}
            self._loop.call_at(due, self._expire, due)
        return bucket

    def _expire(self, due: float) -> None:
        bucket = self._buckets.pop(due)
        while bucket:
            item, _ = bucket.popitem()
            try:
                item.expire()
            except Exception:  # the others in the bucket must not wait for ever
                logger.exception("A %s could not expire.", type(item).__name__)
