"""Many deadlines on few timers: a call or delivery costs no timer of its own."""

import asyncio
import logging
from typing import Protocol

logger = logging.getLogger(__name__)


class Expiring(Protocol):
    """What can run out of time; hashable by identity."""

    def expire(self) -> None:
        """Its time is up. Called at most once, on the loop."""


Bucket = dict[Expiring, None]


class Timers:
    """Deadlines of one loop, rounded up to ``resolution`` seconds."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, resolution: float = 0.01
    ) -> None:
        self._loop = loop
        self.time = loop.time
        self._rate = 1 / resolution
        self._buckets: dict[int, Bucket] = {}
        self._now = self._seconds = -1.0
        self._bucket: Bucket = {}

    def add(self, item: Expiring, seconds: float) -> Bucket:
        """Expire ``item`` in ``seconds``; pop it from the bucket to cancel."""
        now = self.time()
        if now != self._now or seconds != self._seconds:
            # What one tick adds mostly ends together: the next one need not search.
            self._now, self._seconds = now, seconds
            self._bucket = self._bucket_at(now + seconds)
        bucket = self._bucket
        bucket[item] = None
        return bucket

    def _bucket_at(self, when: float) -> Bucket:
        key = int(when * self._rate) + 1
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = {}
            self._loop.call_at(key / self._rate, self._expire, key)
        return bucket

    def _expire(self, key: int) -> None:
        bucket = self._buckets.pop(key)
        while bucket:
            item, _ = bucket.popitem()
            try:
                item.expire()
            except Exception:  # the others in the bucket must not wait for ever
                logger.exception("A %s could not expire.", type(item).__name__)
