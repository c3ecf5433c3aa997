"""RabbitMQ's server half, by a broker that says what the test tells it to."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pamqp import body, commands, header

from django_microservices.exceptions import (
    ConnectionLost,
    MessageTooLarge,
    NotConnected,
    TransportRefused,
)
from django_microservices.transports.rabbitmq import (
    RabbitMQTransport,
    callers,
    connection,
    failures,
    intake,
)
from django_microservices.transports.rabbitmq.intake import Intake
from django_microservices.wire.codecs import encode
from django_microservices.wire.messages import UNSET, Message, Reply, Subscription
from django_microservices.wire.patterns import Pattern
from django_microservices.wire.status import Status

from .scripted_broker import Client, ScriptedBroker, eventually

Ack, Nack, Reject = commands.Basic.Ack, commands.Basic.Nack, commands.Basic.Reject
Publish, Header = commands.Basic.Publish, header.ContentHeader
REPLY_TO = "amq.rabbitmq.reply-to.abc"
REPLIES, COPIES = 1, 2  # channels of the publishing connection
EVENT = b'{"pattern":"created","data":1}'
REQUEST = b'{"pattern":"sum","data":[1],"id":"a1"}'


@pytest.fixture
async def broker(free_port: Callable[[], int]) -> AsyncIterator[ScriptedBroker]:
    """Give a broker that listens."""
    async with ScriptedBroker(free_port()).running() as broker:
        yield broker


class Delivery:
    """What a server makes of a message: it ends when the test says so."""

    def __init__(self, message: Message, respond: Any) -> None:
        self.message = message
        self.respond = respond
        self.outcome: str | None = None
        self.reason = ""
        self.delay: float | None = None
        self.callback: Any = None

    def when_done(self, callback: Any) -> None:
        """Keep the callback, or call it."""
        self.callback = callback
        if self.outcome is not None:
            callback(self)

    def end(self, outcome: str, reason: str = "", delay: float | None = None) -> None:
        """Be done."""
        self.outcome, self.reason, self.delay = outcome, reason, delay
        if self.callback is not None:
            self.callback(self)

    def answer(self, value: Any = 6, *, last: bool = True) -> Any:
        """Respond; the last answer ends it."""
        waiting = self.respond(Reply(self.message.id, encode(value), None, last))
        if last:
            self.end("ack")
        return waiting

    def cancel(self) -> None:
        """Nobody wants it any more."""
        self.end("ack" if self.message.id is not UNSET else "retry", "cancelled")


class Served:
    """An intake, what it delivered, and both of its connections as the broker's."""

    intake: Intake
    consuming: Client
    publishing: Client

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.statuses: list[Status] = []
        self.at_once = ""

    def deliver(self, message: Message, respond: Any) -> Any:
        """Take a message."""
        delivery = Delivery(message, respond)
        self.deliveries.append(delivery)
        if self.at_once:
            delivery.outcome = self.at_once
        return delivery

    async def arrived(self, count: int = 1) -> Delivery:
        """Wait for so many messages; return the last of them."""
        await eventually(lambda: len(self.deliveries) >= count)
        return self.deliveries[count - 1]

    def copies(self) -> list[commands.Basic.Properties]:
        """Return what was published beside answers."""
        told = self.publishing.told
        return [v.properties for c, v in told if c == COPIES and isinstance(v, Header)]


@asynccontextmanager
async def serving(
    broker: ScriptedBroker, *patterns: str, limit: int = 10, **options: Any
) -> AsyncIterator[Served]:
    """Consume inside the block."""
    served = Served()
    given: Any = {"url": broker.url, "group": "shop", "redelivery_delay": 0} | options
    subscriptions = [Subscription(Pattern.of(one), "event") for one in patterns]
    transport = RabbitMQTransport(**given)
    number = len(broker.clients)
    async with transport.serve(
        subscriptions, served.deliver, served.statuses.append, limit=limit
    ) as served.intake:
        served.consuming = await broker.client(number)
        served.publishing = await broker.client(number + 1)
        yield served


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


UNREADABLE: Any = [
    (b"", {}),
    (b"no json", {}),
    (b'{"pattern":', {}),
    (b'{"pattern":"a","data":' + b"[" * 100 + b"]" * 100 + b"}", {}),
]


@pytest.mark.parametrize(("data", "more"), UNREADABLE)
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
        (letter,) = served.copies()
        assert "x-dm-reason" in (letter.headers or {})
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


async def test_unreadable_request(broker: ScriptedBroker) -> None:
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
    assert b"could not be read" in answered.value


async def test_message_over_the_limit(broker: ScriptedBroker) -> None:
    """What is too large to be kept is rejected, or answered so."""
    async with serving(broker, max_message_size=200) as served:
        served.consuming.deliver(EVENT + b" " * 200, tag=1)
        assert not (await served.consuming.hears(Reject)).requeue
        served.consuming.deliver(b"x" * 201, tag=2, reply_to=REPLY_TO)
        await served.publishing.hears(body.ContentBody)
        assert (await served.consuming.hears(Ack)).delivery_tag == 2


async def test_answer_over_the_limit(broker: ScriptedBroker) -> None:
    """An answer that is too large is an error for the server."""
    async with serving(broker, max_message_size=100) as served:
        served.consuming.deliver(REQUEST, reply_to=REPLY_TO)
        delivery = await served.arrived()
        with pytest.raises(MessageTooLarge):
            delivery.answer("x" * 200)
        delivery.answer(6)
        await served.consuming.hears(Ack)


# --- acknowledgements ---


async def test_acks_are_gathered(broker: ScriptedBroker) -> None:
    """One frame acknowledges all that is done below what is not."""
    async with serving(broker) as served:
        for tag in range(1, 7):
            served.consuming.deliver(EVENT, tag=tag)
        await served.arrived(6)
        for number in (0, 1, 2, 4):
            served.deliveries[number].end("ack")
        await served.consuming.hears(Ack, 2)
        served.deliveries[3].end("ack")
        served.deliveries[5].end("ack")
        await served.consuming.hears(Ack, 3)
        acks = served.consuming.heard(Ack)
    assert [(ack.delivery_tag, ack.multiple) for ack in acks] == [
        (5, False),
        (3, True),
        (6, True),
    ]


async def test_done_at_once(broker: ScriptedBroker) -> None:
    """A message that is done on return is acknowledged as well."""
    async with serving(broker) as served:
        served.at_once = "ack"
        served.consuming.deliver(EVENT)
        await served.consuming.hears(Ack)
        assert served.intake.unfinished == set()


async def test_own_verdict_comes_first(broker: ScriptedBroker) -> None:
    """What the handler says itself counts; the rest of it is told nobody."""
    async with serving(broker) as served:
        served.consuming.deliver(EVENT)
        delivery = await served.arrived()
        assert delivery.message.settle is not None
        delivery.message.settle("ack", None, "")
        await served.consuming.hears(Ack)
        delivery.end("retry")
        served.consuming.deliver(EVENT, tag=2)
        (await served.arrived(2)).end("ack")
        await served.consuming.hears(Ack, 2)
    assert served.publishing.heard(Publish) == []


async def test_without_acknowledgements(broker: ScriptedBroker) -> None:
    """Nothing is settled; what the broker pushes beyond the limit waits."""
    async with serving(broker, nest_delivery=True, limit=2) as served:
        for tag in range(1, 9):
            served.consuming.deliver(EVENT, tag=tag)
        await served.arrived(2)
        await eventually(lambda: served.intake.consuming.deaf)
        assert len(served.deliveries) == 2
        assert served.deliveries[0].message.settle is None
        for number in range(8):
            (await served.arrived(number + 1)).end("retry")
        assert not served.intake.consuming.deaf
    assert served.consuming.heard(Ack) == served.consuming.heard(Nack) == []


# --- retries and dead letters ---


async def test_retry_at_once(broker: ScriptedBroker) -> None:
    """Without a delay a failed event goes back into its queue, counted."""
    async with serving(broker) as served:
        served.consuming.deliver(EVENT, exchange="amq.topic", key="created")
        (await served.arrived()).end("retry", "ValueError")
        published = await served.publishing.hears(Publish)
        assert served.consuming.heard(Ack) == []
        served.publishing.say(Ack(1), COPIES)
        await served.consuming.hears(Ack)
        (copy,) = served.copies()
    assert (published.exchange, published.routing_key) == ("", "amq.gen-q")
    assert published.mandatory
    assert (copy.headers or {})["x-dm-attempts"] == 1
    assert (copy.headers or {})["x-dm-routing-key"] == "created"


async def test_retry_later(broker: ScriptedBroker) -> None:
    """With a delay it rests in a queue whose messages expire into its own."""
    async with serving(broker) as served:
        for tag in (1, 2):
            served.consuming.deliver(EVENT, tag=tag)
            (await served.arrived(tag)).end("retry", "", 0.3)
            published = await served.publishing.hears(Publish, tag)
            served.publishing.say(Ack(tag), COPIES)
            await served.consuming.hears(Ack, tag)
        (declared,) = served.publishing.heard(commands.Queue.Declare)
    assert published.routing_key == declared.queue == "amq.gen-q.retry.500"
    assert declared.durable
    assert declared.arguments == {
        "x-message-ttl": 500,
        "x-expires": 120_500,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "amq.gen-q",
    }


async def test_retry_of_a_private_queue(broker: ScriptedBroker) -> None:
    """A queue that ends with its consumer has no other: the message rests with us."""
    async with serving(broker, queue="") as served:
        served.consuming.deliver(EVENT)
        (await served.arrived()).end("retry", "", 0.01)
        assert (await served.publishing.hears(Publish)).routing_key == "amq.gen-q"
        assert served.publishing.heard(commands.Queue.Declare) == []


async def test_enough_tries(broker: ScriptedBroker) -> None:
    """After ``max_deliveries`` it is a dead letter with the last reason."""
    async with serving(broker, max_deliveries=3) as served:
        served.consuming.deliver(EVENT, headers={"x-dm-attempts": 2})
        (await served.arrived()).end("retry", "ValueError: no")
        published = await served.publishing.hears(Publish)
        served.publishing.say(Ack(1), COPIES)
        await served.consuming.hears(Ack)
        headers: Any = served.copies()[0].headers
    assert published.routing_key == "amq.gen-q.dead"
    assert (headers["x-dm-attempts"], headers["x-dm-reason"]) == (3, "ValueError: no")


@pytest.mark.parametrize("outcome", ["dead", "retry"])
async def test_dead_letters_of_the_broker(broker: ScriptedBroker, outcome: str) -> None:
    """Where the broker has its own, or nobody keeps them, they are rejected."""
    async with serving(broker, max_deliveries=1, dead_letter_queue="") as served:
        served.consuming.deliver(EVENT)
        (await served.arrived()).end(outcome, "no")
        assert not (await served.consuming.hears(Reject)).requeue
        assert served.publishing.heard(Publish) == []


@pytest.mark.parametrize("code", [406, 403])
async def test_queue_of_dead_letters_that_is_refused(
    broker: ScriptedBroker, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that exists is used as it is; else the message is given back, in time."""
    monkeypatch.setattr(failures, "REST", 0.01)
    async with serving(broker) as served:
        close = commands.Channel.Close(code, "NO", 50, 10)
        broker.answers[commands.Queue.Declare] = close
        served.consuming.deliver(EVENT)
        (await served.arrived()).end("dead", "bad")
        if code == 406:
            await served.publishing.hears(Publish)
        else:
            assert (await served.consuming.hears(Nack)).requeue


async def test_copy_that_the_broker_does_not_take(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message is acknowledged only when its copy is safe."""
    monkeypatch.setattr(failures, "REST", 0.01)
    async with serving(broker) as served:
        for tag, outcome in ((1, "dead"), (2, "retry")):
            served.consuming.deliver(EVENT, tag=tag)
            (await served.arrived(tag)).end(outcome, "bad")
            await served.publishing.hears(Publish, tag)
            served.publishing.say(Nack(tag), COPIES)
            assert (await served.consuming.hears(Nack, tag)).requeue
        assert served.consuming.heard(Ack) == []


async def test_channel_of_copies_ends(broker: ScriptedBroker) -> None:
    """It is opened anew for the next one."""
    async with serving(broker) as served:
        for tag in (1, 2):
            served.consuming.deliver(EVENT, tag=tag)
            (await served.arrived(tag)).end("retry")
            await served.publishing.hears(Publish, tag)
            served.publishing.say(Ack(1), COPIES)
            await served.consuming.hears(Ack, tag)
            served.publishing.say(commands.Channel.Close(541, "X", 0, 0), COPIES)
            await served.publishing.hears(commands.Channel.CloseOk, tag)
        assert not served.intake.closed.done()


# --- streams ---


async def test_stream(broker: ScriptedBroker) -> None:
    """A server of ours tells a client of ours where its stream can be called off."""
    async with serving(broker) as served:
        served.consuming.deliver(
            REQUEST, reply_to=REPLY_TO, correlation_id="c1", headers={"dm-peer": "1"}
        )
        delivery = await served.arrived()
        delivery.answer(1, last=False)
        delivery.answer(2)
        await served.publishing.hears(Header, 2)
        first, second = served.publishing.heard(Header)
    assert first.properties.reply_to == "amq.rabbitmq.reply-to"
    assert second.properties.reply_to is None


async def test_stream_is_called_off(broker: ScriptedBroker) -> None:
    """Its reader's word ends it, and no other's."""
    async with serving(broker) as served:
        for tag in (1, 2):
            served.consuming.deliver(
                REQUEST, tag=tag, reply_to=REPLY_TO, correlation_id=f"c{tag}"
            )
        await served.arrived(2)
        for id_ in ("unknown", "c2"):
            served.publishing.deliver(b"{}", channel=REPLIES, correlation_id=id_)
        await eventually(lambda: served.deliveries[1].outcome == "ack")
        assert served.deliveries[0].outcome is None
        await served.consuming.hears(Ack)


async def test_stream_whose_server_stops(broker: ScriptedBroker) -> None:
    """Nobody else may begin it again: it ends with an error."""
    async with serving(broker) as served:
        served.consuming.deliver(REQUEST, reply_to=REPLY_TO, correlation_id="c1")
        delivery = await served.arrived()
        delivery.answer(1, last=False)
        delivery.end("retry", "cancelled")
        await served.consuming.hears(Ack)
        await served.publishing.hears(body.ContentBody, 2)
        texts = [one.value for one in served.publishing.heard(body.ContentBody)]
    assert b"The server has stopped" in texts[1]


async def test_callers_that_are_gone(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes long is looked after: whoever asked must still be there."""
    monkeypatch.setattr(callers, "PAUSE", 0.01)
    async with serving(broker) as served:
        served.consuming.deliver(REQUEST, tag=1, reply_to=REPLY_TO)
        served.consuming.deliver(REQUEST, tag=2, reply_to=REPLY_TO)
        served.consuming.deliver(EVENT, tag=3)
        await served.arrived(3)
        asked = await served.publishing.hears(commands.Queue.Declare)
        assert (asked.queue, asked.passive) == (REPLY_TO, True)
        await served.publishing.hears(commands.Queue.Declare, 2)
        locked = commands.Channel.Close(405, "RESOURCE_LOCKED", 50, 10)
        broker.answers[commands.Queue.Declare] = locked
        count = len(served.publishing.heard(commands.Queue.Declare))
        await served.publishing.hears(commands.Queue.Declare, count + 2)
        assert served.deliveries[0].outcome is None
        gone = commands.Channel.Close(404, "NOT_FOUND", 50, 10)
        broker.answers[commands.Queue.Declare] = gone
        await eventually(lambda: served.deliveries[1].outcome == "ack")
        assert [one.outcome for one in served.deliveries] == ["ack", "ack", None]


# --- a broker that takes nothing, or goes ---


async def test_blocked(broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream waits while the broker takes nothing; answers that are too many go."""
    async with serving(broker) as served:
        served.publishing.say(commands.Connection.Blocked("low on memory"))
        await eventually(lambda: served.statuses == [Status.BLOCKED])
        served.consuming.deliver(REQUEST, reply_to=REPLY_TO, correlation_id="c1")
        delivery = await served.arrived()
        waiting = asyncio.ensure_future(delivery.answer(1, last=False))
        await asyncio.sleep(0)
        assert not waiting.done()
        monkeypatch.setattr(intake, "UNSENT", -1)
        assert delivery.answer(2) is None
        assert served.intake.dropped == 1
        await served.consuming.hears(Ack)  # the queue can be emptied all the same
        served.publishing.say(commands.Connection.Unblocked())
        await waiting
        assert served.statuses == [Status.BLOCKED, Status.UNBLOCKED]


@pytest.mark.parametrize("which", ["consuming", "publishing"])
async def test_connection_ends(broker: ScriptedBroker, which: str) -> None:
    """Either connection's end is the intake's; requests are worked on no more."""
    async with serving(broker) as served:
        served.consuming.deliver(REQUEST, tag=1, reply_to=REPLY_TO)
        served.consuming.deliver(EVENT, tag=2)
        request, event = [await served.arrived(n) for n in (1, 2)]
        close = commands.Connection.Close(320, "CONNECTION_FORCED", 0, 0)
        getattr(served, which).say(close)
        assert "CONNECTION_FORCED" in str(await served.intake.closed)
    assert (request.outcome, event.outcome) == ("ack", None)
    event.end("dead", "too late")
    request.respond(Reply("a1", b"1"))


async def test_answer_to_nobody(broker: ScriptedBroker) -> None:
    """An answer after the end of the connection is dropped."""
    async with serving(broker) as served:
        served.consuming.deliver(REQUEST, reply_to=REPLY_TO)
        delivery = await served.arrived()
        served.publishing.say(commands.Connection.Close(320, "X", 0, 0))
        await served.intake.closed
        assert delivery.answer(1) is None


async def test_channel_ends(broker: ScriptedBroker) -> None:
    """So is the end of the channel that consumes, for whatever reason."""
    async with serving(broker) as served:
        text = "PRECONDITION_FAILED - delivery acknowledgement timed out"
        served.consuming.say(commands.Channel.Close(406, text, 0, 0), 1)
        reason = await served.intake.closed
    assert isinstance(reason, ConnectionLost)
    assert "timed out" in str(reason)


async def test_queue_is_deleted(broker: ScriptedBroker) -> None:
    """A consumer that the broker ends is never taken for one that listens."""
    async with serving(broker) as served:
        served.consuming.say(commands.Basic.Cancel("tag", nowait=True), 1)
        assert "'amq.gen-q' was deleted" in str(await served.intake.closed)


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
        served.intake.consuming.resume_reading()
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
        served.intake.consuming.resume_reading()
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
    monkeypatch.setattr(intake, "LINGER", 0.02)
    monkeypatch.setattr(connection, "LINGER", 0.02)
    for kind in (commands.Channel.Close, commands.Connection.Close):
        broker.answers[kind] = None
    async with serving(broker) as served:
        pass
    assert served.intake.closed.done()
