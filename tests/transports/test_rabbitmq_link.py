"""RabbitMQ's client half, by a broker that says what the test tells it to."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pamqp import commands, header, heartbeat

from django_microservices.exceptions import (
    ConnectionLost,
    MessageTooLarge,
    NoHandler,
    NotConnected,
    TransportRefused,
)
from django_microservices.transports.rabbitmq import RabbitMQTransport, connection
from django_microservices.transports.rabbitmq.link import Link
from django_microservices.wire.messages import UNSET, Message, Reply
from django_microservices.wire.patterns import Pattern
from django_microservices.wire.status import Status

from .scripted_broker import ScriptedBroker, eventually

Publish, Header = commands.Basic.Publish, header.ContentHeader
REQUESTS, EVENTS = 1, 2  # the channels, in the order in which they are opened
BLOCKED = commands.Connection.Blocked("low on memory")
UNBLOCKED = commands.Connection.Unblocked()


@pytest.fixture
async def broker(free_port: Callable[[], int]) -> AsyncIterator[ScriptedBroker]:
    """Give a broker that listens."""
    async with ScriptedBroker(free_port()).running() as broker:
        yield broker


class Calls:
    """A link with what it received, and how its status changed."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.statuses: list[Status] = []
        self.link: Link = None  # type: ignore[assignment]

    def request(self, id_: str = "a1", **more: Any) -> Any:
        """Publish a request."""
        return self.link.publish(Message(Pattern.of("sum"), b"[1]", id_, **more))

    def event(self, pattern: str = "created", **more: Any) -> Any:
        """Publish an event."""
        return self.link.publish(Message(Pattern.of(pattern), b"1", **more))

    def confirmed(self, **more: Any) -> "asyncio.Task[None]":
        """Publish an event, and wait for its confirm."""
        return asyncio.ensure_future(self.event(**more))


@asynccontextmanager
async def calling(broker: ScriptedBroker, **options: Any) -> AsyncIterator[Calls]:
    """Connect to the broker inside the block."""
    calls = Calls()
    transport = RabbitMQTransport(url=broker.url, **options)
    async with transport.connect(calls.replies.append, calls.statuses.append) as link:
        calls.link = link
        yield calls


# --- opening ---


async def test_what_is_said_first(broker: ScriptedBroker) -> None:
    """A client declares its queue as Nest does, and consumes before it publishes."""
    async with calling(broker, queue="orders") as calls:
        client = await broker.client()
        declared = await client.hears(commands.Queue.Declare)
        consumed = await client.hears(commands.Basic.Consume)
        calls.request()
        published = await client.hears(Publish)
    assert (declared.queue, declared.durable, declared.arguments) == (
        "orders",
        True,
        {},
    )
    assert (declared.exclusive, declared.auto_delete) == (False, False)
    assert (consumed.queue, consumed.no_ack) == ("amq.rabbitmq.reply-to", True)
    channels = {channel for channel, value in client.told if value is consumed}
    assert channels == {c for c, value in client.told if value is published}
    assert calls.link.driver is calls.link.connection


async def test_exchange_of_ones_own(broker: ScriptedBroker) -> None:
    """An exchange that is named is declared, durable; the broker's own is not."""
    async with calling(broker, exchange="shop", exchange_type="fanout"):
        client = await broker.client()
        declared = await client.hears(commands.Exchange.Declare)
    assert (declared.exchange, declared.exchange_type) == ("shop", "fanout")
    assert declared.durable
    async with calling(broker):
        other = await broker.client(1)
        await other.hears(commands.Confirm.Select)
    assert other.heard(commands.Exchange.Declare) == []


async def test_reply_queue_of_ones_own(broker: ScriptedBroker) -> None:
    """Answers may come to a queue that the broker names for us."""
    async with calling(broker, reply_queue="") as calls:
        client = await broker.client()
        declared = await client.hears(commands.Queue.Declare)
        calls.request()
        sent = await client.hears(Header)
    assert (declared.queue, declared.exclusive) == ("", True)
    assert sent.properties.reply_to == "amq.gen-q"


async def test_client_without_destination(broker: ScriptedBroker) -> None:
    """Without exchange and queue a client could reach nobody."""
    with pytest.raises(TransportRefused, match="needs the name of a queue"):
        async with calling(broker, exchange=""):
            pass


async def test_refused_credentials(broker: ScriptedBroker) -> None:
    """What the broker refuses for good says its words."""
    refusal = commands.Connection.Close(403, "ACCESS_REFUSED - who?", 0, 0)
    broker.answers[commands.Connection.StartOk] = refusal
    with pytest.raises(TransportRefused, match=r"127\.0\.0\.1.*ACCESS_REFUSED - who"):
        async with calling(broker):
            pass


async def test_refused_queue(broker: ScriptedBroker) -> None:
    """Unequal arguments are refused for good."""
    refusal = commands.Channel.Close(406, "PRECONDITION_FAILED - inequivalent", 50, 10)
    broker.answers[commands.Queue.Declare] = refusal
    with pytest.raises(TransportRefused, match="inequivalent"):
        async with calling(broker, queue="orders"):
            pass


@pytest.mark.parametrize(
    ("first", "text"),
    [
        (b"AMQP\0\1\0\0", "is this a broker"),
        (commands.Channel.OpenOk(), "middle of the handshake"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is this a broker"),
    ],
)
async def test_no_broker(broker: ScriptedBroker, first: Any, text: str) -> None:
    """Another protocol on the port is said to be one."""
    broker.first = first
    with pytest.raises(NotConnected, match=text):
        async with calling(broker):
            pass


async def test_mute_broker(broker: ScriptedBroker) -> None:
    """A broker that says nothing is given up in time."""
    broker.first = None
    with pytest.raises(NotConnected, match="did not answer in time"):
        async with calling(broker, connect_timeout=0.05):
            pass


async def test_broker_that_hangs_up(broker: ScriptedBroker) -> None:
    """A broker that goes in the middle of the handshake is no refusal."""
    broker.answers[commands.Connection.StartOk] = None

    async def hang_up() -> None:
        (await broker.client()).writer.close()

    task = asyncio.ensure_future(hang_up())
    with pytest.raises(NotConnected, match="middle of the handshake"):
        async with calling(broker):
            pass
    await task


async def test_nobody_listens(free_port: Callable[[], int]) -> None:
    """A port that nobody listens on is no refusal: somebody may come."""
    with pytest.raises(NotConnected, match="Connection refused"):
        async with calling(ScriptedBroker(free_port())):
            pass


async def test_unknown_host() -> None:
    """Nor is a name that nobody knows."""
    transport = RabbitMQTransport(url="amqp://no-such-host.invalid")
    with pytest.raises(NotConnected, match=r"no-such-host\.invalid"):
        async with transport.connect(print, print):
            pass


async def test_urls_are_tried_in_order(
    broker: ScriptedBroker, free_port: Callable[[], int]
) -> None:
    """The first broker that lets us in is taken; if none does, all are named."""
    dead = f"amqp://127.0.0.1:{free_port()}"
    transport = RabbitMQTransport(urls=[dead, broker.url])
    async with transport.connect(print, print) as link:
        assert str(link.driver.address) == broker.url
    transport = RabbitMQTransport(urls=[dead, dead])
    with pytest.raises(NotConnected, match="refused; amqp"):
        async with transport.connect(print, print):
            pass


# --- the connection ---


@pytest.fixture
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look after the broker more often."""
    monkeypatch.setattr(connection, "CHECK", 0.02)


@pytest.mark.usefixtures("_hasty")
async def test_heartbeats(broker: ScriptedBroker) -> None:
    """We say that we live, and a broker that does not is gone."""
    broker.answers[commands.Connection.StartOk] = commands.Connection.Tune(0, 0, 1)
    async with calling(broker) as calls:
        client = await broker.client()
        await client.hears(heartbeat.Heartbeat)
        async with asyncio.timeout(10):
            reason = await calls.link.closed
    assert isinstance(reason, ConnectionLost)
    assert "silent for" in str(reason)


@pytest.mark.usefixtures("_hasty")
async def test_heartbeats_of_the_broker(broker: ScriptedBroker) -> None:
    """A broker that beats is alive, also while we do not read."""
    broker.answers[commands.Connection.StartOk] = commands.Connection.Tune(0, 0, 1)
    async with calling(broker) as calls:
        client = await broker.client()
        for number in range(1, 4):
            await client.hears(heartbeat.Heartbeat, number)
            client.say(heartbeat.Heartbeat())
        calls.link.connection.pause_reading()
        count = len(client.heard(heartbeat.Heartbeat))
        await client.hears(heartbeat.Heartbeat, count + 4)
        assert not calls.link.closed.done()
        calls.link.connection.resume_reading()


async def test_no_heartbeats(broker: ScriptedBroker) -> None:
    """Without heartbeats on either side nobody is missed."""
    broker.answers[commands.Connection.StartOk] = commands.Connection.Tune(0, 0, 0)
    options: Any = {"socket_options": {"heartbeat_interval_in_seconds": 0}}
    async with calling(broker, **options) as calls:
        calls.link.connection._watch()
        assert not calls.link.closed.done()


async def test_broker_closes(broker: ScriptedBroker) -> None:
    """The code and the text of a close are the reason of the end."""
    async with calling(broker) as calls:
        client = await broker.client()
        confirmed = calls.confirmed()
        await client.hears(Publish)
        client.say(commands.Connection.Close(320, "CONNECTION_FORCED - bye", 0, 0))
        reason: Any = await calls.link.closed
        assert (reason.code, str(reason)) == (320, "CONNECTION_FORCED - bye")
        await client.hears(commands.Connection.CloseOk)
        with pytest.raises(ConnectionLost, match="CONNECTION_FORCED"):
            await confirmed
        with pytest.raises(ConnectionLost, match="CONNECTION_FORCED"):
            calls.event()


async def test_broker_sends_garbage(broker: ScriptedBroker) -> None:
    """What is no AMQP ends the connection, and the broker is told why."""
    async with calling(broker) as calls:
        client = await broker.client()
        client.writer.write(b"\x01\0\0\xff\xff\xff\xff.")
        reason = await calls.link.closed
        assert "a frame of" in str(reason)
        close = await client.hears(commands.Connection.Close)
    assert close.reply_code == 501


async def test_leaving_says_goodbye(broker: ScriptedBroker) -> None:
    """Leaving the block closes the connection in good order."""
    async with calling(broker):
        client = await broker.client()
    await client.hears(commands.Connection.Close)
    await eventually(lambda: client.hung_up)


async def test_leaving_a_broker_that_hangs(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leaving never waits for a broker that does not answer."""
    monkeypatch.setattr(connection, "LINGER", 0.02)
    broker.answers[commands.Connection.Close] = None
    async with calling(broker) as calls:
        pass
    assert calls.link.connection.lost
    assert "Connection to amqp://" in repr(calls.link.connection)


# --- requests ---


async def test_answers(broker: ScriptedBroker) -> None:
    """The correlation id alone says whose an answer is; strangers are counted."""
    async with calling(broker) as calls:
        client = await broker.client()
        calls.request("a1")
        await client.hears(Publish)
        say = client.deliver
        say(b'{"response":6,"isDisposed":true}', correlation_id="a1")
        say(b"{}")
        say(b"no json", correlation_id="a1")
        say(b"[" * 200, correlation_id="a1")
        say(b'"' + b"x" * (1024 * 1024) + b'"', correlation_id="a1")
        await eventually(lambda: len(calls.replies) == 4)
    first, *others = calls.replies
    assert (first.id, bytes(first.data or b""), first.last) == ("a1", b"6", True)
    assert {(reply.id, reply.data) for reply in others} == {("a1", b"(not JSON)")}
    assert calls.link.ignored == 1


async def test_request_that_nobody_takes(broker: ScriptedBroker) -> None:
    """A request that comes back ends at once: nobody listens."""
    async with calling(broker) as calls:
        client = await broker.client()
        calls.request("a1")
        published = await client.hears(Publish)
        assert published.mandatory
        method = commands.Basic.Return(312, "NO_ROUTE", "amq.topic", "sum")
        client.bring(REQUESTS, method, b"{}", correlation_id="a1")
        client.bring(REQUESTS, method, b"{}")
        await eventually(lambda: calls.replies)
    assert (calls.replies[0].id, calls.replies[0].missing) == ("a1", True)


async def test_requests_of_an_exchange_that_is_gone(broker: ScriptedBroker) -> None:
    """They end so, and the channel is opened anew."""
    async with calling(broker, exchange="shop") as calls:
        client = await broker.client()
        calls.request("a1")
        await client.hears(Publish)
        client.say(commands.Channel.Close(404, "NOT_FOUND - no exchange", 60, 40), 1)
        await eventually(lambda: calls.replies)
        assert calls.replies[0].missing
        later = asyncio.ensure_future(calls.request("a2"))
        await client.hears(Publish, 2)
        await later
        client.deliver(b'{"response":1,"isDisposed":true}', correlation_id="a2")
        await eventually(lambda: len(calls.replies) == 2)
        assert len(client.heard(commands.Exchange.Declare)) == 2
    assert not calls.link.connection.opened.exception()


async def test_channel_of_requests_ends(broker: ScriptedBroker) -> None:
    """Where their answers cannot come any more, the link is lost."""
    async with calling(broker) as calls:
        client = await broker.client()
        client.say(commands.Channel.Close(406, "PRECONDITION_FAILED", 60, 40), 1)
        assert "PRECONDITION_FAILED" in str(await calls.link.closed)


async def test_queue_of_replies_ends(broker: ScriptedBroker) -> None:
    """The same, where the broker ends their consumer."""
    async with calling(broker) as calls:
        client = await broker.client()
        client.say(commands.Basic.Cancel("tag", nowait=True), REQUESTS)
        assert "queue of replies" in str(await calls.link.closed)


async def test_channel_that_cannot_be_reopened(broker: ScriptedBroker) -> None:
    """A link whose channel does not come back is lost."""
    async with calling(broker, exchange="shop") as calls:
        client = await broker.client()
        refusal = commands.Channel.Close(403, "ACCESS_REFUSED", 40, 10)
        broker.answers[commands.Exchange.Declare] = refusal
        client.say(commands.Channel.Close(404, "NOT_FOUND", 60, 40), REQUESTS)
        assert "ACCESS_REFUSED" in str(await calls.link.closed)


async def test_reader_that_leaves_tells_the_server(broker: ScriptedBroker) -> None:
    """A stream of a server of ours is called off where its items say how."""
    async with calling(broker) as calls:
        client = await broker.client()
        address = "amq.rabbitmq.reply-to.abc"
        for id_, reply_to in (("a1", address), ("a2", "orders"), ("a3", address)):
            calls.request(id_)
            client.deliver(b'{"response":1}', correlation_id=id_, reply_to=reply_to)
        await eventually(lambda: len(calls.replies) == 3)
        calls.link.forget("a3", answered=True)
        calls.link.forget("a2", answered=False)
        calls.link.forget("a1", answered=False)
        sent = await client.hears(Publish, 4)
        assert (sent.exchange, sent.routing_key) == ("", address)
        properties = (await client.hears(Header, 4)).properties
        assert properties.correlation_id == "a1"
    assert calls.link.asked == {}


async def test_message_over_the_limit(broker: ScriptedBroker) -> None:
    """What is too large is not sent."""
    async with calling(broker, max_message_size=20) as calls:
        with pytest.raises(MessageTooLarge, match="max_message_size"):
            calls.request()


async def test_pattern_that_cannot_travel(broker: ScriptedBroker) -> None:
    """Wildcards and control characters are refused, also on the way to a queue."""
    async with calling(broker) as calls, calling(broker, queue="orders") as direct:
        with pytest.raises(ValueError, match="control characters"):
            calls.event("a\nb")
        for one in (calls, direct):
            with pytest.raises(ValueError, match="wildcards"):
                one.event("a.*")


async def test_no_payload(broker: ScriptedBroker) -> None:
    """JavaScript's undefined is no member at all."""
    async with calling(broker) as calls:
        client = await broker.client()
        calls.link.publish(Message(Pattern.of("sum"), UNSET, "a1"))
        assert (await client.hears(Header)).body_size == len(
            b'{"pattern":"sum","id":"a1"}'
        )


# --- events ---


async def test_confirms(broker: ScriptedBroker) -> None:
    """An event is done when the broker says so, in whatever order it does."""
    async with calling(broker) as calls:
        client = await broker.client()
        tasks = [calls.confirmed() for _ in range(6)]
        await client.hears(Publish, 6)
        client.say(commands.Basic.Ack(2), EVENTS)
        await tasks[1]
        client.say(commands.Basic.Ack(1), EVENTS)
        await tasks[0]
        client.say(commands.Basic.Ack(4, multiple=True), EVENTS)
        await asyncio.gather(tasks[2], tasks[3])
        assert not tasks[4].done()
        client.say(commands.Basic.Nack(5), EVENTS)
        with pytest.raises(ConnectionLost, match="could not take"):
            await tasks[4]
        client.say(commands.Basic.Ack(0, multiple=True), EVENTS)
        await tasks[5]
        client.say(commands.Basic.Ack(99), EVENTS)  # of nothing
        confirms = calls.link.events.confirms
        assert confirms is not None
        assert len(confirms) == 0


async def test_event_that_nobody_waits_for(broker: ScriptedBroker) -> None:
    """A confirm whose caller gave up disturbs nobody."""
    async with calling(broker) as calls:
        client = await broker.client()
        given_up, other = calls.confirmed(), calls.confirmed()
        await client.hears(Publish, 2)
        given_up.cancel()
        await asyncio.wait((given_up,))
        client.say(commands.Basic.Ack(2, multiple=True), EVENTS)
        await other


async def test_returned_event(broker: ScriptedBroker) -> None:
    """An event to a queue that is not there is an error; its twin may have arrived."""
    async with calling(broker, queue="orders", no_assert=True) as calls:
        client = await broker.client()
        tasks = [calls.confirmed(options={"message_id": "m1"}) for _ in range(3)]
        await client.hears(Publish, 3)
        method = commands.Basic.Return(312, "NO_ROUTE", "", "orders")
        for _ in range(2):
            client.bring(EVENTS, method, b"{}", message_id="m1")
        client.say(commands.Basic.Ack(3, multiple=True), EVENTS)
        await asyncio.wait(tasks)
        errors = [task.exception() for task in tasks]
    assert [type(error) for error in errors] == [NoHandler, NoHandler, type(None)]
    assert "NO_ROUTE: no queue takes what goes to 'orders'" in str(errors[0])


async def test_mandatory_for_one_event(broker: ScriptedBroker) -> None:
    """An option of the message decides before the client's."""
    async with calling(broker) as calls:
        client = await broker.client()
        calls.event(options={"mandatory": True})
        assert (await client.hears(Publish)).mandatory
        calls.event()
        assert not (await client.hears(Publish, 2)).mandatory


async def test_exchange_that_is_gone(broker: ScriptedBroker) -> None:
    """What was on its way is an error with the broker's words; then it goes on."""
    async with calling(broker, exchange="shop") as calls:
        client = await broker.client()
        tasks = [calls.confirmed(), calls.confirmed()]
        await client.hears(Publish, 2)
        client.say(commands.Channel.Close(404, "NOT_FOUND - shop", 60, 40), EVENTS)
        for task in tasks:
            with pytest.raises(NoHandler, match="NOT_FOUND - shop"):
                await task
        later = calls.confirmed()
        await client.hears(Publish, 3)
        client.say(commands.Basic.Ack(1), EVENTS)
        await later
    assert calls.link.connection.opened.done()


async def test_event_without_confirms(broker: ScriptedBroker) -> None:
    """With the option off nothing is awaited, and all goes over one channel."""
    async with calling(broker, confirms=False) as calls:
        client = await broker.client()
        assert calls.event() is None
        await client.hears(Publish)
        assert client.heard(commands.Confirm.Select) == []
        assert calls.link.events is calls.link.requests


async def test_delayed_event(broker: ScriptedBroker) -> None:
    """An event rests in a queue whose messages expire to where it was to go."""
    async with calling(broker, confirms=False) as calls:
        client = await broker.client()
        await calls.event("orders.new", options={"delay": 0.7})
        exchange = await client.hears(commands.Exchange.Declare)
        queue = await client.hears(commands.Queue.Declare)
        published = await client.hears(Publish)
        await calls.event("orders.new", options={"delay": 0.7})
    name = "delay.1000.amq.topic"
    assert (exchange.exchange, exchange.exchange_type) == (name, "fanout")
    assert queue.queue == name
    assert queue.arguments["x-message-ttl"] == 1000
    assert queue.arguments["x-dead-letter-exchange"] == "amq.topic"
    assert "x-dead-letter-routing-key" not in queue.arguments
    assert (published.exchange, published.routing_key) == (name, "orders.new")
    assert len(client.heard(commands.Queue.Declare)) == 1


async def test_delay_that_is_refused(broker: ScriptedBroker) -> None:
    """Where nothing may be declared the caller gets the broker's words."""
    async with calling(broker) as calls:
        refusal = commands.Channel.Close(403, "ACCESS_REFUSED", 50, 10)
        broker.answers[commands.Queue.Declare] = refusal
        with pytest.raises(TransportRefused, match="ACCESS_REFUSED"):
            await calls.event(options={"delay": 1})
        with pytest.raises(ValueError, match="delay"):
            await calls.event(options={"delay": -1})


# --- a broker that takes nothing ---


async def test_blocked(broker: ScriptedBroker) -> None:
    """While the broker is short of memory publishers wait, and then go on."""
    async with calling(broker) as calls:
        client = await broker.client()
        client.say(BLOCKED)
        await eventually(lambda: calls.statuses == [Status.BLOCKED])
        event = calls.confirmed()
        request = asyncio.ensure_future(calls.request("a1"))
        forgotten = asyncio.ensure_future(calls.request("a2"))
        given_up = calls.confirmed()
        await asyncio.sleep(0)
        calls.link.forget("a2", answered=False)
        given_up.cancel()
        assert client.heard(Publish) == []
        client.say(UNBLOCKED)
        await client.hears(Publish, 2)
        client.say(commands.Basic.Ack(1), EVENTS)
        await asyncio.gather(event, request, forgotten)
        assert calls.statuses == [Status.BLOCKED, Status.UNBLOCKED]
    assert len(client.heard(Publish)) == 2


async def test_lost_while_blocked(broker: ScriptedBroker) -> None:
    """Who waits gets the reason when the broker goes."""
    async with calling(broker) as calls:
        client = await broker.client()
        client.say(BLOCKED)
        await eventually(lambda: calls.statuses)
        waiting = calls.confirmed()
        await asyncio.sleep(0)
        client.say(commands.Connection.Close(320, "CONNECTION_FORCED", 0, 0))
        with pytest.raises(ConnectionLost, match="CONNECTION_FORCED"):
            await waiting


async def test_flow(broker: ScriptedBroker) -> None:
    """A channel that the broker holds back waits, and the broker is answered."""
    async with calling(broker) as calls:
        client = await broker.client()
        client.say(commands.Channel.Flow(active=False), EVENTS)
        answer = await client.hears(commands.Channel.FlowOk)
        assert not answer.active
        waiting = calls.confirmed()
        await asyncio.sleep(0)
        assert client.heard(Publish) == []
        client.say(commands.Channel.Flow(active=True), EVENTS)
        await client.hears(Publish)
        client.say(commands.Basic.Ack(1), EVENTS)
        await waiting


async def test_broker_that_does_not_read(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once enough waits to be read, publishers wait too: memory stays flat."""
    monkeypatch.setattr(connection, "FULL", 1024 * 1024)
    async with calling(broker, max_message_size=4 * 1024 * 1024) as calls:
        client = await broker.client()
        await client.hears(commands.Confirm.Select)
        broker.reading.clear()
        big = Message(Pattern.of("created"), b'"' + b"x" * 2_000_000 + b'"')
        tasks = []
        while calls.link.connection.gate.is_open:
            waiting = calls.link.publish(big)
            assert waiting is not None
            tasks.append(asyncio.ensure_future(waiting))
            await asyncio.sleep(0)
        unsent = calls.link.connection.unsent
        tasks.append(asyncio.ensure_future(calls.event()))
        await asyncio.sleep(0)
        assert calls.link.connection.unsent == unsent
        broker.reading.set()
        await client.hears(Publish, len(tasks))
        client.say(commands.Basic.Ack(len(tasks), multiple=True), EVENTS)
        await asyncio.gather(*tasks)
