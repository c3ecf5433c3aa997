"""What strangers send to a server at a real RabbitMQ harms nobody else."""

import asyncio
import struct
from typing import Any

import pytest

from django_microservices import event_pattern, message_pattern
from django_microservices.transports.rabbitmq import publishing
from django_microservices.transports.rabbitmq.fields import write_entries
from django_microservices.wire.messages import new_id
from tests.brokers.rabbitmq import RabbitMQ
from tests.endpoints.ends import running, server_of, until

from .rabbitmq_bench import Bench

HUGE = b"d" + struct.pack(">d", 1e300)  # a number that pamqp reads, and cannot write
FORGED = "amq.rabbitmq.reply-to.g1h=.x"


@pytest.fixture
def bench(rabbitmq_server: RabbitMQ) -> Bench:
    """Give a bench."""
    return Bench(rabbitmq_server.url)


async def test_headers_that_few_can_write(bench: Bench) -> None:
    """Messages that cannot be read leave the server, whatever their headers are."""

    @event_pattern(f"{bench.name}.made")
    async def noted(data: int) -> None:
        bench.seen.append(data)

    raw = b"\x20\0" + write_entries({b"huge": HUGE})
    text = b'{"pattern":"%b.made","data":"text"}' % bench.name.encode()
    server = server_of(bench.at(group=bench.name), noted, concurrency=1)
    async with running(server), bench.calling() as client:
        with bench.peer() as peer:
            peer.publish_raw("amq.topic", f"{bench.name}.made", raw, text)
        await client.aemit(f"{bench.name}.made", 1)
        await bench.saw(1)
        letter = await bench.buried(f"{bench.name}.dead")
    headers: Any = letter.properties.headers
    assert headers["huge"] == 1e300


async def test_long_name_of_a_queue(bench: Bench) -> None:
    """What fails there is tried again, and buried, like any other event."""
    name = new_id().ljust(255, "q")
    tries: list[int] = []

    @event_pattern(f"{bench.name}.made")
    async def fails(_: Any) -> None:
        tries.append(1)
        raise RuntimeError

    options: dict[str, Any] = {"max_deliveries": 2, "dead_letter_queue": bench.name}
    server = bench.server(fails, group=name, **options)
    async with running(server), bench.calling() as client:
        await client.aemit(f"{bench.name}.made", 1)
        await bench.buried(bench.name)
    assert len(tries) == 2


@pytest.mark.parametrize("who", ["stranger", "broker"])
async def test_connection_of_answers(
    bench: Bench, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forged address does not end it; whatever does, requests in flight go on."""
    monkeypatch.setattr(publishing, "STEADY", 0)
    go_on = asyncio.Event()
    runs: list[str] = []

    @message_pattern(f"{bench.name}.sum")
    async def slow(data: str) -> str:
        runs.append(data)
        if data == "slow":
            await go_on.wait()
        return data

    server = bench.server(slow)
    async with running(server), bench.calling() as client:
        intake: Any = server._intake
        before = intake.publishing.connection
        waiting = asyncio.ensure_future(client.asend(f"{bench.name}.sum", "slow"))
        await until(lambda: runs)
        if who == "broker":
            before.transport.abort()
            await until(lambda: before.lost)
        with bench.peer() as peer:
            text = b'{"pattern":"%b.sum","data":"x","id":"x"}' % bench.name.encode()
            peer.publish("amq.topic", f"{bench.name}.sum", text, reply_to=FORGED)
        await until(lambda: len(runs) == 2)
        go_on.set()
        assert await waiting == "slow"
        assert await client.asend(f"{bench.name}.sum", "more") == "more"
        assert before.lost == (who == "broker")
        assert server._intake is intake
    assert runs == ["slow", "x", "more"]
