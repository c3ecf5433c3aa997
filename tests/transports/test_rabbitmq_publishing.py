"""The connection by which a server answers is lost alone, and opened anew."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from pamqp import body, commands

from django_microservices.exceptions import ConnectionLost
from django_microservices.transports.rabbitmq import failures, publishing
from django_microservices.wire.status import Status

from .rabbitmq_ends import (
    BLOCKED,
    COPIES,
    EVENT,
    REPLIES,
    REPLY_TO,
    REQUEST,
    Ack,
    Publish,
    Served,
    serving,
)
from .scripted_broker import ANSWERS, Client, ScriptedBroker, eventually

CLOSE = commands.Connection.Close(541, "INTERNAL_ERROR", 60, 40)


@pytest.fixture
async def broker(
    free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ScriptedBroker]:
    """Give a broker that listens."""
    monkeypatch.setattr(publishing, "STEADY", 0)
    async with ScriptedBroker(free_port()).running() as broker:
        yield broker


async def replaced(broker: ScriptedBroker, served: Served) -> Client:
    """Wait for the connection that takes the place of the one that was lost."""
    client = await broker.client(2)
    await client.hears(commands.Basic.Consume)
    await eventually(lambda: not served.intake.publishing.connection.lost)
    return client


async def test_requests_go_on(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next connection answers what runs; what is answered meanwhile waits."""
    monkeypatch.setattr(publishing, "STEADY", 0.2)  # long enough to be seen
    async with serving(broker) as served:
        for tag in (1, 2):
            served.consuming.deliver(REQUEST, tag=tag, reply_to=REPLY_TO)
        first, second = [await served.arrived(n) for n in (1, 2)]
        served.publishing.say(CLOSE)
        await eventually(lambda: served.intake.publishing.connection.lost)
        waiting = first.answer(1)
        await waiting
        client = await replaced(broker, served)
        await client.hears(body.ContentBody)
        second.answer(2)
        await client.hears(body.ContentBody, 2)
        await served.consuming.hears(Ack)
        texts = [one.value for one in client.heard(body.ContentBody)]
        assert not served.intake.closed.done()
    assert [text[:13] for text in texts] == [b'{"response":1', b'{"response":2']


async def test_answer_while_the_next_connection_opens(broker: ScriptedBroker) -> None:
    """Nothing is published on a channel that is not open yet."""
    async with serving(broker) as served:
        served.consuming.deliver(REQUEST, tag=1, reply_to=REPLY_TO)
        delivery = await served.arrived()
        broker.answers[commands.Channel.Open] = None
        served.publishing.say(CLOSE)
        client = await broker.client(2)
        await client.hears(commands.Channel.Open)
        delivery.answer(1)
        client.say(ANSWERS[commands.Channel.Open], 1)
        await client.hears(body.ContentBody)
        told = [type(value) for _, value in client.told]
        assert told.index(commands.Basic.Consume) < told.index(Publish)


async def test_channel_of_answers_ends(broker: ScriptedBroker) -> None:
    """Its end counts as the connection's."""
    async with serving(broker) as served:
        served.publishing.say(commands.Channel.Close(406, "NO", 60, 40), REPLIES)
        await replaced(broker, served)
        assert not served.intake.closed.done()


async def test_copies_go_on(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead letter that was on its way is published by the next connection."""
    monkeypatch.setattr(failures, "REST", 0.01)
    async with serving(broker) as served:
        served.consuming.deliver(EVENT)
        (await served.arrived()).end("dead", "bad")
        await served.publishing.hears(Publish)
        served.publishing.say(CLOSE)
        client = await replaced(broker, served)
        await client.hears(Publish)
        client.say(Ack(1), COPIES)
        await served.consuming.hears(Ack)


async def test_blocked_no_more(broker: ScriptedBroker) -> None:
    """A broker that was short of memory says so again, if it still is."""
    async with serving(broker) as served:
        served.publishing.say(BLOCKED)
        await eventually(lambda: served.statuses == [Status.BLOCKED])
        served.publishing.say(CLOSE)
        await eventually(lambda: served.statuses == [Status.BLOCKED, Status.UNBLOCKED])


async def test_stream_with_a_hole(broker: ScriptedBroker) -> None:
    """An item may have been on its way: the reader gets an error, and no clean end."""
    async with serving(broker) as served:
        for tag in (1, 2):
            served.consuming.deliver(REQUEST, tag=tag, reply_to=REPLY_TO)
        stream, other = [await served.arrived(n) for n in (1, 2)]
        stream.answer(1, last=False)
        served.intake.publishing.connection.abort(ConnectionLost("now"))
        assert stream.outcome == "ack"
        assert other.outcome is None
        stream.answer(2, last=False)  # a handler that has not heard of it yet
        client = await replaced(broker, served)
        other.answer(6)
        await client.hears(body.ContentBody, 2)
        torn, answer = [one.value for one in client.heard(body.ContentBody)]
    assert b'"Items were lost with a connection."' in torn
    assert answer.startswith(b'{"response":6')


async def test_stream_whose_channel_ends(broker: ScriptedBroker) -> None:
    """The same, where the broker ends the channel of answers only."""
    async with serving(broker) as served:
        served.consuming.deliver(REQUEST, reply_to=REPLY_TO)
        (await served.arrived()).answer(1, last=False)
        served.publishing.say(commands.Channel.Close(406, "NO", 60, 40), REPLIES)
        client = await replaced(broker, served)
        assert b"lost" in (await client.hears(body.ContentBody)).value


async def test_pause_waits_for_what_is_not_sent_yet(broker: ScriptedBroker) -> None:
    """An answer that waits for the next connection is not done."""
    async with serving(broker) as served:
        served.consuming.deliver(REQUEST, reply_to=REPLY_TO)
        delivery = await served.arrived()
        broker.answers[commands.Channel.Open] = None
        served.publishing.say(CLOSE)
        client = await broker.client(2)
        await client.hears(commands.Channel.Open)
        delivery.answer(1)
        pausing = asyncio.ensure_future(served.intake.pause())
        await served.consuming.hears(commands.Basic.Cancel)
        client.say(ANSWERS[commands.Channel.Open], 1)
        await pausing
        assert served.intake.publishing.waiting == []
        assert not served.intake.closed.done()
        await client.hears(body.ContentBody)


async def test_answers_that_are_never_sent(
    broker: ScriptedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that leaves meanwhile says how many."""
    async with serving(broker) as served:
        for tag in (1, 2):
            served.consuming.deliver(REQUEST, tag=tag, reply_to=REPLY_TO)
        await served.arrived(2)
        broker.answers[commands.Connection.Open] = None
        served.publishing.say(CLOSE)
        await broker.client(2)
        for delivery in served.deliveries:
            delivery.answer(1)
    assert f"2 answers did not reach {broker.url}" in caplog.text


async def test_answers_that_are_too_many(
    broker: ScriptedBroker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What waits for the next connection has a bound."""
    async with serving(broker) as served:
        served.consuming.deliver(REQUEST, reply_to=REPLY_TO)
        delivery = await served.arrived()
        served.publishing.say(CLOSE)
        await eventually(lambda: served.intake.publishing.connection.lost)
        monkeypatch.setattr(publishing, "UNSENT", 1)
        assert delivery.answer(1) is None
        assert f"{broker.url} takes no answers" in caplog.text
    assert "1 answers did not reach" in caplog.text


async def test_items_that_are_too_many(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that lost one of them ends as well."""
    monkeypatch.setattr(publishing, "UNSENT", -1)
    async with serving(broker) as served:
        served.publishing.say(BLOCKED)
        await eventually(lambda: served.statuses == [Status.BLOCKED])
        served.consuming.deliver(REQUEST, reply_to=REPLY_TO)
        delivery = await served.arrived()
        delivery.answer(1, last=False)
        await asyncio.sleep(0)
        assert delivery.outcome == "ack"


async def test_broker_that_does_not_come_back(broker: ScriptedBroker) -> None:
    """Where there is no other connection the intake is lost."""
    async with serving(broker) as served:
        broker.answers[commands.Connection.Open] = commands.Connection.Close(
            320, "CONNECTION_FORCED", 0, 0
        )
        served.publishing.say(CLOSE)
        assert "INTERNAL_ERROR" in str(await served.intake.closed)


async def test_broker_that_leaves_again(broker: ScriptedBroker) -> None:
    """So it is where the other one ends before it can be used."""
    async with serving(broker) as served:
        broker.answers[commands.Basic.Consume] = CLOSE
        served.publishing.say(CLOSE)
        await served.intake.closed
    assert len(broker.clients) == 3


async def test_answer_in_the_tick_of_the_end(broker: ScriptedBroker) -> None:
    """It waits for the next connection as well."""
    async with serving(broker) as served:
        served.consuming.deliver(REQUEST, reply_to=REPLY_TO)
        delivery = await served.arrived()
        served.intake.publishing.connection.abort(ConnectionLost("now"))
        assert delivery.answer(1) is None
        client = await replaced(broker, served)
        await client.hears(body.ContentBody)


async def test_leaving_while_it_is_opened(broker: ScriptedBroker) -> None:
    """The block ends nevertheless."""
    async with serving(broker) as served:
        broker.answers[commands.Connection.Open] = None
        served.publishing.say(CLOSE)
        await broker.client(2)
    assert served.intake.publishing.connection.lost
