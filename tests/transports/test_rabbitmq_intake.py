"""RabbitMQ's server half, by a broker that says what the test tells it to."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pamqp import body, commands

from django_microservices.exceptions import (
    MessageTooLarge,
    NotConnected,
    TransportRefused,
)
from django_microservices.transports.rabbitmq import (
    RabbitMQTransport,
    connection,
    publishing,
)
from django_microservices.transports.rabbitmq import intake as intake_module
from django_microservices.transports.rabbitmq.intake import Intake
from django_microservices.wire.messages import UNSET, Reply
from django_microservices.wire.unreadable import UNREADABLE

from .rabbitmq_ends import (
    COPIES,
    EVENT,
    REPLY_TO,
    REQUEST,
    Ack,
    Header,
    Nack,
    Publish,
    Reject,
    Served,
    serving,
)
from .scripted_broker import Client, ScriptedBroker, eventually


@pytest.fixture
async def broker(free_port: Callable[[], int]) -> AsyncIterator[ScriptedBroker]:
    """Give a broker that listens."""
    async with ScriptedBroker(free_port()).running() as broker:
        yield broker


# --- opening ---


async def test_what_is_said_first(broker: ScriptedBroker) -> None:
    """The queue is declared as Nest does, bound to each pattern, and consumed."""
    async with serving(broker, "created", "orders.*", "created") as served:
        client = served.consuming
        declared = await client.hears(commands.Queue.Declare)
        bound = client.heard(commands.Queue.Bind)
        qos = await client.hears(commands.Basic.Qos)
        consumed = await client.hears(commands.Basic.Consume)
        assert served.intake.address == f"{broker.url}, queue 'amq.gen-q'"
        assert served.intake.driver.address.port == broker.port
    assert (declared.queue, declared.durable, declared.arguments) == ("shop", True, {})
    assert {(bind.exchange, bind.routing_key) for bind in bound} == {
        ("amq.topic", "created"),
        ("amq.topic", "orders.*"),
    }
    assert len(bound) == 2
    assert (qos.prefetch_count, qos.global_) == (10, False)
    assert (consumed.no_ack, consumed.consumer_tag) == (False, "")


async def test_arrangement_of_nest(broker: ScriptedBroker) -> None:
    """Without an exchange nothing is bound; without acks no limit is set."""
    async with serving(
        broker, "created", exchange="", nest_delivery=True, consumer_tag="me"
    ) as served:
        client = served.consuming
        assert client.heard(commands.Queue.Bind) == []
        assert (await client.hears(commands.Basic.Qos)).prefetch_count == 0
        consumed = await client.hears(commands.Basic.Consume)
    assert (consumed.no_ack, consumed.consumer_tag) == (True, "me")


async def test_queue_of_somebody_else(broker: ScriptedBroker) -> None:
    """With ``no_assert`` the queue is taken as it is."""
    async with serving(broker, queue="theirs", no_assert=True) as served:
        assert served.consuming.heard(commands.Queue.Declare) == []
        consumed = await served.consuming.hears(commands.Basic.Consume)
    assert consumed.queue == "theirs"


async def test_private_queue(broker: ScriptedBroker) -> None:
    """A queue without a name ends with its consumer."""
    async with serving(broker, queue="") as served:
        declared = await served.consuming.hears(commands.Queue.Declare)
        consumed = await served.consuming.hears(commands.Basic.Consume)
    assert (declared.queue, declared.durable) == ("", False)
    assert (declared.exclusive, declared.auto_delete) == (True, True)
    assert consumed.queue == "amq.gen-q"


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({"exchange_type": "fanout"}, {""}),
        ({"exchange_type": "direct", "routing_key": "all"}, {"created", "all"}),
    ],
)
async def test_exchange_of_ones_own(
    broker: ScriptedBroker, options: dict[str, Any], keys: set[str]
) -> None:
    """It is declared, durable, and bound as its type wants."""
    async with serving(broker, "created", exchange="mine", **options) as served:
        declared = await served.consuming.hears(commands.Exchange.Declare)
        bound = served.consuming.heard(commands.Queue.Bind)
    assert (declared.exchange, declared.durable) == ("mine", True)
    assert declared.exchange_type == options["exchange_type"]
    assert {bind.routing_key for bind in bound} == keys


@pytest.mark.parametrize(
    ("code", "kind"), [(406, TransportRefused), (405, NotConnected)]
)
async def test_refused(
    broker: ScriptedBroker, code: int, kind: type[Exception]
) -> None:
    """What no retry mends is refused for good, in the broker's own words."""
    broker.answers[commands.Queue.Declare] = commands.Channel.Close(code, "SO", 50, 10)
    with pytest.raises(kind, match="SO"):
        async with serving(broker):
            pass


@pytest.mark.parametrize(
    ("code", "options", "kind", "text"),
    [
        (403, {}, TransportRefused, "dead_letter_queue: NO .*'theirs.dead'"),
        (405, {}, NotConnected, "NO"),
        (
            406,
            {"dead_letter_queue": "", "redelivery_delay": 1},
            TransportRefused,
            "redelivery_delay: NO .*'theirs.retry'",
        ),
    ],
)
async def test_what_a_failure_needs_is_refused(
    broker: ScriptedBroker,
    code: int,
    options: dict[str, Any],
    kind: type[Exception],
    text: str,
) -> None:
    """It is declared before anything can fail, and a refusal names the option."""
    broker.answers[commands.Queue.Declare] = commands.Channel.Close(code, "NO", 50, 10)
    with pytest.raises(kind, match=text):
        async with serving(broker, queue="theirs", no_assert=True, **options):
            pass


async def test_broker_that_goes_while_opening(broker: ScriptedBroker) -> None:
    """A broker that closes everything at once is no refusal."""
    close = commands.Connection.Close(320, "CONNECTION_FORCED", 0, 0)
    broker.answers[commands.Basic.Consume] = close
    with pytest.raises(NotConnected, match="CONNECTION_FORCED"):
        async with serving(broker):
            pass


async def test_pattern_that_cannot_be_bound(broker: ScriptedBroker) -> None:
    """A pattern over 255 bytes is refused by name, before anything is opened."""
    with pytest.raises(TransportRefused, match=r"xxx.*at most 255 bytes"):
        async with serving(broker, "x" * 300):
            pass
    assert broker.clients == []


# --- in ---


async def test_request_and_answer(broker: ScriptedBroker) -> None:
    """A request is answered where it asks, and acknowledged."""
    async with serving(broker) as served:
        served.consuming.deliver(
            REQUEST,
            reply_to=REPLY_TO,
            correlation_id="c1",
            headers={"dm-timeout": "1500", "tenant": "acme", "n": 1},
        )
        delivery = await served.arrived()
        message = delivery.message
        assert (message.pattern.route, message.id) == ("sum", "a1")
        assert bytes(message.data) == b"[1]"
        assert (message.timeout, message.headers) == (
            1.5,
            {"dm-timeout": "1500", "tenant": "acme"},
        )
        assert message.wire.routing_key == "orders"
        assert delivery.answer() is None
        published = await served.publishing.hears(Publish)
        answered = await served.publishing.hears(body.ContentBody)
        properties = (await served.publishing.hears(Header)).properties
        assert (await served.consuming.hears(Ack)).delivery_tag == 1
    assert (published.exchange, published.routing_key) == ("", REPLY_TO)
    assert answered.value == b'{"response":6,"isDisposed":true}'
    assert dict(properties) == dict(commands.Basic.Properties(correlation_id="c1"))


async def test_request_that_says_not_whom_to_answer(broker: ScriptedBroker) -> None:
    """It is handled, and its answer dropped."""
    async with serving(broker) as served:
        served.consuming.deliver(REQUEST)
        (await served.arrived()).answer()
        await served.consuming.hears(Ack)
        assert served.publishing.heard(Publish) == []


async def test_answers_to_many(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept of the queues of callers has a bound."""
    monkeypatch.setattr(publishing, "_MOST_KNOWN", 1)
    async with serving(broker) as served:
        for tag, name in enumerate(("a", "b", "a"), 1):
            served.consuming.deliver(REQUEST, tag=tag, reply_to=f"amq.gen-{name}")
            (await served.arrived(tag)).answer()
        await served.publishing.hears(Publish, 3)
    names = [one.routing_key for one in served.publishing.heard(Publish)]
    assert names == ["amq.gen-a", "amq.gen-b", "amq.gen-a"]


async def test_answered_request_is_done(broker: ScriptedBroker) -> None:
    """Whatever else is said of it."""
    async with serving(broker) as served:
        served.consuming.deliver(REQUEST, reply_to=REPLY_TO)
        delivery = await served.arrived()
        delivery.respond(Reply("a1", b"1"))
        delivery.end("dead", "no handler")
        await served.consuming.hears(Ack)
        assert len(served.publishing.heard(Publish)) == 1


async def test_answer_to_a_queue_of_somebody_else(
    broker: ScriptedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """A request cannot have its answer put into a business queue, unless allowed."""
    async with serving(broker, allowed_reply_queues=["answers"]) as served:
        for tag, name in enumerate(("invoices", "answers", "amq.gen-x"), 1):
            served.consuming.deliver(REQUEST, tag=tag, reply_to=name)
            (await served.arrived(tag)).answer(tag)
        await served.publishing.hears(Publish, 2)
        assert served.intake.refused == 1
    names = [one.routing_key for one in served.publishing.heard(Publish)]
    assert names == ["answers", "amq.gen-x"]
    assert "invoices: it is not allowed" in caplog.text


@pytest.mark.parametrize(
    ("data", "route", "payload"),
    [
        (b'{"sku":1}', "orders.new", b'{"sku":1}'),
        (b"[1,2]", "orders.new", b"[1,2]"),
        (b'"text"', "orders.new", b'"text"'),
        (b'{"data":1}', "orders.new", b"1"),
        (b'{"pattern":"other","data":1}', "other", b"1"),
        (b'{"pattern":{"b":1,"a":2}}', '{"a":2,"b":1}', UNSET),
    ],
)
async def test_foreign_message(
    broker: ScriptedBroker, data: bytes, route: str, payload: Any
) -> None:
    """A message through the exchange that names no pattern has its routing key."""
    async with serving(broker) as served:
        served.consuming.deliver(data, exchange="amq.topic", key="orders.new")
        message = (await served.arrived()).message
    assert (message.pattern.route, message.id) == (route, UNSET)
    found = message.data if message.data is UNSET else bytes(message.data)
    assert found == payload


async def test_foreign_message_in_the_queue(broker: ScriptedBroker) -> None:
    """One that came straight to the queue has no pattern at all, as in Nest."""
    async with serving(broker) as served:
        served.consuming.deliver(b'{"sku":1}')
        assert (await served.arrived()).message.pattern.route == "undefined"


UNREADABLE_EVENTS: Any = [
    (b"", {}),
    (b"no json", {}),
    (b'{"pattern":', {}),
    (b'{"pattern":"a","data":' + b"[" * 100 + b"]" * 100 + b"}", {}),
]


@pytest.mark.parametrize(("data", "more"), UNREADABLE_EVENTS)
async def test_unreadable_event(
    broker: ScriptedBroker, data: bytes, more: dict[str, Any]
) -> None:
    """What cannot be read is a dead letter with the reason, and others are served."""
    async with serving(broker) as served:
        served.consuming.deliver(data, tag=1, **more)
        served.consuming.deliver(EVENT, tag=2)
        (await served.arrived()).end("ack")
        await served.publishing.hears(Publish)
        served.publishing.say(Ack(1), COPIES)
        await served.consuming.hears(Ack)
        served.consuming.deliver(data, tag=3, **more)
        await served.publishing.hears(Publish, 2)
        for letter in served.copies():
            assert "x-dm-reason" in (letter.headers or {})
        assert len(served.publishing.heard(commands.Queue.Declare)) == 1
    assert served.publishing.heard(Publish)[0].routing_key == "amq.gen-q.dead"


async def test_properties_that_cannot_be_read(broker: ScriptedBroker) -> None:
    """Nor do broken properties harm anybody."""
    async with serving(broker) as served:
        method = commands.Basic.Deliver("tag", 1, False, "", "orders")
        client = served.consuming
        client.say(method, 1)
        payload = b"\0\x3c\0\0" + (1).to_bytes(8, "big") + b"\x04\0"
        size = len(payload).to_bytes(4, "big")
        client.writer.write(b"\x02\0\1" + size + payload + b"\xce")
        client.say(body.ContentBody(b"1"), 1)
        await served.publishing.hears(Publish)
        served.publishing.say(Ack(1), COPIES)
        await client.hears(Ack)
        assert (served.copies()[0].headers or {})["x-dm-reason"]


async def test_unreadable_request(
    broker: ScriptedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """Whom one can answer is answered."""
    deep = b"[" * 100 + b"]" * 100
    async with serving(broker) as served:
        served.consuming.deliver(
            b'{"pattern":"sum","data":' + deep + b',"id":"a1"}',
            reply_to=REPLY_TO,
            correlation_id="c1",
        )
        answered = await served.publishing.hears(body.ContentBody)
        await served.consuming.hears(Ack)
    assert UNREADABLE in answered.value
    assert "Refused a request: in 'amq.gen-q' it nests too deeply." in caplog.text


async def test_message_over_the_limit(broker: ScriptedBroker) -> None:
    """Of what is too large the head is a dead letter; who asked is answered so."""
    async with serving(broker, max_message_size=200) as served:
        served.consuming.deliver(EVENT + b" " * 200, tag=1)
        head = await served.publishing.hears(body.ContentBody)
        served.publishing.say(Ack(1), COPIES)
        await served.consuming.hears(Ack)
        assert head.value == EVENT + b" " * 200
        reason = (served.copies()[0].headers or {})["x-dm-reason"]
        assert (
            reason == "its 230 bytes are over max_message_size; kept are the first 230"
        )
        served.consuming.deliver(b"x" * 201, tag=2, reply_to=REPLY_TO)
        await served.publishing.hears(body.ContentBody, 2)
        assert (await served.consuming.hears(Ack, 2)).delivery_tag == 2


async def test_message_over_the_limit_that_nobody_buries(
    broker: ScriptedBroker,
) -> None:
    """Where dead letters are the broker's own it has the whole message."""
    async with serving(broker, max_message_size=9, dead_letter_queue="") as served:
        served.consuming.deliver(EVENT)
        assert not (await served.consuming.hears(Reject)).requeue
        assert served.publishing.heard(Publish) == []


async def test_unknown_request_without_an_answer(broker: ScriptedBroker) -> None:
    """A request that nobody handles and nobody can be told of is a dead letter."""
    async with serving(broker) as served:
        served.consuming.deliver(REQUEST, reply_to="invoices")
        delivery = await served.arrived()
        delivery.respond(Reply("a1", missing=True))
        delivery.end("dead", "no handler")
        letter = await served.publishing.hears(Publish)
    assert letter.routing_key == "amq.gen-q.dead"


async def test_what_runs_on_holds_its_place(broker: ScriptedBroker) -> None:
    """After a lost connection no more run than may, the old ones counted."""
    transport = RabbitMQTransport(url=broker.url, group="shop")
    served = Served()
    for number in (0, 2, 4):
        async with transport.serve(
            [], served.deliver, served.statuses.append, limit=1
        ) as intake:
            client = await broker.client(number)
            client.deliver(EVENT, tag=1)
            await client.hears(commands.Basic.Consume)
            if number == 4:
                assert len(served.deliveries) == 1
                served.deliveries[0].end("ack")
                await served.arrived(2)
                served.deliveries[1].end("ack")
                await client.hears(Ack)
            else:
                await served.arrived()
                client.say(commands.Connection.Close(320, "X", 0, 0))
                await intake.closed
    assert len(served.deliveries) == 2
    assert transport.left == {}


async def lost(client: Client, intake: Intake) -> None:
    """Let the broker end a connection, all that it brought before read."""
    intake.consuming.resume_reading()
    client.say(commands.Connection.Close(320, "X", 0, 0))
    await intake.closed


async def test_nothing_begins_on_a_lost_connection(broker: ScriptedBroker) -> None:
    """What no handler has begun is the broker's: it would run twice."""
    transport = RabbitMQTransport(url=broker.url, group="shop", prefetch_count=5)
    served = Served()
    async with transport.serve(
        [], served.deliver, served.statuses.append, limit=1
    ) as intake:
        client = await broker.client()
        for tag in (1, 2):
            client.deliver(EVENT, tag=tag)
        await eventually(lambda: intake.consuming.deaf)
        await lost(client, intake)
    served.deliveries[0].end("ack")
    assert len(served.deliveries) == 1


async def test_nothing_begins_while_it_leaves(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor what comes when the intake has ended, and its connection has not."""
    monkeypatch.setattr(publishing, "STEADY", 0)
    async with serving(broker) as served:
        refusal = commands.Connection.Close(320, "X", 0, 0)
        broker.answers[commands.Connection.Open] = refusal
        served.publishing.say(refusal)
        await served.intake.closed
        served.consuming.deliver(EVENT)
    assert served.deliveries == []


async def test_what_nobody_else_has_goes_on(broker: ScriptedBroker) -> None:
    """Without acknowledgements the next connection's intake begins what waits."""
    transport = RabbitMQTransport(url=broker.url, nest_delivery=True, group="shop")
    served = Served()
    async with transport.serve(
        [], served.deliver, served.statuses.append, limit=2
    ) as intake:
        client = await broker.client()
        for tag in range(1, 5):
            client.deliver(EVENT, tag=tag)
        await eventually(lambda: intake.consuming.deaf)
        await lost(client, intake)
    served.deliveries[0].end("ack")
    served.deliveries[1].end("ack")
    assert len(served.deliveries) == 4  # also where there is no connection
    for number in (2, 4):
        async with transport.serve(
            [], served.deliver, served.statuses.append, limit=2
        ) as intake:
            client = await broker.client(number)
            client.deliver(EVENT)
            client.deliver(EVENT)
            await eventually(lambda: intake.consuming.deaf)
            assert len(served.deliveries) == 4
            if number == 2:
                await lost(client, intake)
                continue
            pausing = asyncio.ensure_future(intake.pause())
            for count in range(2, 8):
                (await served.arrived(count + 1)).end("ack")
            await pausing
    assert len(served.deliveries) == 8
    assert transport.left == {}


async def test_what_another_end_left(broker: ScriptedBroker) -> None:
    """Servers that share a transport have each places of their own."""
    transport = RabbitMQTransport(url=broker.url, group="shop")
    one, other = Served(), Served()
    async with transport.serve([], one.deliver, one.statuses.append, limit=1) as intake:
        client = await broker.client()
        client.deliver(EVENT)
        await one.arrived()
        await lost(client, intake)
    async with transport.serve([], other.deliver, other.statuses.append, limit=1):
        (await broker.client(2)).deliver(EVENT)
        (await other.arrived()).end("ack")


def test_what_another_loop_left(free_port: Callable[[], int]) -> None:
    """What ran on a loop that is no more holds no place for ever."""
    port = free_port()
    transport = RabbitMQTransport(url=f"amqp://127.0.0.1:{port}", group="shop")
    served = Served()

    async def serve(count: int) -> None:
        async with (
            ScriptedBroker(port).running() as broker,
            transport.serve(
                [], served.deliver, served.statuses.append, limit=1
            ) as intake,
        ):
            client = await broker.client()
            client.deliver(EVENT)
            await served.arrived(count)
            await lost(client, intake)

    for count in (1, 2):
        asyncio.run(serve(count))


async def test_answer_over_the_limit(broker: ScriptedBroker) -> None:
    """An answer that is too large is an error for the server."""
    async with serving(broker, max_message_size=100) as served:
        served.consuming.deliver(REQUEST, reply_to=REPLY_TO)
        delivery = await served.arrived()
        with pytest.raises(MessageTooLarge):
            delivery.answer("x" * 200)
        delivery.answer(6)
        await served.consuming.hears(Ack)


# --- the end ---


async def test_pause(broker: ScriptedBroker) -> None:
    """Nothing new is taken, and what was accepted is done first."""
    async with serving(broker) as served:
        served.consuming.deliver(EVENT)
        delivery = await served.arrived()
        pausing = asyncio.ensure_future(served.intake.pause())
        await served.consuming.hears(commands.Basic.Cancel)
        await asyncio.sleep(0)
        assert not pausing.done()
        delivery.end("ack")
        await pausing
    assert (await served.consuming.hears(Ack)).delivery_tag == 1
    told = [type(value) for _, value in served.consuming.told]
    assert told.index(Ack) < told.index(commands.Channel.Close)


async def test_failure_while_pausing(broker: ScriptedBroker) -> None:
    """What fails now is for another replica at once."""
    async with serving(broker) as served:
        served.consuming.deliver(EVENT)
        delivery = await served.arrived()
        pausing = asyncio.ensure_future(served.intake.pause())
        await served.consuming.hears(commands.Basic.Cancel)
        delivery.end("retry", "cancelled")
        await pausing
        assert (await served.consuming.hears(Nack)).requeue


async def test_pause_gives_back_what_waits(broker: ScriptedBroker) -> None:
    """Of what was sent ahead, that which no handler has begun goes back."""
    async with serving(broker, prefetch_count=5, limit=1) as served:
        for tag in (1, 2, 3):
            served.consuming.deliver(EVENT, tag=tag)
        delivery = await served.arrived()
        await eventually(lambda: served.intake.consuming.deaf)
        pausing = asyncio.ensure_future(served.intake.pause())
        await served.consuming.hears(Nack, 2)
        delivery.end("ack")
        await pausing
    tags = {nack.delivery_tag for nack in served.consuming.heard(Nack)}
    assert (tags, len(served.deliveries)) == ({2, 3}, 1)


async def test_pause_without_acknowledgements(broker: ScriptedBroker) -> None:
    """What cannot be given back is handled."""
    async with serving(broker, no_ack=True, limit=1) as served:
        for tag in (1, 2):
            served.consuming.deliver(EVENT, tag=tag)
        await served.arrived()
        await eventually(lambda: served.intake.consuming.deaf)
        pausing = asyncio.ensure_future(served.intake.pause())
        await served.consuming.hears(commands.Basic.Cancel)
        for number in (1, 2):
            (await served.arrived(number)).end("ack")
        await pausing


async def test_pause_when_the_broker_is_gone(broker: ScriptedBroker) -> None:
    """There is nothing to wait for."""
    async with serving(broker) as served:
        served.consuming.deliver(EVENT)
        delivery = await served.arrived()
        close = commands.Connection.Close(320, "X", 0, 0)
        pausing = asyncio.ensure_future(served.intake.pause())
        await served.consuming.hears(commands.Basic.Cancel)
        served.consuming.say(close)
        await pausing
        await served.intake.pause()
        delivery.end("ack")


async def test_leaving_gives_back_what_is_being_retried(
    broker: ScriptedBroker,
) -> None:
    """A copy that is not confirmed yet is no reason to lose the message."""
    async with serving(broker) as served:
        served.consuming.deliver(EVENT)
        (await served.arrived()).end("retry")
        await served.publishing.hears(Publish)
    assert (await served.consuming.hears(Nack)).requeue


async def test_leaving_a_broker_that_hangs(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leaving never waits for a broker that does not answer."""
    monkeypatch.setattr(intake_module, "LINGER", 0.02)
    monkeypatch.setattr(connection, "LINGER", 0.02)
    async with serving(broker) as served:
        for kind in (commands.Channel.Close, commands.Connection.Close):
            broker.answers[kind] = None
    assert served.intake.closed.done()
