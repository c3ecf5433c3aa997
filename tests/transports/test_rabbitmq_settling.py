"""What a server tells the broker of each message, and what follows from it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pamqp import body, commands

from django_microservices.exceptions import ConnectionLost
from django_microservices.transports.rabbitmq import (
    callers,
    failures,
    publishing,
)
from django_microservices.wire.messages import Reply
from django_microservices.wire.status import Status

from .rabbitmq_ends import (
    COPIES,
    EVENT,
    REPLIES,
    REPLY_TO,
    REQUEST,
    Ack,
    Header,
    Nack,
    Publish,
    Reject,
    serving,
)
from .scripted_broker import ANSWERS, ScriptedBroker, eventually

QUORUM: Any = {"queue_options": {"arguments": {"x-queue-type": "quorum"}}}
REFUSAL = commands.Channel.Close(403, "ACCESS_REFUSED", 50, 10)


@pytest.fixture
async def broker(free_port: Callable[[], int]) -> AsyncIterator[ScriptedBroker]:
    """Give a broker that listens."""
    async with ScriptedBroker(free_port()).running() as broker:
        yield broker


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
        dead, declared = served.publishing.heard(commands.Queue.Declare)
    assert (dead.queue, dead.passive) == ("amq.gen-q.dead", True)
    assert published.routing_key == declared.queue == "gen-q.retry.500"
    assert declared.durable
    assert declared.arguments == {
        "x-message-ttl": 500,
        "x-expires": 120_500,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "amq.gen-q",
    }


async def test_retry_of_a_quorum_queue(broker: ScriptedBroker) -> None:
    """It rests here, and stays the broker's until its copy is confirmed."""
    async with serving(broker, redelivery_delay=1, **QUORUM) as served:
        served.consuming.deliver(EVENT)
        (await served.arrived()).end("retry", "", 0.05)
        published = await served.publishing.hears(Publish)
        assert served.consuming.heard(Ack) == []
        served.publishing.say(Ack(1), COPIES)
        await served.consuming.hears(Ack)
        (dead,) = served.publishing.heard(commands.Queue.Declare)
    assert (published.exchange, published.routing_key) == ("", "amq.gen-q")
    assert dead.queue == "amq.gen-q.dead"


async def test_rest_of_a_quorum_queue_ends_when_the_server_stops(
    broker: ScriptedBroker,
) -> None:
    """What rests here is given back at once."""
    async with serving(broker, **QUORUM) as served:
        served.consuming.deliver(EVENT)
        (await served.arrived()).end("retry", "", 600.0)
        await served.intake.pause()
        assert (await served.consuming.hears(Nack)).requeue
    assert served.publishing.heard(Publish) == []


@pytest.mark.parametrize(
    ("options", "queue", "longest"),
    [({}, "gen-q.retry.250", 0.2), (QUORUM, "amq.gen-q", 0.1)],
)
async def test_rest_that_is_too_long(
    broker: ScriptedBroker,
    options: dict[str, Any],
    queue: str,
    longest: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It becomes the longest that there is, and is told of."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(failures, "LONGEST_DELAY", 0.2)
        patched.setattr(failures, "LONGEST_HERE", 0.1)
        async with serving(broker, **options) as served:
            served.consuming.deliver(EVENT)
            (await served.arrived()).end("retry", "", 3600.0)
            published = await served.publishing.hears(Publish)
            served.publishing.say(Ack(1), COPIES)
            await served.consuming.hears(Ack)
    assert published.routing_key == queue
    assert f"A rest of 3600 s becomes {longest} s" in caplog.text


async def test_retry_of_a_private_queue(broker: ScriptedBroker) -> None:
    """It rests beside the queue that ends with its consumer, and holds no place."""
    async with serving(broker, queue="") as served:
        served.consuming.deliver(EVENT)
        (await served.arrived()).end("retry", "", 3600.0)
        assert (await served.publishing.hears(Publish)).routing_key == (
            "gen-q.retry.3600000"
        )
        served.publishing.say(Ack(1), COPIES)
        await served.consuming.hears(Ack)


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


@pytest.mark.parametrize(
    ("prefetch", "places"), [(None, 1), (4, 7), (1, 10), (20, 0), (0, 0)]
)
async def test_queue_of_dead_letters_that_is_refused_later(
    broker: ScriptedBroker,
    prefetch: int | None,
    places: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broker is asked again; the place that is held meanwhile is counted."""
    monkeypatch.setattr(failures, "REST", 0.01)
    async with serving(broker, prefetch_count=prefetch) as served:
        broker.answers[commands.Queue.Declare] = REFUSAL
        served.consuming.deliver(EVENT)
        assert served.intake.unburied == 0
        (await served.arrived()).end("dead", "bad")
        await served.publishing.hears(Publish)
        served.publishing.say(Nack(1), COPIES)
        await served.publishing.hears(commands.Queue.Declare, 3)
        assert served.intake.unburied == places
        broker.answers[commands.Queue.Declare] = ANSWERS[commands.Queue.Declare]
        await served.publishing.hears(Publish, 2)
        served.publishing.say(Ack(2), COPIES)
        await served.consuming.hears(Ack)
        assert served.intake.unburied == 0
    assert len(served.deliveries) == 1


async def test_dead_letter_that_the_broker_does_not_take(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is published again until it is taken: the handler has had its tries."""
    monkeypatch.setattr(failures, "REST", 0)
    async with serving(broker) as served:
        served.consuming.deliver(EVENT)
        (await served.arrived()).end("dead", "bad")
        for number in range(1, 6):
            await served.publishing.hears(Publish, number)
            served.publishing.say(Ack(5) if number == 5 else Nack(number), COPIES)
        await served.consuming.hears(Ack)
        assert served.consuming.heard(Nack) == []
    assert len(served.deliveries) == 1


async def test_retry_that_the_broker_does_not_take(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some tries it is a dead letter."""
    monkeypatch.setattr(failures, "REST", 0)
    async with serving(broker) as served:
        served.consuming.deliver(EVENT)
        (await served.arrived()).end("retry", "bad")
        for number in (1, 2, 3):
            await served.publishing.hears(Publish, number)
            served.publishing.say(Nack(number), COPIES)
        letter = await served.publishing.hears(Publish, 4)
        served.publishing.say(Ack(4), COPIES)
        await served.consuming.hears(Ack)
    assert letter.routing_key == "amq.gen-q.dead"


@pytest.mark.parametrize(("outcome", "letters"), [("retry", 1), ("dead", 0)])
async def test_copy_that_cannot_be_made(
    broker: ScriptedBroker,
    outcome: str,
    letters: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever goes wrong the message is settled, and its place is free."""

    def broken(*_: object) -> None:
        raise OverflowError

    name = "copy_to_retry" if outcome == "retry" else "dead_letter"
    monkeypatch.setattr(failures, name, broken)
    async with serving(broker) as served:
        served.consuming.deliver(EVENT)
        (await served.arrived()).end(outcome, "bad")
        if letters:
            await served.publishing.hears(Publish)
            served.publishing.say(Ack(1), COPIES)
            await served.consuming.hears(Ack)
        else:
            assert not (await served.consuming.hears(Reject)).requeue
        assert served.intake.failures.tasks == {}
    assert len(served.publishing.heard(Publish)) == letters
    assert "OverflowError" in caplog.text


async def test_rest_ends_when_the_server_stops(
    broker: ScriptedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """What the broker did not take is given back at once."""
    async with serving(broker) as served:
        served.consuming.deliver(EVENT)
        (await served.arrived()).end("dead", "bad")
        await served.publishing.hears(Publish)
        served.publishing.say(Nack(1), COPIES)
        await eventually(lambda: "published again" in caplog.text)
        await served.intake.pause()
        assert (await served.consuming.hears(Nack)).requeue


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
        asked = await served.publishing.hears(commands.Queue.Declare, 2)
        assert (asked.queue, asked.passive) == (REPLY_TO, True)
        await served.publishing.hears(commands.Queue.Declare, 3)
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
        monkeypatch.setattr(publishing, "UNSENT", -1)
        assert delivery.answer(2) is None
        assert served.intake.publishing.dropped == 1
        await served.consuming.hears(Ack)  # the queue can be emptied all the same
        served.publishing.say(commands.Connection.Unblocked())
        await waiting
        assert served.statuses == [Status.BLOCKED, Status.UNBLOCKED]


async def test_connection_ends(broker: ScriptedBroker) -> None:
    """The end of the one that consumes is the intake's; requests are worked on no more.

    Their answers go nowhere.
    """
    async with serving(broker) as served:
        served.consuming.deliver(REQUEST, tag=1, reply_to=REPLY_TO)
        served.consuming.deliver(EVENT, tag=2)
        request, event = [await served.arrived(n) for n in (1, 2)]
        close = commands.Connection.Close(320, "CONNECTION_FORCED", 0, 0)
        served.consuming.say(close)
        assert "CONNECTION_FORCED" in str(await served.intake.closed)
    assert (request.outcome, event.outcome) == ("ack", None)
    event.end("dead", "too late")
    assert request.respond(Reply("a1", b"1")) is None


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
