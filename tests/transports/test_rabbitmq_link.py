"""RabbitMQ's client half, by a broker that says what the test tells it to."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from pamqp import commands

from django_microservices.exceptions import (
    ConnectionLost,
    MessageTooLarge,
    MicroserviceError,
    NoHandler,
    TransportRefused,
)
from django_microservices.transports.rabbitmq import connection
from django_microservices.transports.rabbitmq import link as link_module
from django_microservices.wire.messages import UNSET, Message
from django_microservices.wire.patterns import Pattern
from django_microservices.wire.status import Status
from django_microservices.wire.unreadable import TOO_DEEP

from .rabbitmq_ends import (
    BLOCKED,
    EVENTS,
    REPLY_TO,
    REQUESTS,
    UNBLOCKED,
    Header,
    Publish,
    calling,
)
from .scripted_broker import ScriptedBroker, eventually


@pytest.fixture
async def broker(free_port: Callable[[], int]) -> AsyncIterator[ScriptedBroker]:
    """Give a broker that listens."""
    async with ScriptedBroker(free_port()).running() as broker:
        yield broker


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
    first, second, deep, large = calls.replies
    assert (first.id, bytes(first.data or b""), first.last) == ("a1", b"6", True)
    assert {second.data, large.data} == {b"(not JSON)"}
    assert deep.data == TOO_DEEP
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
        if (waiting := calls.request("a2")) is not None:
            await waiting  # the channel is not there yet
        await client.hears(Publish, 2)
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
        for id_, reply_to in (("a1", REPLY_TO), ("a2", "orders"), ("a3", REPLY_TO)):
            calls.request(id_)
            client.deliver(b'{"response":1}', correlation_id=id_, reply_to=reply_to)
        await eventually(lambda: len(calls.replies) == 3)
        calls.link.forget("a3", answered=True)
        calls.link.forget("a2", answered=False)
        calls.link.forget("a1", answered=False)
        sent = await client.hears(Publish, 4)
        assert (sent.exchange, sent.routing_key) == ("", REPLY_TO)
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


async def test_many_patterns(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept of them has a bound."""
    monkeypatch.setattr(link_module, "_MOST_KNOWN", 2)
    async with calling(broker) as calls:
        client = await broker.client()
        names = ["a", "b", "c", "a"]
        for name in names:
            calls.event(name)
        await client.hears(Publish, 4)
    assert [one.routing_key for one in client.heard(Publish)] == names


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
        with pytest.raises(MicroserviceError, match="a queue is full") as caught:
            await tasks[4]
        assert type(caught.value) is MicroserviceError
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


async def test_one_refusal_is_nobody_elses(broker: ScriptedBroker) -> None:
    """The broker ends the channel, and does not say for which event."""
    async with calling(broker) as calls:
        client = await broker.client()
        refusal = commands.Channel.Close(403, "ACCESS_REFUSED", 60, 40)
        tasks = [calls.confirmed(), calls.confirmed()]
        await client.hears(Publish, 2)
        client.say(refusal, EVENTS)
        for task in tasks:
            with pytest.raises(ConnectionLost, match="ACCESS_REFUSED"):
                await task
        alone = calls.confirmed()
        await client.hears(Publish, 3)
        client.say(refusal, EVENTS)
        with pytest.raises(TransportRefused, match="ACCESS_REFUSED"):
            await alone


async def test_mandatory_events_have_names(broker: ScriptedBroker) -> None:
    """By them one that comes back is told from its neighbours, as Nest's have none."""
    async with calling(broker, nest_delivery=True, mandatory=True) as calls:
        client = await broker.client()
        tasks = [calls.confirmed(), calls.confirmed()]
        await client.hears(Header, 2)
        names = [one.properties.message_id for one in client.heard(Header)]
        method = commands.Basic.Return(312, "NO_ROUTE", "amq.topic", "created")
        client.bring(EVENTS, method, b"{}", message_id=names[1])
        client.say(commands.Basic.Ack(2, multiple=True), EVENTS)
        await tasks[0]
        with pytest.raises(NoHandler):
            await tasks[1]


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
        with pytest.raises(ValueError, match="exclude each other"):
            await calls.event(options={"delay": 10, "expiration": 1})
        with pytest.raises(ValueError, match=r"options\['delay'\]: at most 86400"):
            await calls.event(options={"delay": 86_401})


async def test_place_of_delays_that_is_gone(broker: ScriptedBroker) -> None:
    """The next event declares it anew."""
    async with calling(broker) as calls:
        client = await broker.client()
        waiting = calls.confirmed(options={"delay": 1})
        await client.hears(Publish)
        client.say(commands.Channel.Close(404, "NOT_FOUND", 60, 40), EVENTS)
        with pytest.raises(NoHandler, match="NOT_FOUND"):
            await waiting
        waiting = calls.confirmed(options={"delay": 1})
        await client.hears(commands.Exchange.Declare, 2)
        await client.hears(Publish, 2)
        client.say(commands.Basic.Ack(1), EVENTS)
        await waiting


async def test_places_of_delays_have_names_of_their_own(broker: ScriptedBroker) -> None:
    """No exchange shares that of the queues, whatever it is named."""
    async with (
        calling(broker, confirms=False, exchange="queues") as calls,
        calling(broker, confirms=False, queue="orders") as direct,
    ):
        for one in (calls, direct):
            await one.event(options={"delay": 1})
        names = [
            (await (await broker.client(n)).hears(Publish)).exchange for n in (0, 1)
        ]
    assert names == ["delay.1000.queues", "delay.1000."]


async def test_delay_while_the_broker_takes_nothing(broker: ScriptedBroker) -> None:
    """What it rests in is there already, and the event waits all the same."""
    async with calling(broker) as calls:
        client = await broker.client()
        broker.answers[commands.Queue.Bind] = None
        waiting = calls.confirmed(options={"delay": 1})
        await client.hears(commands.Queue.Bind)
        client.say(BLOCKED)
        await eventually(lambda: calls.statuses)
        client.say(commands.Queue.BindOk(), EVENTS + 1)
        await eventually(lambda: calls.link.connection.gate._waiting)
        assert client.heard(Publish) == []
        client.say(UNBLOCKED)
        await client.hears(Publish)
        client.say(commands.Basic.Ack(1), EVENTS)
        await waiting


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
