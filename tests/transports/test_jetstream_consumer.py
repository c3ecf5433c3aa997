"""A durable consumer, and what JetStream may say to it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from django_microservices.transports.jetstream import consumer as consumer_module
from django_microservices.transports.jetstream.api import API
from django_microservices.transports.jetstream.consumer import SILENCE, Consumer
from django_microservices.transports.jetstream.names import Delivered
from django_microservices.transports.nats import NATSTransport
from django_microservices.transports.nats.inbox import Inbox
from django_microservices.transports.nats.protocol import Packet

from .nats_scripts import FakeServer
from .peers import eventually

Ports = Callable[[], int]


class Bench:
    """A consumer of a server that says what the test wants."""

    consumer: Consumer

    def __init__(self, fake: FakeServer) -> None:
        self.fake = fake
        self.received: list[Delivered] = []
        self.lost: list[str] = []

    def take(self, _: Consumer, __: Packet, told: Delivered) -> None:
        """Note a message."""
        self.received.append(told)

    @property
    def asked(self) -> list[int]:
        """For how many messages it asked, each time."""
        lines = self.fake.heard.split(b"\r\n")
        return [json.loads(line)["batch"] for line in lines if line[:8] == b'{"batch"']

    @property
    def asked_in(self) -> list[str]:
        """Where the answers are to come."""
        lines = self.fake.heard.split(b"\r\n")
        return [line.split()[2].decode() for line in lines if b".MSG.NEXT." in line]

    async def said(
        self, *statuses: str, headers: str = "", inbox: str = "_INBOX.x"
    ) -> None:
        """Have JetStream say something in place of a message."""
        sid = self.consumer._sid.decode()
        for status in statuses:
            block = f"NATS/1.0 {status}\r\n{headers}\r\n"
            self.fake.say(
                f"HMSG {inbox} {sid} {len(block)} {len(block)}\r\n{block}\r\n".encode()
            )
        await self.settled()

    async def deliver(self, count: int) -> None:
        """Have messages come."""
        sid = self.consumer._sid.decode()
        for number in range(count):
            reply = f"$JS.ACK.events.orders.1.{number}.{number}.1700000000000000000.0"
            self.fake.say(f"MSG events.noted {sid} {reply} 1\r\n1\r\n".encode())
        await self.settled()

    async def settled(self) -> None:
        """Return when all was read, and all was heard."""
        assert await self.consumer.connection.ping()
        assert await self.consumer.connection.ping()


@asynccontextmanager
async def consuming(free_port: Ports, batch: int = 10) -> AsyncIterator[Bench]:
    """Begin to consume."""
    async with FakeServer(free_port()) as fake:
        wire = NATSTransport(url=fake.url)
        bench = Bench(fake)
        async with wire.servers.connected() as connection:
            bench.consumer = Consumer(
                connection,
                API(Inbox(connection, "_INBOX"), None),
                None,
                stream="events",
                name="orders",
                batch=batch,
                received=bench.take,
                lost=bench.lost.append,
            )
            bench.consumer.start()
            await bench.settled()
            yield bench


async def test_it_asks_for_a_batch(free_port: Ports) -> None:
    """At first for all that there is room for."""
    async with consuming(free_port) as bench:
        assert bench.asked == [10]
        assert b"PUB $JS.API.CONSUMER.MSG.NEXT.events.orders _INBOX" in bench.fake.heard


async def test_it_asks_again_when_half_is_done(free_port: Ports) -> None:
    """Not for every message, where handlers are fast."""
    async with consuming(free_port) as bench:
        for number in range(1, 6):
            await bench.deliver(1)
            assert bench.asked == [10]
            bench.consumer.done()
            await bench.settled()
            assert len(bench.received) == number
        assert bench.asked == [10, 5]


async def test_slow_handlers_leave_no_place_idle(free_port: Ports) -> None:
    """What is free is asked for, though most is in hand; never more than that."""
    async with consuming(free_port) as bench:
        await bench.deliver(10)
        assert [told.sequence for told in bench.received] == list(range(10))
        for _ in range(4):
            bench.consumer.done()
        await bench.settled()
        assert bench.asked == [10, 1, 1, 2]


async def test_one_at_a_time(free_port: Ports) -> None:
    """A batch of one is asked for anew after each message."""
    async with consuming(free_port, batch=1) as bench:
        for _ in range(3):
            await bench.deliver(1)
            bench.consumer.done()
            await bench.settled()
        assert bench.asked == [1, 1, 1, 1]


async def test_question_that_is_over(free_port: Ports) -> None:
    """What was not delivered in time is asked for again."""
    async with consuming(free_port) as bench:
        await bench.deliver(3)
        await bench.said("408 Request Timeout", headers="Nats-Pending-Messages: 7\r\n")
        await bench.settled()
        assert bench.asked == [10, 7]
        await bench.said("404 No Messages", headers="Nats-Pending-Messages: x\r\n")
        await bench.said("409 Message Size Exceeds MaxBytes")
        await bench.said("409 Batch Completed", headers="Nats-Pending-Messages: 99\r\n")
        await bench.settled()
        assert bench.asked == [10, 7, 7]
        assert bench.lost == []


async def test_question_that_is_not_taken(
    free_port: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where too many ask it is asked again a little later, and again."""
    monkeypatch.setattr(consumer_module, "HEARTBEAT", 0.01)
    async with consuming(free_port) as bench:
        inbox = bench.asked_in[0]
        for times in (2, 3):
            await bench.said("409 Exceeded MaxWaiting", inbox=inbox)
            await eventually(lambda: len(bench.asked) == times)  # noqa: B023
        assert bench.asked == [10, 10, 10]
        await bench.said("409 Exceeded MaxWaiting", inbox="_INBOX.other")
        assert bench.consumer.expected == 10
        assert bench.lost == []


async def test_sign_of_life(free_port: Ports) -> None:
    """A heartbeat, or a packet without meaning, changes nothing."""
    async with consuming(free_port) as bench:
        await bench.said("100 Idle Heartbeat")
        bench.fake.say(b"MSG x %b 0\r\n\r\n" % bench.consumer._sid)
        await bench.settled()
        assert bench.asked == [10]
        assert bench.lost == []


async def test_consumer_that_is_gone(free_port: Ports) -> None:
    """Any other status ends it, with JetStream's own words."""
    async with consuming(free_port) as bench:
        await bench.said("409 Consumer Deleted", "503")
    assert bench.lost == [
        "the consumer 'orders': Consumer Deleted",
        "the consumer 'orders': 503",
    ]


async def test_silent_consumer(free_port: Ports) -> None:
    """One that was asked and says nothing is given up; while we are deaf it is not."""
    async with consuming(free_port) as bench:
        consumer = bench.consumer
        now = asyncio.get_running_loop().time()
        consumer.check(now + SILENCE - 1)
        consumer.connection.deaf = True
        consumer.check(now + SILENCE + 1)
        consumer.connection.deaf = False
        consumer.check(now + 2 * SILENCE)
        assert bench.lost == []
        consumer.check(now + 2 * SILENCE + 2)
        assert bench.lost == ["the consumer 'orders' is silent"]


async def test_consumer_that_was_stopped(free_port: Ports) -> None:
    """It asks no more, and what is on its way still comes."""
    async with consuming(free_port) as bench:
        bench.consumer.stop()
        await bench.deliver(1)
        bench.consumer.done()
        await bench.said("408 Request Timeout")
        assert len(bench.received) == 1
        assert bench.asked == [10]
