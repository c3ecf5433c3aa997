"""Many deadlines on few timers."""

import asyncio
import logging

import pytest

from django_microservices.concurrency.timers import Timers

PATIENCE = 10.0


class Item:
    """Notes when its time was up."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.expired: asyncio.Future[float] = loop.create_future()

    def expire(self) -> None:
        """Note it."""
        self.expired.set_result(asyncio.get_running_loop().time())


class Failing(Item):
    """Cannot expire."""

    def expire(self) -> None:
        """Fail."""
        super().expire()
        raise ZeroDivisionError


async def test_expires_in_time() -> None:
    """An item expires after its time, never before, and soon after it."""
    timers = Timers(asyncio.get_running_loop())
    item, begun = Item(), timers.time()
    timers.add(item, 0.03)
    lasted = await asyncio.wait_for(item.expired, PATIENCE) - begun
    assert 0.03 <= lasted < 5.0


async def test_popped_item_does_not_expire() -> None:
    """What was popped from its bucket is left alone; the others expire."""
    timers = Timers(asyncio.get_running_loop())
    gone, other = Item(), Item()
    bucket = timers.add(gone, 0.02)
    bucket.pop(gone)
    timers.add(other, 0.03)
    await asyncio.wait_for(other.expired, PATIENCE)
    assert not gone.expired.done()


async def test_one_timer_for_many() -> None:
    """Items whose times are close share one bucket and one timer of the loop."""
    timers = Timers(asyncio.get_running_loop(), resolution=3600.0)
    buckets = {id(timers.add(Item(), 1.0)) for _ in range(1000)}
    assert len(buckets) == 1


async def test_order_of_time() -> None:
    """What is due earlier expires earlier."""
    timers = Timers(asyncio.get_running_loop())
    late, early = Item(), Item()
    timers.add(late, 0.06)
    timers.add(early, 0.01)
    assert await early.expired < await late.expired


async def test_failing_item(caplog: pytest.LogCaptureFixture) -> None:
    """One that fails to expire is logged, and keeps no other from expiring."""
    timers = Timers(asyncio.get_running_loop(), resolution=0.05)
    items = [Item(), Failing(), Item()]
    with caplog.at_level(logging.ERROR):
        for item in items:
            timers.add(item, 0.01)
        await asyncio.wait_for(asyncio.gather(*(i.expired for i in items)), PATIENCE)
    assert caplog.text.count("could not expire") == 1


async def test_same_moment() -> None:
    """What is added in the same moment for the same time ends together."""
    timers = Timers(asyncio.get_running_loop())
    moment = timers.time()
    timers.time = lambda: moment
    first, second = Item(), Item()
    assert timers.add(first, 0.01) is timers.add(second, 0.01)
    await asyncio.wait_for(asyncio.gather(first.expired, second.expired), PATIENCE)


async def test_many_long_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many times differ and however far off they are, the timers stay few."""
    timers = Timers(asyncio.get_running_loop())
    begun = timers.time()
    moments = iter(begun + number / 100 for number in range(100_000))
    monkeypatch.setattr(timers, "time", lambda: next(moments))
    buckets, item = {}, Item()
    for number in range(100_000):
        bucket = timers.add(item, 3600.0 + number % 7)
        buckets[id(bucket)] = bucket
        del bucket[item]
    assert len(buckets) < 600
