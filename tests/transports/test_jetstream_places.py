"""Streams and consumers: made where they are missing, as the options say."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig

from django_microservices import NotConnected, TransportRefused
from django_microservices.transports.jetstream import JetStreamTransport
from django_microservices.transports.jetstream.api import API
from django_microservices.transports.nats.inbox import Inbox
from django_microservices.wire.messages import UNSET, Subscription
from django_microservices.wire.patterns import Pattern
from tests.brokers.nats import NATS, NATSProcess

from .jetstream_ends import Place, looking
from .nats_scripts import FakeServer
from .peers import Service

Ports = Callable[[], int]
StartServer = Callable[..., NATS]


async def begin(place: Place, *patterns: str, **options: Any) -> None:
    """Serve, and leave."""
    async with place.serving(patterns or ["noted"], **options):
        pass


# --- streams ----------------------------------------------------------------------


async def test_streams_are_made(place: Place) -> None:
    """One for events, and one for the dead of them."""
    options: dict[str, Any] = {"storage": "file", "max_age": 3600.0}
    async with place.serving(["noted"], **options), looking(place) as look:
        info = (await look.jetstream.stream_info(place.stream)).config
        dead = (await look.jetstream.stream_info(f"{place.stream}-dead")).config
    assert info.subjects == [f"dm-{place.stream}.>", f"dm-{place.stream}-later.>"]
    assert (info.storage, info.num_replicas, info.max_age) == ("file", 1, 3600)
    assert dead.subjects == [f"dm-{place.stream}-dead.>"]
    assert not dead.max_age


async def test_names_are_options(place: Place) -> None:
    """The prefix, the subjects and the place of the dead."""
    options: dict[str, Any] = {
        "subject_prefix": f"p.{place.stream}",
        "dead_letters": f"{place.stream}-x",
    }
    place.options |= {"subject_prefix": options.pop("subject_prefix")}
    service = Service()
    async with place.serving(["noted"], service, **options), looking(place) as look:
        await place.emit("noted", b"1")
        await service.came(1)
        info = (await look.jetstream.stream_info(place.stream)).config
        await look.jetstream.stream_info(f"{place.stream}-x")
    assert info.subjects is not None
    assert info.subjects[0] == f"p.{place.stream}.>"


async def test_stream_that_is_there_is_left_alone(place: Place) -> None:
    """Whoever made it: our options do not change it."""
    async with looking(place) as look:
        subjects = [f"dm-{place.stream}.*", f"dm-{place.stream}.a.>"]
        await look.jetstream.add_stream(
            StreamConfig(place.stream, subjects=subjects, max_msgs=7)
        )
        for subject in ("noted", "a.b.c"):
            place.options["subjects"] = [f"dm-{place.stream}.{subject}"]
            await begin(place, subject, max_age=60.0)
        info = (await look.jetstream.stream_info(place.stream)).config
    assert info.subjects == subjects
    assert (info.max_msgs, info.max_age) == (7, 0)


async def test_stream_that_takes_other_subjects(place: Place) -> None:
    """A server that would never hear of its events does not start."""
    async with looking(place) as look:
        await look.jetstream.add_stream(StreamConfig(place.stream, subjects=["x.y"]))
        with pytest.raises(TransportRefused, match=r"takes \['x.y'\], but not"):
            await begin(place)
        await look.jetstream.delete_stream(place.stream)


async def test_stream_that_cannot_be_made(place: Place) -> None:
    """Nor does one whose stream JetStream refuses."""
    with pytest.raises(TransportRefused, match=f"'{place.stream}' .* replicas"):
        await begin(place, replicas=3)
    async with place.serving(["noted"]):
        other = Place(place.url)
        other.options["subject_prefix"] = f"dm-{place.stream}"
        with pytest.raises(TransportRefused, match="overlap"):
            await begin(other)


async def test_two_begin_at_once(place: Place) -> None:
    """Whoever makes the stream first, all get it, whatever they would have made."""
    ages = range(10, 20)
    await asyncio.gather(*(begin(place, group=f"g{n}", max_age=n) for n in ages))


async def test_stream_of_another_kind(place: Place) -> None:
    """A mirror takes no subjects at all."""
    async with place.serving(["noted"]), looking(place) as look:
        mirror = Place(place.url)
        await look.peer.client.request(
            f"$JS.API.STREAM.CREATE.{mirror.stream}",
            b'{"name":"%b","mirror":{"name":"%b"}}'
            % (mirror.stream.encode(), place.stream.encode()),
            timeout=10,
        )
        with pytest.raises(TransportRefused, match="but not"):
            await begin(mirror)


# --- consumers --------------------------------------------------------------------


async def test_consumer_is_made(place: Place) -> None:
    """A durable one for each pattern of each service, which JetStream never buries."""
    options: dict[str, Any] = {"ack_wait": 7.0, "max_ack_pending": 50}
    async with place.serving(["a.*", "noted"], **options), looking(place) as look:
        found = await look.jetstream.consumers_info(place.stream)
    configs = {str(one.config.description): one.config for one in found}
    assert configs.keys() == {"a.* for orders", "noted for orders"}
    config = configs["noted for orders"]
    assert config.durable_name == config.name == "orders=noted"
    assert config.filter_subject == f"dm-{place.stream}.noted"
    assert (config.ack_wait, config.max_ack_pending, config.max_deliver) == (7, 50, -1)


async def test_consumer_follows_our_options(place: Place) -> None:
    """It is ours, and goes on where it was: with what it began counts no more."""
    await begin(place, ack_wait=7.0, deliver_policy="new")
    await begin(place, ack_wait=8.0, deliver_policy="all")
    async with looking(place) as look:
        info = await look.jetstream.consumer_info(place.stream, "orders=noted")
    assert (info.config.ack_wait, info.config.deliver_policy) == (8, "new")


async def test_consumer_that_cannot_be_had(place: Place) -> None:
    """The error names it and the options, whether it is there or not."""
    async with looking(place) as look:
        await look.jetstream.add_stream(
            StreamConfig(
                place.stream, subjects=[f"dm-{place.stream}.>"], max_consumers=1
            )
        )
        await look.jetstream.add_consumer(
            place.stream, ConsumerConfig("orders=noted", ack_policy=AckPolicy.NONE)
        )
        for pattern, problem in (("noted", "ack policy"), ("other", "maximum")):
            named = f"'orders={pattern}' .options ack_wait, .*: JetStream: {problem}"
            with pytest.raises(TransportRefused, match=named):
                await begin(place, pattern)


@pytest.mark.parametrize("kinds", [("event", "request"), ("request", "event")])
async def test_pattern_of_events_and_requests(
    place: Place, kinds: tuple[str, ...]
) -> None:
    """It asks for as many events as there is room for, whichever came first."""
    wire = JetStreamTransport(url=place.url, group="orders", **place.options)
    wanted = [Subscription(Pattern.of("both"), kind) for kind in kinds]
    wanted += [Subscription(Pattern.of("asked"), "request")]
    async with wire.serve(wanted, Service(), lambda _: None, limit=10) as intake:
        batches = {one.name: one.batch for one in intake.consumers}
    assert batches == {"orders=both": 10, "orders=asked": 1}


# --- Nest's own subjects ----------------------------------------------------------


async def test_subjects_without_a_prefix(nats_server: NATS) -> None:
    """With ``subject_prefix=""`` what a Nest client emits is stored as well."""
    place = Place(nats_server.url)
    name = place.stream
    place.options |= {"subject_prefix": "", "subjects": [f"{name}.noted"]}
    service, asked = Service(), Service()
    wanted = [
        Subscription(Pattern.of(f"{name}.noted"), "event"),
        Subscription(Pattern.of(f"{name}.asked"), "request"),
    ]
    wire = JetStreamTransport(url=place.url, group="orders", **place.options)
    deliver = lambda m, r: (service if m.is_event else asked)(m, r)  # noqa: E731
    async with (
        wire.serve(wanted, deliver, lambda _: None, limit=10),
        place.linked() as calls,
        looking(place) as look,
    ):
        await look.peer.publish(f"{name}.noted", b'{"pattern":"x","data":1}')
        await calls.send(f"{name}.noted", b"2", UNSET)
        calls.send(f"{name}.asked")
        await calls.came(1)
        await service.came(2)
        assert await look.count() == 2
    assert sorted(one.data for one in service.deliveries) == [1, 2]


async def test_stream_may_not_take_requests(place: Place) -> None:
    """It would answer them, before any handler does."""
    place.options |= {"subject_prefix": "", "subjects": [f"{place.stream}.>"]}
    with pytest.raises(TransportRefused, match="would answer its requests"):
        await begin(place, f"{place.stream}.asked", kind="request")


async def test_patterns_under_the_prefix(place: Place) -> None:
    """Under a prefix of one's own there may be patterns: they are refused."""
    place.options["subject_prefix"] = place.stream
    with pytest.raises(TransportRefused, match="would answer its requests"):
        await begin(place, f"{place.stream}.noted")
    async with place.linked() as calls:
        with pytest.raises(ValueError, match="the prefix of events"):
            calls.send(f"{place.stream}.asked")


@pytest.mark.parametrize("own_prefix", ["", "p"])
async def test_wide_pattern_beside_the_stream(place: Place, own_prefix: str) -> None:
    """A pattern of everything gets each event once, and none of what is stored."""
    service = Service()
    if own_prefix:
        place.options["subject_prefix"] = f"{own_prefix}{place.stream}"
    async with place.serving([">", "*.b"], service):
        await place.emit("a.b", b"1")
        await service.came(2)
        await place.emit("end", b"1")
        deliveries = await service.came(3)
    found = [one.message.pattern.route for one in deliveries]
    assert sorted(found) == ["a.b", "a.b", "end"]


# --- options ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"stream": "a.b"},
        {"stream": ""},
        {"dead_letters": "a b"},
        {"subject_prefix": "a.*"},
        {"subject_prefix": ""},
    ],
)
def test_wrong_option(options: dict[str, Any]) -> None:
    """The error names the option."""
    with pytest.raises(ValueError, match=r"^[a-z_]+: "):
        JetStreamTransport(**options)


@pytest.mark.parametrize("group", [None, ""])
async def test_service_without_a_name(group: str | None) -> None:
    """A durable consumer is somebody's."""
    wire = JetStreamTransport(group=group)
    with pytest.raises(TransportRefused, match="group: "):
        async with wire.serve([], Service(), lambda _: None, limit=1):
            pass


# --- no JetStream -----------------------------------------------------------------


class Plain(NATSProcess):
    """A server without JetStream."""

    def _security(self) -> dict[str, Any]:
        return {"jetstream": False}


class PlainNATS(NATS):
    """The same."""

    kind = Plain


async def test_jetstream_is_not_enabled(start_server: StartServer) -> None:
    """That may be so for a while, after a start."""
    with pytest.raises(NotConnected, match="JetStream"):
        await begin(Place(start_server(PlainNATS).url))


async def test_jetstream_does_not_answer(free_port: Ports) -> None:
    """It is waited for, and not for ever."""
    async with FakeServer(free_port()) as fake:
        with pytest.raises(NotConnected, match="in time"):
            await begin(Place(fake.url), connect_timeout=0.2)


async def test_jetstream_is_not_for_this_user(free_port: Ports) -> None:
    """What NATS refused is what is wrong."""
    denied = b"-ERR 'Permissions Violation for Publish to \"$JS.API.x\"'\r\n"
    async with FakeServer(free_port()) as fake, asyncio.TaskGroup() as group:

        async def deny() -> None:
            await fake.hears(b"STREAM.INFO")
            fake.say(denied)

        group.create_task(deny())
        with pytest.raises(TransportRefused, match="Permissions Violation"):
            await begin(Place(fake.url), connect_timeout=0.2)


@pytest.mark.parametrize("version", ["2.12.0", "2.15.1", "3.0"])
async def test_events_of_later(free_port: Ports, version: str) -> None:
    """A stream has a place for them."""
    assert "allow_msg_schedules" in await _config(free_port(), version)


@pytest.mark.parametrize("version", ["2.11.9", "2.2.0", ""])
async def test_older_server_knows_no_later(free_port: Ports, version: str) -> None:
    """It gets a stream that can be made there."""
    assert "allow_msg_schedules" not in await _config(free_port(), version)


async def _config(port: int, version: str) -> dict[str, Any]:
    """Return the stream that is made on a server of this version."""
    async with FakeServer(port, info={"version": version}) as fake:
        wire = JetStreamTransport(url=fake.url)
        async with wire.servers.connected() as connection:
            api = API(Inbox(connection, "_INBOX"), "hub")
    assert api.subject("INFO") == b"$JS.hub.API.INFO"
    return wire.stream.config(schedules=api.schedules)


@pytest.mark.parametrize(
    ("code", "error"),
    [(503, NotConnected), (500, NotConnected), (400, TransportRefused)],
)
async def test_refusal(free_port: Ports, code: int, error: type[Exception]) -> None:
    """What is JetStream's own fault may pass; what is ours does not."""
    refusal = b'{"error":{"code":%d,"err_code":10008,"description":"no"}}' % code
    async with FakeServer(free_port()) as fake, asyncio.TaskGroup() as group:

        async def refuse() -> None:
            await fake.hears(b"STREAM.INFO")
            line = next(x for x in fake.heard.split(b"\r\n") if b"STREAM.INFO" in x)
            inbox = line.split()[2]
            fake.say(b"MSG %b 1 %d\r\n%b\r\n" % (inbox, len(refusal), refusal))

        group.create_task(refuse())
        with pytest.raises(error, match="JetStream: no"):
            await begin(Place(fake.url))
