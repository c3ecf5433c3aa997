"""The server's half of the NATS wire, and callers that are not ours."""

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from django_microservices import TransportRefused
from django_microservices.transports.nats import NATSTransport, NATSWire
from django_microservices.transports.nats import intake as intake_module
from django_microservices.transports.nats.protocol import Packet
from django_microservices.wire.messages import UNSET
from django_microservices.wire.unreadable import UNREADABLE
from tests.brokers.nats import NATS, NATSProcess

from .nats_ends import linked, serving, subscriptions
from .nats_peer import Peer
from .nats_scripts import FakeServer
from .peers import Delivery, Service, eventually

NO_RESPONDERS = b"NATS/1.0 503\r\n\r\n"
REQUEST = b'{"pattern":"asked","data":[1,2,3],"id":"x"}'
StartServer = Callable[..., NATS]


def summing(delivery: Delivery) -> None:
    """Answer with the sum."""
    delivery.answer(b"%d" % sum(delivery.data))


# --- requests ---------------------------------------------------------------------


async def test_answer_is_nests(nats_server: NATS) -> None:
    """A caller of Nest's kind gets a packet of Nest's kind, and no key more."""
    url = nats_server.url
    async with serving(url, ["asked"], Service(summing)), Peer(url) as peer:
        answer = await peer.request("asked", REQUEST)
    assert json.loads(answer.data) == {"response": 6, "isDisposed": True, "id": "x"}
    assert answer.headers is None


async def test_what_a_handler_can_know(nats_server: NATS) -> None:
    """Subject, reply subject and all headers; ``metadata`` counts less than those."""
    service = Service()
    body = b'{"data":1,"id":"x","metadata":{"tenant":"none","a":"b"}}'
    headers = {"tenant": "acme", "dm-timeout": "2500"}
    url = nats_server.url
    async with serving(url, ["a.*"], service), Peer(url) as peer:
        await peer.request("a.b", body, headers=headers)
    message = service.deliveries[0].message
    assert isinstance(message.wire, NATSWire)
    assert message.wire.subject == message.pattern.route == "a.b"
    assert message.wire.reply.startswith("_INBOX.")
    assert dict(message.wire.headers) == headers
    assert message.headers == {"a": "b", **headers}
    assert message.timeout == 2.5


async def test_object_pattern(nats_server: NATS) -> None:
    """The subject of an object pattern is its route, whatever the order of its keys."""
    service = Service(summing)
    url = nats_server.url
    async with serving(url, [{"b": 1, "a": 2}], service), linked(url) as calls:
        calls.send({"a": 2, "b": 1}, b"[1]")
        await calls.came(1)
    assert service.deliveries[0].message.pattern.route == '{"a":2,"b":1}'


@pytest.mark.parametrize("reply", ["", "orders.delete", "_INBOX"])
async def test_nobody_to_answer(
    nats_server: NATS, reply: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Only an inbox is answered, whatever a caller names; the handler runs."""
    service = Service(None)
    url = nats_server.url
    async with serving(url, ["asked"], service), Peer(url) as peer:
        heard = await peer.client.subscribe("orders.delete")
        await peer.publish("asked", REQUEST, reply=reply)
        (delivery,) = await service.came(1)
        delivery.answer(b"6")
        await peer.settled()
        assert heard.pending_msgs == 0
    assert ("is no inbox" in caplog.text) is bool(reply)


async def test_inboxes_of_ones_own(nats_server: NATS) -> None:
    """A server may know other prefixes of inboxes."""
    options: dict[str, Any] = {
        "reply_prefixes": ["_INBOX_shop"],
        "inbox_prefix": "mine",
    }
    url = nats_server.url
    async with serving(url, ["asked"], Service(summing), **options):
        for prefix in ("_INBOX_shop", "mine", "_INBOX"):
            async with Peer(url, inbox_prefix=prefix) as peer:
                answer = await peer.request("asked", REQUEST)
            assert json.loads(answer.data)["response"] == 6


async def test_answer_that_is_not_readable(nats_server: NATS) -> None:
    """A request that nests too deeply is answered so, without a handler."""
    service = Service()
    deep = b'{"data":%b,"id":"x"}' % (b"[" * 100 + b"]" * 100)
    url = nats_server.url
    async with serving(url, ["asked"], service), Peer(url) as peer:
        answer = await peer.request("asked", deep)
    assert json.loads(answer.data)["err"] == json.loads(UNREADABLE)
    assert service.deliveries == []


# --- events -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b'{"pattern":"noted","data":{"a":1}}', {"a": 1}),
        (b'{"pattern":"other","data":1}', 1),
        (b'{"pattern":"noted"}', UNSET),
        (b'{"sku":"tea","id":7}', {"sku": "tea", "id": 7}),
        (b"[1,2]", [1, 2]),
        (b"7", 7),
    ],
)
async def test_event(nats_server: NATS, body: bytes, data: Any) -> None:
    """The subject decides who handles it; what is no packet is the data itself."""
    service = Service()
    url = nats_server.url
    async with serving(url, ["noted"], service), Peer(url) as peer:
        await peer.publish("noted", body)
        (delivery,) = await service.came(1)
    assert delivery.data == data
    assert delivery.message.is_event
    assert delivery.message.headers is None


@pytest.mark.parametrize("body", [b"", b"no json at all", b"{"])
async def test_what_is_no_message(
    nats_server: NATS, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """As with Nest it is dropped, and counted."""
    service = Service()
    url = nats_server.url
    async with serving(url, ["noted"], service) as intake, Peer(url) as peer:
        await peer.publish("noted", body)
        await eventually(lambda: intake.dropped == 1)
    assert "Dropped a text that is no message on noted" in caplog.text


async def test_wide_pattern_hears_no_answers(nats_server: NATS) -> None:
    """A handler of everything is not told what answers others, nor what NATS says."""
    service = Service()
    url = nats_server.url
    async with serving(url, [">"], service), Peer(url) as peer:
        await peer.publish("_INBOX.somebody", b'{"response":1,"id":"x"}')
        await peer.publish("$ANY.thing", b"1")
        await peer.publish("noted", b"1")
        (delivery,) = await service.came(1)
    assert delivery.message.pattern.route == "noted"


# --- copies and queues ------------------------------------------------------------


async def test_copies_say_by_what_they_came(nats_server: NATS) -> None:
    """Where patterns overlap a copy comes for each, in any number of servers."""
    service = Service()
    url = nats_server.url
    patterns = ["a.b", "a.*", "c"]
    async with (
        serving(url, patterns, service, group="orders"),
        serving(url, patterns, service, group="orders"),
        Peer(url) as peer,
    ):
        await peer.publish("a.b", b"1")
        await peer.publish("c", b"1")
        deliveries = await service.came(3)
        await peer.settled()
    via = [one.message.subscription for one in deliveries]
    assert sorted(s.pattern.route for s in via if s) == ["a.*", "a.b"]
    assert via.count(None) == 1
    assert len(deliveries) == 3


@pytest.mark.parametrize(
    ("groups", "queue", "copies"),
    [
        (["orders", "orders"], None, 1),
        (["orders", "billing"], None, 2),
        (["orders", "billing"], "shared", 1),
        (["orders", "orders"], "", 2),
        ([None, None], None, 2),
    ],
)
async def test_queue_groups(
    nats_server: NATS, groups: list[str], queue: str | None, copies: int
) -> None:
    """Each service gets one copy, and its replicas share; ``queue`` may differ."""
    service = Service()
    url = nats_server.url
    one, other = (dict[str, Any](group=group, queue=queue) for group in groups)
    async with (
        serving(url, ["noted", "end"], service, **one),
        serving(url, ["noted", "end"], service, **other),
        Peer(url) as peer,
    ):
        for _ in range(10):
            await peer.publish("noted", b"1")
        assert len(await service.came(10 * copies)) == 10 * copies


async def test_queue_of_a_handler(nats_server: NATS) -> None:
    """``queue=`` of a handler counts for its pattern alone."""
    service = Service()
    url = nats_server.url
    wanted = [*subscriptions("mine", queue="one"), *subscriptions("all")]
    async with (
        serving(url, wanted, service, queue=""),
        serving(url, wanted, service, queue=""),
        Peer(url) as peer,
    ):
        await peer.publish("mine", b"1")
        await peer.publish("all", b"1")
        deliveries = await service.came(3)
    found = sorted(one.message.pattern.route for one in deliveries)
    assert found == ["all", "all", "mine"]


def test_sharing_is_an_option() -> None:
    """Where everybody gets everything, processes do not share the work."""
    assert NATSTransport(group="orders").shares_work
    assert not NATSTransport(group="orders", queue="").shares_work
    assert not NATSTransport().shares_work


# --- streams ----------------------------------------------------------------------


def begin(delivery: Delivery) -> None:
    """Send one item of a stream, and leave it open."""
    delivery.say(b"0", last=False)


async def test_stream_of_which_nobody_hears(nats_server: NATS) -> None:
    """When its inbox is closed NATS says so, and the next item cancels the handler."""
    service = Service(begin)
    url = nats_server.url
    async with serving(url, ["count"], service), Peer(url) as peer:
        for _ in range(2):
            heard = await peer.client.subscribe("_INBOX.mine")
            await peer.publish("count", REQUEST, reply="_INBOX.mine")
            await heard.next_msg(timeout=10)
            await heard.unsubscribe()
            await peer.settled()
        for delivery in service.deliveries:
            assert not delivery.cancelled.is_set()
            delivery.say(b"1", last=False)
            await asyncio.wait_for(delivery.cancelled.wait(), 10)


async def test_stream_that_ends(nats_server: NATS) -> None:
    """A stream that came to its end is nobody's to cancel."""
    service = Service(begin)
    url = nats_server.url
    async with serving(url, ["count"], service) as intake, linked(url) as calls:
        calls.send("count", stream=True)
        await calls.came(1)
        assert len(intake.answers.streams) == 1
        service.deliveries[0].answer(b"1")
        await calls.came(2)
        assert intake.answers.streams == {}


async def test_strange_answers_to_items(nats_server: NATS) -> None:
    """What is no word of NATS', or comes too late, cancels nothing."""
    service = Service(begin)
    url = nats_server.url
    async with serving(url, ["count"], service) as intake, linked(url) as calls:
        calls.send("count", stream=True)
        await calls.came(1)
        (inbox,) = intake.answers.streams
        async with Peer(url) as peer:
            await peer.publish(inbox.decode(), b"hello")
        intake.answers._told(Packet(b"HMSG", b"", b"gone", headers=NO_RESPONDERS))
        assert await intake.driver.ping()
        assert not service.deliveries[0].cancelled.is_set()


async def test_streams_end_with_the_connection(nats_server: NATS) -> None:
    """Nobody can hear them any more."""
    service = Service(begin)
    url = nats_server.url
    async with serving(url, ["count"], service) as intake, linked(url) as calls:
        calls.send("count", stream=True)
        await calls.came(1)
        intake.driver.abort("cut")
        await asyncio.wait_for(service.deliveries[0].cancelled.wait(), 10)


async def test_answer_before_its_delivery_is_known(nats_server: NATS) -> None:
    """A stream that begins within the call can be cancelled as well."""
    service = Service(begin, at_once=True)
    url = nats_server.url
    async with serving(url, ["count"], service) as intake, linked(url) as calls:
        calls.send("count", stream=True)
        await calls.came(1)
        (answer,) = intake.answers.streams.values()
        answer.delivery = None
        answer.cancel()


# --- in flight, and the end -------------------------------------------------------


FEW = 4 * (intake_module.EACH + 1)
"""Bytes of four small events that wait."""


async def test_bound_in_flight(
    nats_server: NATS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most ``limit`` at once; the rest waits, at last in the socket."""
    monkeypatch.setattr(intake_module, "MOST_WAITING", FEW)
    service = Service(None)
    url = nats_server.url
    async with (
        serving(url, ["noted"], service, limit=2) as intake,
        Peer(url) as peer,
    ):
        for number in range(10):
            await peer.publish("noted", b"%d" % number)
        await eventually(lambda: intake.driver.deaf)
        assert len(service.deliveries) == 2
        done = 0
        while done < 10:
            for delivery in (await service.came(done + 1))[done:]:
                delivery.answer()
                done += 1
        assert [one.data for one in service.deliveries] == list(range(10))
        assert not intake.driver.deaf
        assert intake.dropped == 0


async def test_burst_waits(nats_server: NATS) -> None:
    """It is bytes that count, not how many may be in flight."""
    service = Service(None)
    url = nats_server.url
    async with serving(url, ["noted"], service, limit=1) as intake, Peer(url) as peer:
        for _ in range(1000):
            await peer.client.publish("noted", b"1")
        await peer.settled()
        await eventually(lambda: len(intake.room.waiting) == 999)
        assert not intake.driver.deaf
        service.answer, service.at_once = Delivery.answer, True
        service.deliveries[0].answer()
        assert len(service.deliveries) == 1000
        assert intake.room.weight == 0


async def test_end_of_streams_is_heard_without_room(
    nats_server: NATS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams that nobody hears any more give their places to what waits."""
    monkeypatch.setattr(intake_module, "MOST_WAITING", 1)
    monkeypatch.setattr(intake_module, "GLANCE", 0.01)
    service = Service(begin)
    url = nats_server.url
    async with (
        serving(url, ["asked"], service, limit=2) as intake,
        linked(url) as calls,
    ):
        for number in range(2):
            calls.send("asked", id_=f"stream{number}", stream=True)
        await service.came(2)
        calls.send("asked", id_="later")
        await eventually(lambda: intake.driver.deaf)
        for number, delivery in enumerate(service.deliveries[:2]):
            calls.link.forget(f"stream{number}", answered=False)
            assert await calls.link.driver.ping()
            delivery.say(b"1", last=False)
            await asyncio.wait_for(delivery.cancelled.wait(), 10)
            delivery.answer()
        await service.came(3)


async def test_what_waits_is_bounded(
    nats_server: NATS,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What comes beyond is dropped and counted; signs of life still come."""
    monkeypatch.setattr(intake_module, "MOST_WAITING", FEW)
    monkeypatch.setattr(intake_module, "GLANCE", 0.01)
    monkeypatch.setattr(intake_module, "TELLS", 0.01)
    service = Service(None)
    url = nats_server.url
    async with serving(url, ["noted"], service, limit=1) as intake, Peer(url) as peer:
        for number in range(5):
            await peer.publish("noted", b"%d" % number)
        await eventually(lambda: intake.driver.deaf)
        await eventually(lambda: not intake.driver.deaf)
        for _ in range(3):
            await peer.publish("noted", b"1")
        await eventually(lambda: intake.dropped == 3)
        assert len(intake.room.waiting) == 4
        assert await asyncio.wait_for(intake.driver.ping(), 10)
        await eventually(lambda: intake._refused == 0)
        service.deliveries[0].answer()
        await peer.publish("noted", b"5")
        await eventually(lambda: len(intake.room.waiting) == 4)
    told = re.findall("Refused (\\d+) messages: too many wait", caplog.text)
    assert sum(map(int, told)) == 3


async def test_what_waits_when_the_connection_is_lost(nats_server: NATS) -> None:
    """Events are still handled; nobody could be told what a request came to."""
    service = Service(None)
    url = nats_server.url
    async with serving(url, ["asked"], service, limit=1) as intake, Peer(url) as peer:
        for body in (b"1", REQUEST, b"2"):
            await peer.publish("asked", body, reply="_INBOX.mine")
        await eventually(lambda: len(intake.room.waiting) == 2)
        intake.driver.abort("cut")
        await asyncio.wait_for(asyncio.shield(intake.closed), 10)
        service.deliveries[0].end()
        assert [one.data for one in service.deliveries] == [1, 2]


async def test_request_without_room_is_answered(
    nats_server: NATS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, as an error; nobody waits for an answer that cannot come."""
    monkeypatch.setattr(intake_module, "MOST_WAITING", 1)
    monkeypatch.setattr(intake_module, "GLANCE", 0.0)
    service = Service(None)
    url = nats_server.url
    async with (
        serving(url, ["asked"], service, limit=1) as intake,
        linked(url) as calls,
    ):
        for id_ in ("runs", "waits"):
            calls.send("asked", id_=id_)
        await eventually(lambda: intake.room.is_paused and not intake.driver.deaf)
        calls.send("asked", id_="refused")
        (reply,) = await calls.came(1)
    assert reply.id == "refused"
    assert json.loads(reply.error or b"") == {
        "status": "error",
        "message": "The server is overloaded.",
    }


async def test_pause_finishes_what_came(nats_server: NATS) -> None:
    """After it nothing new comes, and what came is answered."""

    def answer(delivery: Delivery) -> None:
        if delivery.message.id != "first":
            delivery.answer()

    service = Service(answer)
    url = nats_server.url
    async with serving(url, ["asked"], service) as intake, linked(url) as calls:
        calls.send("asked", id_="first")
        await service.came(1)
        pausing = asyncio.ensure_future(intake.pause())
        while not calls or not calls[-1].missing:
            calls.send("asked", id_=str(len(calls)))
            await calls.came(len(calls) + 1)
        assert not pausing.done()
        service.deliveries[0].answer()
        await asyncio.wait_for(pausing, 10)
        await eventually(lambda: calls[-1].id == "first")


async def test_pause_on_a_dead_connection(free_port: Callable[[], int]) -> None:
    """Leaving waits for nobody who is gone."""
    async with FakeServer(free_port()) as fake, serving(fake.url, ["a"]) as intake:
        fake.writers[0].transport.abort()
        await asyncio.wait_for(asyncio.shield(intake.closed), 10)
        await asyncio.wait_for(intake.pause(), 10)
        assert intake.address == f"nats://127.0.0.1:{fake.port}"


class Walled(NATSProcess):
    """A server whose user may hear little."""

    def _security(self) -> dict[str, Any]:
        may = {"subscribe": ["open", "_INBOX.>"], "publish": [">"]}
        user = {"user": "me", "password": "p", "permissions": may}
        return {"authorization": {"users": [user]}}


class WalledNATS(NATS):
    """The same."""

    kind = Walled


async def test_what_a_user_may_not_hear(start_server: StartServer) -> None:
    """No retry mends that, on either side."""
    server = start_server(WalledNATS)
    options: dict[str, Any] = {"user": "me", "password": "p"}
    async with serving(server.url, ["open"], **options):
        pass
    with pytest.raises(TransportRefused, match='Subscription to "closed"'):
        async with serving(server.url, ["open", "closed"], **options):
            pass
    with pytest.raises(TransportRefused, match="_INBOX_shop"):
        async with linked(server.url, inbox_prefix="_INBOX_shop", **options):
            pass
