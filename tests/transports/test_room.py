"""The bound on what is in flight, in order and without losing anything."""

import asyncio
from time import monotonic
from typing import Any

from django_microservices.transports.room import Room
from django_microservices.wire.messages import UNSET, Message, Reply
from django_microservices.wire.patterns import Pattern

from .peers import Delivery, Service, eventually

PATIENCE = 10.0


def message(number: int) -> Message:
    """Make an event that can be told from others."""
    return Message(Pattern.of("noted"), b"%d" % number)


def respond(reply: Reply) -> None:
    """Answer nobody."""


class Broker:
    """Notes when it may push."""

    def __init__(self, limit: int, service: Service) -> None:
        self.told: list[str] = []
        self.room = Room(
            limit,
            service,
            lambda: self.told.append("pause"),
            lambda: self.told.append("resume"),
        )

    def push(self, numbers: range) -> None:
        """Push so many messages."""
        for number in numbers:
            self.room.take(message(number), respond)


def numbers(deliveries: list[Delivery]) -> list[int]:
    """Tell messages apart."""
    return [delivery.data for delivery in deliveries]


async def test_few_are_delivered_at_once() -> None:
    """As long as there is room nothing waits."""
    service = Service(None)
    broker = Broker(3, service)
    broker.push(range(3))
    assert numbers(service.deliveries) == [0, 1, 2]
    assert broker.told == []


async def test_more_wait_in_order() -> None:
    """Each that ends gives its place to the one that waited longest."""
    service = Service(None)
    broker = Broker(2, service)
    broker.push(range(4))
    assert numbers(service.deliveries) == [0, 1]
    service.deliveries[1].end()
    service.deliveries[0].end()
    assert numbers(service.deliveries) == [0, 1, 2, 3]


async def test_newcomer_does_not_overtake() -> None:
    """What arrives while others wait goes behind them."""
    service = Service(lambda delivery: delivery.end(), at_once=True)
    broker = Broker(1, service)
    service.answer = None
    broker.push(range(2))
    service.answer = lambda delivery: delivery.end()
    broker.push(range(2, 3))
    service.deliveries[0].end()
    assert numbers(service.deliveries) == [0, 1, 2]


async def test_broker_is_held_back() -> None:
    """When as many wait as may be in flight no more is read, until half are gone."""
    service = Service(None)
    broker = Broker(4, service)
    broker.push(range(7))
    assert broker.told == []
    broker.push(range(7, 8))
    assert broker.told == ["pause"]
    for delivery in service.deliveries[:2]:
        delivery.end()
    assert broker.told == ["pause", "resume"]


async def test_weight_counts_where_it_is_said() -> None:
    """What waits may weigh so much, however many that are."""
    service = Service(None)
    told: list[str] = []
    room = Room(
        1,
        service,
        lambda: told.append("pause"),
        lambda: told.append("resume"),
        high_water=100,
    )
    for number in range(3):
        room.take(message(number), respond, None, 49)
    assert (room.weight, told) == (98, [])
    room.take(message(3), respond, None, 2)
    assert (room.weight, told) == (100, ["pause"])
    service.deliveries[0].end()
    assert (room.weight, told) == (51, ["pause"])
    service.deliveries[1].end()
    assert (room.weight, told) == (2, ["pause", "resume"])
    room.drop()
    assert room.weight == 0


async def test_patience_goes_by_while_waiting() -> None:
    """What a request waited for room is gone from its caller's patience."""
    service = Service(None)
    room = Broker(1, service).room
    patient = [60.0, 60.0, None]
    for timeout in patient:
        room.take(Message(Pattern.of("sum"), b"1", "7", timeout=timeout), respond)
    took = monotonic()
    await eventually(lambda: monotonic() > took + 0.01)
    waited = monotonic() - took
    service.deliveries[0].end()
    service.deliveries[1].end()
    first, second, third = (one.message.timeout for one in service.deliveries)
    assert first == 60.0
    assert second is not None
    assert 0 < second <= 60.0 - waited
    assert third is None


async def test_many_that_end_at_once() -> None:
    """A queue of messages that end within their delivery does not recurse."""
    service = Service(None)
    broker = Broker(1, service)
    broker.push(range(5_000))
    service.answer, service.at_once = (lambda delivery: delivery.end()), True
    service.deliveries[0].end()
    assert len(service.deliveries) == 5_000
    assert broker.room.in_flight == 0


async def test_who_took_it_is_told_first() -> None:
    """The end of a delivery is told to who took it, and then frees the place."""
    service = Service(None)
    broker = Broker(1, service)
    seen: list[Any] = []
    broker.room.take(
        message(0), respond, lambda done: seen.append((done, broker.room.in_flight))
    )
    service.deliveries[0].end()
    assert seen == [(service.deliveries[0], 1)]
    assert broker.room.in_flight == 0


async def test_empty_waits_for_all() -> None:
    """Draining ends when what was accepted has ended, also what still waited."""
    service = Service(None)
    broker = Broker(1, service)
    broker.push(range(2))
    waiting = asyncio.ensure_future(broker.room.empty())
    for number in range(2):
        assert not waiting.done()
        service.deliveries[number].end()
    async with asyncio.timeout(PATIENCE):
        await waiting


async def test_what_has_not_begun_can_be_dropped() -> None:
    """What still waits is given back."""
    service = Service(None)
    broker = Broker(1, service)
    broker.push(range(3))
    assert [one.data for one in broker.room.drop()] == [b"1", b"2"]
    service.deliveries[0].end()
    assert len(service.deliveries) == 1
    await broker.room.empty()


async def test_requests_that_nobody_awaits_can_be_dropped() -> None:
    """Events that wait are still handled."""
    service = Service(None)
    room = Broker(1, service).room
    for number, id_ in enumerate((UNSET, "7", UNSET)):
        room.take(Message(Pattern.of("noted"), b"%d" % number, id_), respond)
    room.drop_requests()
    assert room.weight == 1
    service.deliveries[0].end()
    assert numbers(service.deliveries) == [0, 2]
