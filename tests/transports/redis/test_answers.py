"""Streams of answers by pub/sub: whose they are, and how they end."""

import asyncio
import json
from typing import Any

import pytest

from django_microservices.wire.messages import new_id
from tests.transports.peers import Delivery, Service, eventually

from .ends import hold, is_heard, linked, listeners, serving, until

OURS = "0123456789abcdef0123"  # an id
LEFT = 10.0  # seconds for what is done at once


def begin(delivery: Delivery) -> None:
    """Answer with a stream that goes on."""
    delivery.say(b"1", last=False)


class Streaming(Service):
    """A service whose answers are streams."""

    def __call__(self, message: Any, respond: Any) -> Delivery:
        """Take a request."""
        delivery = super().__call__(message, respond)
        delivery.is_stream = True
        return delivery


async def ended(delivery: Delivery) -> None:
    """Wait until it is cancelled, as it says items."""
    async with asyncio.timeout(LEFT):
        while not delivery.cancelled.is_set():
            delivery.say(b"1", last=False)
            await asyncio.sleep(0.001)


async def ask(spy: Any, name: str, id_: str, **metadata: str) -> None:
    """Ask as others do."""
    packet = {"pattern": name, "data": 1, "id": id_, "metadata": metadata}
    await spy.publish(name, json.dumps(packet))


# --- a reader of ours ---


async def test_each_reader_is_missed(wire: Any, name: str, spy: Any) -> None:
    """One who leaves ends its stream, whoever else still reads."""
    service, ids = Service(hold), [new_id() for _ in range(3)]
    async with (
        serving(wire(), service, name),
        linked(wire()) as calls,
        linked(wire()) as others,
    ):
        for each, id_ in zip((calls, calls, others), ids, strict=True):
            each.send(name, id_=id_, stream=True)
        streams = {d.message.id: d for d in await service.came(3)}
        for stream in streams.values():
            stream.say(b"1", last=False)
        await calls.came(2)
        await others.came(1)
        calls.link.forget(ids[0], answered=False)
        await ended(streams[ids[0]])
        for id_ in ids[1:]:
            streams[id_].say(b"2", last=False)
        await others.came(2)
        await calls.came(3)
        assert [one.cancelled.is_set() for one in streams.values()].count(True) == 1
        calls.link.forget(ids[1], answered=True)
        await ended(streams[ids[1]])
        assert await listeners(spy, f"dm-reply.{ids[0]}") == 0


async def test_reader_of_a_server_that_does_not_know_own_channels(
    wire: Any, name: str, spy: Any
) -> None:
    """Nest answers on the pattern's channel, and is heard there."""
    async with linked(wire()) as calls:
        id_ = new_id()
        calls.send(name, id_=id_, stream=True)
        await until(lambda: is_heard(spy, name))
        await spy.publish(f"{name}.reply", json.dumps({"response": 1, "id": id_}))
        await eventually(lambda: b"1" in [bytes(r.data or b"") for r in calls])


async def test_reader_that_left_before_redis_confirmed(wire: Any, name: str) -> None:
    """Its request is not sent any more."""
    service = Service()
    async with serving(wire(), service, name), linked(wire()) as calls:
        id_ = new_id()
        calls.send(name, id_=id_, stream=True)
        calls.link.forget(id_, answered=False)
        calls.send(name, id_="2")
        await calls.came(1)
    assert [delivery.message.id for delivery in service.deliveries] == ["2"]


async def test_reader_that_may_not_listen(limited: Any, name: str) -> None:
    """It fails with what Redis said."""
    async with linked(limited("+@all", f"&{name}", f"&{name}.reply")) as calls:
        calls.send(name, id_=new_id(), stream=True)
        (reply,) = await calls.came(1)
    assert "Redis refuses: NOPERM" in json.loads(reply.error)["message"]


async def test_server_that_may_not_answer(
    wire: Any, limited: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The stream ends, and the log says why."""
    service = Service(begin)
    transport = limited("+@all", f"&{name}", f"&{name}.reply")
    async with serving(transport, service, name), linked(wire()) as calls:
        calls.send(name, id_=new_id(), stream=True)
        (delivery,) = await service.came(1)
        async with asyncio.timeout(LEFT):
            await delivery.cancelled.wait()
    assert "Redis refused an answer: NOPERM" in caplog.text


@pytest.mark.parametrize("named", [OURS, "7", "orders", ""])
async def test_own_channel_is_that_of_the_request(
    wire: Any, name: str, spy: Any, named: str
) -> None:
    """Metadata that a gateway copied, or a peer made up, name no other channel."""
    async with serving(wire(), Service(), name), linked(wire()) as calls:
        calls.send(name, id_="7")
        await calls.came(1)
        await ask(spy, name, new_id(), **{"dm-reply": named})
        await ask(spy, name, "7", **{"dm-reply": "7"})
        assert len(await calls.came(3)) == 3


# --- wildcards ---


@pytest.mark.parametrize("id_", ["7", OURS])
async def test_own_wildcard_is_no_listener(wire: Any, name: str, id_: str) -> None:
    """A wildcard that brings us our own replies does not count as somebody."""
    service = Service(hold)
    block = serving(wire(wildcards=True), service, f"{name}*", f"dm-reply.{id_}*")
    async with block as intake, linked(wire()) as calls:
        calls.send(name, id_=id_, stream=True)
        (delivery,) = await service.came(1)
        calls.link.forget(id_, answered=False)
        await calls.link.sub.ask("PING")
        delivery.say(b"1", last=False)
        async with asyncio.timeout(LEFT):
            await delivery.cancelled.wait()
        await eventually(lambda: intake.dropped == 1)
    assert len(service.deliveries) == 1


# --- readers that share a channel, as Nest's do ---


async def test_stream_ends_when_nobody_listens(wire: Any, name: str) -> None:
    """Redis counts who hears an item: where nobody does, the handler is cancelled."""
    service = Service(hold)
    async with serving(wire(), service, name), linked(wire()) as calls:
        calls.send(name)
        (delivery,) = await service.came(1)
        delivery.say(b"1", last=False)
        await calls.came(1)
        assert not delivery.cancelled.is_set()
        calls.link.forget("7", answered=False)
        await calls.link.sub.ask("PING")
        delivery.say(b"2", last=False)
        async with asyncio.timeout(10):
            await delivery.cancelled.wait()


async def test_stream_that_goes_on_for_too_long(wire: Any, name: str, spy: Any) -> None:
    """Nobody says that such a reader has left: it is told, and the stream ends."""
    service = Streaming(begin)
    block = serving(wire(max_stream_age=0.05), service, name)
    async with block, linked(wire()) as calls:
        own = new_id()
        calls.send(name, id_=own, stream=True)
        await ask(spy, name, "done")
        (mine, done) = await service.came(2)
        done.end()
        await ask(spy, name, "theirs")
        theirs = (await service.came(3))[2]
        async with asyncio.timeout(LEFT):
            await theirs.cancelled.wait()
        await eventually(lambda: [reply.error for reply in calls][-1])
        assert not mine.cancelled.is_set()
        assert not done.cancelled.is_set()
    assert (calls[-1].id, calls[-1].last) == ("theirs", True)
    assert b"went on for too long" in calls[-1].error


async def test_stream_without_a_bound(wire: Any, name: str, spy: Any) -> None:
    """``None`` is for ever; an answer that is no stream has no bound at all."""
    for options, service in (
        ({"max_stream_age": None}, Streaming(hold)),
        ({"max_stream_age": 0.01}, Service(hold)),
    ):
        async with serving(wire(**options), service, name) as intake:
            await ask(spy, name, "7")
            await service.came(1)
            (answer,) = intake.answers.open
            assert answer.timer is None


async def test_in_a_cluster_each_stream_has_a_bound(
    wire: Any, name: str, spy: Any
) -> None:
    """There Redis does not tell of any reader."""
    service = Streaming(hold)
    async with serving(wire(max_stream_age=0.01), service, name) as intake:
        intake.pub.counts_all = False
        id_ = new_id()
        await ask(spy, name, id_, **{"dm-reply": id_})
        (delivery,) = await service.came(1)
        async with asyncio.timeout(LEFT):
            await delivery.cancelled.wait()


async def test_streams_do_not_keep_requests_waiting_for_ever(
    wire: Any, name: str
) -> None:
    """Where nothing more is read, streams that were left end all the same."""
    service = Service(hold)
    block = serving(wire(), service, name, limit=2)
    async with block as intake, linked(wire()) as left, linked(wire()) as calls:
        for id_ in "12":
            left.send(name, id_=id_)
        streams = await service.came(2)
        for id_ in "34":
            calls.send(name, id_=id_)
        await eventually(lambda: intake.room.is_paused)
        for link, ids in ((left.link, "12"), (calls.link, "34")):
            for id_ in ids:
                link.forget(id_, answered=False)
            await link.sub.ask("PING")
        service.answer = Delivery.answer
        for stream in streams:
            stream.say(b"1", last=False)
        await service.came(4)
        assert not intake.room.is_paused
