"""RabbitMQ, with a real broker: what it makes of what we declare and publish."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest
from pamqp import commands

from django_microservices import event_pattern, message_pattern
from django_microservices.exceptions import (
    MessageTimeout,
    NoHandler,
    NotConnected,
    TransportRefused,
)
from django_microservices.transports.rabbitmq import (
    RabbitMQContext,
    callers,
)
from tests.brokers.rabbitmq import RabbitMQ
from tests.endpoints.ends import running, server_of, until

from .rabbitmq_bench import Bench


@pytest.fixture
def bench(rabbitmq_server: RabbitMQ) -> Bench:
    """Give a bench."""
    return Bench(rabbitmq_server.url)


# --- who gets what ---


async def test_services_and_their_replicas(bench: Bench) -> None:
    """Of an event each of three services gets one copy, shared by its replicas."""
    services = [f"{bench.name}-{n}" for n in range(3)]
    servers = [
        server_of(bench.at(group=group), bench.noting("made", who=f"{group}/{replica}"))
        for group in services
        for replica in range(2)
    ]
    async with running(*servers), bench.calling() as client:
        for number in range(40):
            await client.aemit(f"{bench.name}.made", number)
        await bench.saw(120)
    counts = Counter((who.partition("/")[0], data) for who, data, _ in bench.seen)
    assert counts == {(group, n): 1 for group in services for n in range(40)}
    assert len({who for who, _, _ in bench.seen}) == 6


async def test_private_queues(bench: Bench) -> None:
    """With a queue of its own each replica gets every event."""
    servers = [bench.server(bench.noting("made"), queue="") for _ in range(2)]
    async with running(*servers), bench.calling() as client:
        await client.aemit(f"{bench.name}.made", 1)
        await bench.saw(2)


async def test_retry_in_a_private_queue(bench: Bench) -> None:
    """What fails there is tried again there."""
    tries: list[int] = []

    @event_pattern(f"{bench.name}.made")
    async def fails(_: Any) -> None:
        tries.append(1)
        if len(tries) < 3:
            message = "not yet"
            raise RuntimeError(message)

    async with running(bench.server(fails, queue="")), bench.calling() as client:
        await client.aemit(f"{bench.name}.made")
        await until(lambda: len(tries) == 3)


@pytest.mark.parametrize(
    ("pattern", "name", "arrives"),
    [
        ("a.#.b", "a.b", True),
        ("a.#.b", "a.x.y.b", True),
        ("*.b", "a.b", True),
        ("*.b", "b", False),
        ("#", "anything.at.all", True),
    ],
)
async def test_wildcards(
    bench: Bench,
    pattern: str,
    name: str,
    arrives: bool,  # noqa: FBT001
) -> None:
    """The broker's wildcards and ours are the same, also in the middle."""
    handlers = bench.noting(pattern), bench.noting("end")
    async with running(bench.server(*handlers)), bench.calling() as client:
        await client.aemit(f"{bench.name}.{name}", "it")
        await client.aemit(f"{bench.name}.end", "end")
        await until(lambda: any(data == "end" for _, data, _ in bench.seen))
    assert any(data == "it" for _, data, _ in bench.seen) == arrives


async def test_fanout(bench: Bench) -> None:
    """A fanout exchange brings a copy to every queue, whatever the pattern."""
    options: Any = {"exchange": bench.name, "exchange_type": "fanout"}
    groups = [f"{bench.name}-{n}" for n in range(2)]
    servers = [
        server_of(bench.at(group=group, **options), bench.noting("made"))
        for group in groups
    ]
    async with running(*servers), bench.calling(**options) as client:
        await client.aemit(f"{bench.name}.made", 1)
        await bench.saw(2)


async def test_wildcards_option(bench: Bench) -> None:
    """Nest's own ``wildcards``: an exchange with the queue's name."""
    options: Any = {"queue": bench.name, "wildcards": True}
    server = server_of(bench.at(**options), bench.noting("*.made"))
    async with running(server), bench.calling(**options) as client:
        await client.aemit(f"{bench.name}.x.made", 1)
        await bench.saw(1)
    assert bench.seen[0][2].wire.exchange == bench.name


async def test_object_pattern(bench: Bench) -> None:
    """An object is bound and addressed by its canonical text."""

    @message_pattern({"b": bench.name, "a": 1})
    async def answer(data: int) -> int:
        return data + 1

    async with running(bench.server(answer)), bench.calling() as client:
        assert await client.asend({"a": 1, "b": bench.name}, 1) == 2


async def test_nobody_listens(bench: Bench) -> None:
    """A request that no queue takes fails at once; so does an event to a queue."""
    async with (
        bench.calling() as client,
        bench.calling(queue=bench.name, no_assert=True) as direct,
        bench.calling(mandatory=True) as strict,
    ):
        for one in (client, direct, strict):
            with pytest.raises(NoHandler):
                await one.asend(bench.name, timeout=30)
        for one in (direct, strict):
            with pytest.raises(NoHandler, match="NO_ROUTE"):
                await one.aemit(bench.name, timeout=30)
        await client.aemit(bench.name)


# --- what is declared ---


async def test_queue_is_declared_as_nest_does(bench: Bench) -> None:
    """Who declares it with Nest's arguments is not refused, and who does not is."""
    async with running(bench.server(bench.noting("made"))):
        assert bench.refusal_of(bench.name, durable=True) == ""
        assert "inequivalent arg" in bench.refusal_of(bench.name, durable=False)


async def test_unequal_arguments_are_refused(bench: Bench) -> None:
    """A queue that exists otherwise ends start-up, with the broker's words."""
    options: Any = {"queue": bench.name, "queue_options": {"max_length": 5}}
    assert bench.refusal_of(bench.name, durable=True) == ""
    with pytest.raises(TransportRefused, match="inequivalent arg 'x-max-length'"):
        async with running(server_of(bench.at(**options), bench.noting("made"))):
            pass
    async with bench.calling(**options) as client:
        with pytest.raises(TransportRefused, match="inequivalent arg"):
            await client.aemit("made")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"dead_letter_queue": "amq.x"}, "dead_letter_queue: ACCESS_REFUSED"),
        ({"exchange": "odd", "exchange_type": "odd"}, "COMMAND_INVALID"),
        (
            {
                "queue_options": {"arguments": {"x-queue-type": "quorum"}},
                "is_global_prefetch_count": True,
            },
            "NOT_IMPLEMENTED",
        ),
    ],
)
async def test_what_no_retry_mends_is_refused(
    bench: Bench, options: dict[str, Any], text: str
) -> None:
    """A server that could never work does not start."""
    with pytest.raises(TransportRefused, match=text):
        async with running(bench.server(bench.noting("made"), **options)):
            pass


async def test_queue_of_dead_letters_is_there_from_the_start(bench: Bench) -> None:
    """It is declared, or used as it is, of whatever kind."""
    dead, own = f"{bench.name}.dead", f"{bench.name}.own"
    assert bench.refusal_of(own, durable=True, arguments={"x-max-length": 5}) == ""
    for options in ({}, {"dead_letter_queue": own}):
        async with running(bench.server(bench.noting("made"), **options)):
            pass
    assert bench.refusal_of(dead, passive=True) == ""


async def test_missing_queue_that_is_not_ours(bench: Bench) -> None:
    """With ``no_assert`` a queue that is not there yet is waited for."""
    transport = bench.at(queue=bench.name, no_assert=True, exchange="")
    with pytest.raises(NotConnected, match="NOT_FOUND"):
        async with transport.serve([], print, print, limit=1):  # type: ignore[arg-type]
            pass


async def test_entered_is_consuming(bench: Bench) -> None:
    """Inside the block the broker counts a consumer."""
    async with running(bench.server(bench.noting("made"))):
        with bench.peer() as peer:
            question = commands.Queue.Declare(queue=bench.name, passive=True)
            assert peer.call(question).consumer_count == 1


async def test_server_comes_back_to_a_deleted_queue(bench: Bench) -> None:
    """A queue that is deleted is declared and consumed again."""
    async with running(bench.server(bench.noting("made"))), bench.calling() as client:
        with bench.peer() as peer:
            peer.call(commands.Queue.Delete(queue=bench.name))
        async with asyncio.timeout(30):
            while True:
                try:
                    await client.aemit(
                        f"{bench.name}.made", options={"mandatory": True}
                    )
                    break
                except NoHandler:
                    await asyncio.sleep(0.01)
        await bench.saw(1)


async def test_quorum_queue(bench: Bench) -> None:
    """A quorum queue is an option; its own count of deliveries is ours too."""
    options: Any = {
        "queue_options": {"arguments": {"x-queue-type": "quorum"}},
        "max_deliveries": 2,
    }
    tries: list[int] = []

    @event_pattern(f"{bench.name}.made")
    async def fails(data: int) -> None:
        tries.append(data)
        message = "never"
        raise RuntimeError(message)

    async with running(bench.server(fails, **options)), bench.calling() as client:
        await client.aemit(f"{bench.name}.made", 1)
        await until(lambda: len(tries) == 2)
        await bench.buried(f"{bench.name}.dead")


async def test_dead_letter_exchange(bench: Bench) -> None:
    """With one the broker's own dead letters are used."""
    dead = f"{bench.name}.cemetery"
    queue_options: Any = {
        "dead_letter_exchange": "",
        "dead_letter_routing_key": dead,
        "max_length": 100,
    }
    server = bench.server(bench.noting("made"), queue_options=queue_options)
    assert bench.refusal_of(dead, durable=True) == ""
    async with running(server), bench.calling(queue=bench.name, no_assert=True) as one:
        await one.aemit(f"{bench.name}.unknown", 7)
        letter = await bench.buried(dead)
    headers = letter.properties.headers or {}
    assert headers["x-first-death-reason"] == "rejected"


async def test_dead_letter_keeps_what_it_was(bench: Bench) -> None:
    """Its properties, its body, by what it came, and why it is here."""
    async with running(bench.server(bench.noting("made"))):
        with bench.peer() as peer:
            peer.publish(
                "amq.topic",
                f"{bench.name}.made",
                b"not json",
                headers={"tenant": "acme", "n": [1]},
                correlation_id="c1",
                content_type="text/plain",
            )
        letter = await bench.buried(f"{bench.name}.dead")
    headers: Any = letter.properties.headers
    assert letter.body == b"not json"
    assert (headers["tenant"], headers["n"]) == ("acme", [1])
    assert headers["x-dm-reason"].startswith("Not readable as JSON")
    assert headers["x-dm-exchange"] == "amq.topic"
    assert headers["x-dm-routing-key"] == f"{bench.name}.made"
    assert headers["x-dm-attempts"] == 1
    assert letter.properties.correlation_id == "c1"
    assert letter.properties.content_type == "text/plain"
    assert letter.properties.delivery_mode == 2


# --- messages ---


async def test_what_travels_beside_an_event(bench: Bench) -> None:
    """Headers and options of the message are properties that a handler can read."""
    async with (
        running(bench.server(bench.noting("made"))),
        bench.calling(headers={"from": "tests"}) as client,
    ):
        await client.aemit(
            f"{bench.name}.made",
            {"id": 1},
            headers={"tenant": "acme"},
            options={"priority": 3, "app_id": "shop", "content_type": "x/y"},
        )
        await bench.saw(1)
    _, data, context = bench.seen[0]
    properties = context.wire.properties
    assert data == {"id": 1}
    assert context.headers == {"from": "tests", "tenant": "acme"}
    assert (properties.priority, properties.app_id) == (3, "shop")
    assert (properties.content_type, properties.delivery_mode) == ("x/y", 2)
    assert properties.message_id
    assert context.wire.routing_key == f"{bench.name}.made"
    assert not context.wire.redelivered


async def test_priority(bench: Bench) -> None:
    """In a queue with priorities the more urgent comes first."""
    options: Any = {"queue": bench.name, "queue_options": {"max_priority": 5}}
    async with bench.calling(**options) as client:
        for priority in (1, 5, 3):
            await client.aemit(
                f"{bench.name}.made", priority, options={"priority": priority}
            )
        server = server_of(bench.at(**options), bench.noting("made"), concurrency=1)
        async with running(server):
            await bench.saw(3)
    assert [data for _, data, _ in bench.seen] == [5, 3, 1]


async def test_expiration(bench: Bench) -> None:
    """A message that nobody takes in time is gone."""
    async with bench.calling(queue=bench.name) as client:
        await client.aemit(f"{bench.name}.made", 1, options={"expiration": 0.01})
        await client.aemit(f"{bench.name}.made", 2)
        with bench.peer() as peer:
            question = commands.Queue.Declare(queue=bench.name, passive=True)
            await until(lambda: peer.call(question).message_count == 1)
        async with running(bench.server(bench.noting("made"))):
            await bench.saw(1)
    assert [data for _, data, _ in bench.seen] == [2]


async def test_request_of_a_caller_that_is_gone(bench: Bench) -> None:
    """It does not wait in the queue for ever."""
    async with bench.calling(queue=bench.name) as client:
        await client.aconnect()
        with pytest.raises(MessageTimeout):
            await client.asend("sum", 1, timeout=0.01)
        with bench.peer() as peer:
            question = commands.Queue.Declare(queue=bench.name, passive=True)
            await until(lambda: peer.call(question).message_count == 0)


async def test_delay(bench: Bench) -> None:
    """An event may be told to arrive later, by either way."""
    loop = asyncio.get_running_loop()
    times: list[float] = []

    @event_pattern(f"{bench.name}.made")
    async def noted(_: Any, context: RabbitMQContext) -> None:
        times.append(loop.time())
        bench.seen.append(context.wire.routing_key)

    async with (
        running(bench.server(noted)),
        bench.calling() as client,
        bench.calling(queue=bench.name) as direct,
    ):
        for one in (client, direct):
            began = loop.time()
            await one.aemit(f"{bench.name}.made", options={"delay": 0.1})
            await until(lambda: times)
            assert times.pop() - began > 0.09
    assert bench.seen == [f"{bench.name}.made", bench.name]


async def test_body_of_many_frames(bench: Bench) -> None:
    """A large message travels in several frames, both ways."""

    @message_pattern(bench.name)
    async def echo(data: str) -> str:
        return data

    url = f"{bench.url}?frameMax=4096"
    options: Any = {"url": url, "max_message_size": 4 * 1024 * 1024}
    big = "x" * 1_000_000
    async with (
        running(server_of(bench.at(group=bench.name, **options), echo)),
        bench.calling(**options) as client,
    ):
        assert await client.asend(bench.name, big, timeout=30) == big


async def test_stream_of_a_client_that_is_gone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endless stream ends on the server when its client's connection does."""
    monkeypatch.setattr(callers, "PAUSE", 0.05)
    ended = asyncio.Event()

    @message_pattern(bench.name)
    async def endless(_: Any) -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await asyncio.sleep(0.001)
        finally:
            ended.set()

    async with running(bench.server(endless)), AsyncExitStack() as stack:
        client = await stack.enter_async_context(bench.calling())
        items = await stack.enter_async_context(aclosing(client.astream(bench.name)))
        assert await anext(items) == 1
        client.unwrap().transport.abort()
        async with asyncio.timeout(30):
            await ended.wait()


# --- TLS ---


@pytest.fixture(scope="module")
def secure(
    start_server: Callable[..., RabbitMQ], certificates: dict[str, str]
) -> RabbitMQ:
    """Give a broker that speaks TLS and wants to know who asks."""
    return start_server(RabbitMQ, tls=certificates, mutual=True, password="s3cret")


async def test_tls(secure: RabbitMQ, certificates: dict[str, str]) -> None:
    """With certificates on both sides a request is answered."""
    bench = Bench(secure.url)
    tls: Any = {
        "ca": certificates["ca"],
        "cert": certificates["client_cert"],
        "key": certificates["client_key"],
    }

    @message_pattern(bench.name)
    async def echo(data: str) -> str:
        return data

    server = bench.server(echo, tls_options=tls)
    async with running(server), bench.calling(tls_options=tls) as client:
        assert await client.asend(bench.name, "👍") == "👍"
        assert server.address.startswith("amqps://127.0.0.1:")


async def test_broker_that_nobody_vouches_for(secure: RabbitMQ) -> None:
    """A certificate of an unknown authority is refused by us."""
    bench = Bench(secure.url)
    async with bench.calling() as client:
        with pytest.raises(NotConnected, match=r"refused by TLS.*certificate"):
            await client.asend(bench.name)


async def test_plain_client_of_a_secure_broker(secure: RabbitMQ) -> None:
    """Who speaks no TLS is not let in, and never sends its password."""
    bench = Bench(secure.url.replace("amqps", "amqp"))
    async with bench.calling() as client:
        with pytest.raises(NotConnected, match="amqp://127"):
            await client.asend(bench.name)


async def test_wrong_password(secure: RabbitMQ, certificates: dict[str, str]) -> None:
    """Credentials that are refused end it, and are not told."""
    bench = Bench(secure.url.replace("s3cret", "wr0ng"))
    tls: Any = {
        "ca": certificates["ca"],
        "cert": certificates["client_cert"],
        "key": certificates["client_key"],
    }
    async with bench.calling(tls_options=tls) as client:
        with pytest.raises(TransportRefused, match="ACCESS_REFUSED") as caught:
            await client.asend(bench.name)
    assert "wr0ng" not in str(caught.value)
