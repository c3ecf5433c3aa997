"""JetStream: events that are stored, and what it is told of them."""

import asyncio
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from nats.js.api import DiscardPolicy, StreamConfig

from django_microservices import (
    ConnectionLost,
    MessageTooLarge,
    MicroserviceError,
    NoHandler,
    NotConnected,
)
from django_microservices.transports.jetstream import JetStreamWire
from django_microservices.transports.nats import NATSTransport
from django_microservices.transports.nats.inbox import Inbox
from django_microservices.transports.nats.protocol import Packet
from django_microservices.wire.messages import UNSET
from tests.brokers.nats import NATS

from .jetstream_ends import Place, looking, saying
from .nats_peer import Peer
from .nats_scripts import FakeServer
from .peers import Delivery, Service, eventually

Ports = Callable[[], int]


# --- events -----------------------------------------------------------------------


async def test_event_is_handled_and_acknowledged(place: Place) -> None:
    """An event is stored, handled once by each service, and acknowledged."""
    orders, billing = Service(), Service()
    async with (
        place.serving(["noted"], orders),
        place.serving(["noted"], orders),
        place.serving(["noted"], billing, group="billing"),
        looking(place) as look,
    ):
        await place.emit("noted", b"1", b"2", b"3")
        await orders.came(3)
        await billing.came(3)
        await look.settled("orders=noted")
        await look.settled("billing=noted")
        assert await look.count() == 3
    assert sorted(one.data for one in orders.deliveries) == [1, 2, 3]
    assert sorted(one.data for one in billing.deliveries) == [1, 2, 3]


async def test_what_a_handler_can_know(place: Place) -> None:
    """Stream, consumer, numbers, time and headers; the pattern has no prefix."""
    service = saying("retry")
    async with place.serving(["a.*"], service), looking(place) as look:
        await place.emit("a.b", b"1", headers={"tenant": "acme"})
        _, second = await service.came(2)
        (name,) = [
            one.name for one in await look.jetstream.consumers_info(place.stream)
        ]
    wire = second.message.wire
    assert isinstance(wire, JetStreamWire)
    assert (wire.subject, second.message.pattern.route) == ("a.b", "a.b")
    assert (wire.stream, wire.consumer) == (place.stream, name)
    assert (wire.deliveries, wire.sequence, wire.pending) == (2, 1, 0)
    assert wire.nanoseconds > 1_700_000_000 * 10**9
    assert second.message.headers == dict(wire.headers)
    assert second.message.headers["tenant"] == "acme"
    assert "Nats-Msg-Id" in second.message.headers


async def test_overlapping_patterns_have_a_consumer_each(place: Place) -> None:
    """Each gets its own copy, which says by what it came."""
    service = Service()
    async with place.serving(["a.b", "a.*", "c"], service):
        await place.emit("a.b", b"1")
        await place.emit("c", b"1")
        deliveries = await service.came(3)
    via = [one.message.subscription for one in deliveries]
    assert sorted(s.pattern.route for s in via if s) == ["a.*", "a.b"]


@pytest.mark.parametrize(("policy", "seen"), [("new", [2]), ("all", [1, 2])])
async def test_history(place: Place, policy: str, seen: list[int]) -> None:
    """A new service gets what comes from now on, or all that there is."""
    late = Service()
    async with place.serving(["noted"]):
        await place.emit("noted", b"1")
    async with place.serving(["noted"], late, group="late", deliver_policy=policy):
        await place.emit("noted", b"2")
        deliveries = await late.came(len(seen))
    assert sorted(one.data for one in deliveries) == seen


async def test_request_goes_as_on_nats(place: Place) -> None:
    """Requests are not stored, and answered directly."""
    service = Service()
    async with (
        place.serving(["asked"], service, kind="request"),
        place.linked() as calls,
        looking(place) as look,
    ):
        calls.send("asked")
        (reply,) = await calls.came(1)
        assert bytes(reply.data or b"") == b"1"
        assert await look.count() == 0


async def test_events_of_others(place: Place) -> None:
    """What comes over plain NATS is handled as there: at most once, and not stored."""
    service = Service()
    async with place.serving(["noted"], service), looking(place) as look:
        await look.peer.publish("noted", b'{"pattern":"noted","data":1}')
        (delivery,) = await service.came(1)
        assert delivery.message.settle is None
        assert await look.count() == 0


async def test_prefetch_is_the_limit(place: Place) -> None:
    """Never more is fetched than may be in flight; the rest waits in the stream."""
    service = Service(None)
    async with (
        place.serving(["noted", "other"], service, limit=4),
        looking(place) as look,
    ):
        await place.emit("noted", *[b"%d" % number for number in range(10)])
        await service.came(2)
        assert await look.waiting("orders=noted") == (8, 2)
        done = 0
        while done < 10:
            for delivery in (await service.came(done + 1))[done:]:
                delivery.answer()
                done += 1
        await look.settled("orders=noted")
    assert sorted(one.data for one in service.deliveries) == list(range(10))


# --- what becomes of them ---------------------------------------------------------


async def test_event_is_tried_again(place: Place) -> None:
    """A failed event comes again after a rest, and then no more."""
    service = saying("retry", "retry")
    async with place.serving(["noted"], service), looking(place) as look:
        await place.emit("noted", b"1")
        deliveries = await service.came(3)
        await look.settled("orders=noted")
    assert [one.message.wire.deliveries for one in deliveries] == [1, 2, 3]


async def test_handler_decides_the_rest(place: Place) -> None:
    """The delay of ``nack(delay=...)`` counts, and the first word alone."""

    def nack(delivery: Delivery) -> None:
        settle = delivery.message.settle
        assert settle is not None
        if delivery.message.wire.deliveries == 1:
            settle("retry", 0.3, "")
            settle("dead", None, "")
        delivery.answer()

    service = Service(nack)
    async with place.serving(["noted"], service), looking(place) as look:
        await look.listen()
        await place.emit("noted", b"1")
        assert await look.word() == b'-NAK {"delay":300000000}'
        assert await look.word() == b"+ACK"
    assert len(service.deliveries) == 2


async def test_long_handler(place: Place) -> None:
    """While it runs JetStream hears so, and delivers its event to nobody else."""
    service = Service(None)
    async with (
        place.serving(["noted"], service, ack_wait=0.6),
        place.serving(["noted"], service, ack_wait=0.6),
        looking(place) as look,
    ):
        await look.listen()
        await place.emit("noted", b"1")
        for _ in range(6):  # twice the time after which it would come again
            assert await look.word() == b"+WPI"
        service.deliveries[0].answer()
        assert await look.word() == b"+ACK"
    assert len(service.deliveries) == 1


# --- the end ----------------------------------------------------------------------


async def test_stopped_server_gives_back(place: Place) -> None:
    """What is in flight or waits is given to others at once."""
    stopped, other = Service(None), Service()
    async with looking(place) as look:
        async with place.serving(["noted"], stopped, limit=2) as intake:
            await place.emit("noted", b"1", b"2", b"3")
            first, _ = await stopped.came(2)
            await look.listen()
            first.end("retry", "cancelled")
            assert await look.word() == b"-NAK"
            assert intake.consumers[0].batch == 0
        assert await look.word() == b"-NAK"
        async with place.serving(["noted"], other):
            await other.came(3)
            await look.settled("orders=noted")
    assert sorted(one.data for one in other.deliveries) == [1, 2, 3]


async def test_pause_finishes_what_came(place: Place) -> None:
    """After it nothing more is fetched, and what came is done."""
    service = Service(None)
    async with place.serving(["noted"], service) as intake, looking(place) as look:
        await place.emit("noted", b"1")
        await service.came(1)
        pausing = asyncio.ensure_future(intake.pause())
        await eventually(lambda: intake.consumers[0].batch == 0)
        assert await intake.driver.ping()
        await place.emit("noted", b"2")
        assert not pausing.done()
        service.deliveries[0].answer()
        await asyncio.wait_for(pausing, 10)
        assert (await look.waiting("orders=noted"))[0] + len(service.deliveries) == 2
    assert len(service.deliveries) == 1


async def test_consumer_is_deleted(place: Place) -> None:
    """The server notices, and begins again."""
    async with place.serving(["noted"]) as intake, looking(place) as look:
        await look.jetstream.delete_consumer(place.stream, "orders=noted")
        reason = await asyncio.wait_for(asyncio.shield(intake.closed), 10)
        assert "Consumer Deleted" in str(reason)
        intake.lose("again")


async def test_consumers_are_watched(place: Place) -> None:
    """Every few seconds each is looked at."""
    async with place.serving(["noted"]) as intake:
        intake.consumers[0].heard -= 1000
        intake._look()
        reason = await asyncio.wait_for(asyncio.shield(intake.closed), 10)
        assert "is silent" in str(reason)


# --- emitting ---------------------------------------------------------------------


async def test_emit_is_confirmed(place: Place) -> None:
    """It ends when the stream has the event."""
    async with (
        place.serving(["noted"], Service(None)),
        place.linked() as calls,
        looking(place) as look,
    ):
        await calls.send("noted", b"1", UNSET)
        assert await look.count() == 1


async def test_no_stream_takes_it(nats_server: NATS) -> None:
    """An event that would be lost is an error of its caller."""
    async with Place(nats_server.url).linked() as calls:
        with pytest.raises(NoHandler, match="no stream"):
            await calls.send("noted", b"1", UNSET)


async def test_stream_refuses(place: Place) -> None:
    """So is one that a full stream does not take."""
    async with looking(place) as look:
        await look.jetstream.add_stream(
            StreamConfig(
                place.stream,
                subjects=[f"dm-{place.stream}.>"],
                max_msgs=1,
                discard=DiscardPolicy.NEW,
            )
        )
        await place.emit("noted", b"1")
        with pytest.raises(NotConnected, match="maximum messages exceeded"):
            await place.emit("noted", b"2")


async def test_stream_is_asked_too_much(place: Place) -> None:
    """What JetStream says of an event travels to who emits it."""
    headers = {"Nats-Expected-Stream": "another"}
    async with place.serving(["noted"], Service(None)):
        with pytest.raises(MicroserviceError, match="expected stream does not match"):
            await place.emit("noted", b"1", headers=headers)


async def test_repetition_is_known_by_its_id(place: Place) -> None:
    """What has one id is stored once, for each pattern."""
    async with place.serving(["noted", "other"]), looking(place) as look:
        for pattern in ("noted", "noted", "other"):
            await place.emit(pattern, b"1", options={"message_id": "x"})
        assert await look.count() == 2


async def test_event_of_later(place: Place) -> None:
    """It waits in the stream until its time has come."""
    service = Service()
    loop = asyncio.get_running_loop()
    async with place.serving(["noted"], service), looking(place) as look:
        begun = loop.time()
        await place.emit("noted", b"1", options={"delay": 0.5}, headers={"a": "b"})
        assert await look.count() == 1
        (delivery,) = await service.came(1)
        assert loop.time() - begun > 0.4
    assert delivery.data == 1
    assert delivery.message.pattern.route == "noted"
    assert (delivery.message.headers or {})["a"] == "b"


async def test_event_that_is_too_large(place: Place) -> None:
    """It is refused before it is sent."""
    async with place.linked() as calls:
        with pytest.raises(MessageTooLarge):
            calls.send("noted", b'"%b"' % (b"x" * 8 * 1024 * 1024), UNSET)


async def test_connection_is_lost_before_the_confirm(free_port: Ports) -> None:
    """Whether the event was stored nobody can say: an error."""
    async with FakeServer(free_port()) as fake, Place(fake.url).linked() as calls:
        waiting = calls.send("noted", b"1", UNSET)
        forgotten = calls.send("noted", b"1", UNSET)
        given_up = asyncio.ensure_future(_await(calls.send("noted", b"1", UNSET)))
        await asyncio.sleep(0)
        given_up.cancel()
        calls.link.driver.abort("cut")
        with pytest.raises(ConnectionLost, match="cut"):
            await waiting
        del forgotten
        with pytest.raises(NotConnected, match="cut"):
            calls.send("noted", b"1", UNSET)


async def _await(waiting: Any) -> None:
    await waiting


async def test_delay_as_a_timedelta(place: Place) -> None:
    """It may be one, as of ``nack(delay=...)``; no time at all is no delay."""
    service = Service()
    async with place.serving(["noted"], service), looking(place) as look:
        await place.emit("noted", b"1", options={"delay": timedelta(hours=1)})
        await place.emit("noted", b"2", options={"delay": timedelta()})
        (delivery,) = await service.came(1)
        assert await look.count() == 2
    assert delivery.data == 2


@pytest.mark.parametrize("delay", ["2", True, math.nan, math.inf, -1, 1e12, 1e300])
async def test_delay_that_is_none(free_port: Ports, delay: Any) -> None:
    """The error names the option, and nothing is sent."""
    async with FakeServer(free_port()) as fake, Place(fake.url).linked() as calls:
        with pytest.raises((TypeError, ValueError), match=r"^options\['delay'\]: "):
            calls.send("noted", b"1", UNSET, options={"delay": delay})
        assert await calls.link.driver.ping()
        assert b"PUB" not in fake.heard


@pytest.mark.parametrize("body", [b"", b"no json", b"[1]"])
async def test_confirm_that_means_nothing(free_port: Ports, body: bytes) -> None:
    """Then nobody can say either."""
    async with FakeServer(free_port()) as fake, Place(fake.url).linked() as calls:
        waiting = asyncio.ensure_future(_await(calls.send("noted", b"1", UNSET)))
        await fake.hears(b"data")
        line = next(x for x in fake.heard.split(b"\r\n") if x.startswith(b"HPUB"))
        _, _, inbox, *_ = line.split()
        sid = b"1"  # the link's inbox of confirms is subscribed to first
        for _ in range(2):
            fake.say(b"MSG %b %b %d\r\n%b\r\n" % (inbox, sid, len(body), body))
        with pytest.raises(NotConnected, match="JetStream answered"):
            await waiting


async def test_event_of_a_stranger(place: Place) -> None:
    """An event that nats-py stores is handled as ours."""
    service = Service()
    async with place.serving(["noted"], service), Peer(place.url) as peer:
        await peer.client.jetstream().publish(f"dm-{place.stream}.noted", b'{"sku":1}')
        (delivery,) = await service.came(1)
    assert delivery.data == {"sku": 1}


async def test_event_that_looks_like_a_request(place: Place) -> None:
    """What the stream has is an event, as a CloudEvent with its ``id`` and ``data``."""
    service = Service()
    body = b'{"specversion":"1.0","id":"A-1","data":{"n":1}}'
    async with place.serving(["noted"], service), Peer(place.url) as peer:
        await peer.client.jetstream().publish(f"dm-{place.stream}.noted", body)
        (delivery,) = await service.came(1)
    assert delivery.data == {"n": 1}
    assert delivery.message.is_event


async def test_confirm_that_nobody_awaits_any_more(free_port: Ports) -> None:
    """Where its caller was cancelled neither it nor the end does harm."""
    async with FakeServer(free_port()) as fake:
        wire = NATSTransport(url=fake.url)
        async with wire.servers.connected() as connection:
            inbox = Inbox(connection, "_INBOX")
            first, second = (inbox.ask(b"asked", b"") for _ in range(2))
            for question in (first, second):
                question._answer.cancel()
            inbox._answered(Packet(b"MSG", subject=first._token))
            connection.abort("cut")
            await asyncio.wait_for(asyncio.shield(connection.closed), 10)
            assert inbox.waiting == {}
