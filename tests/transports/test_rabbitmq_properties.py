"""What stands beside the body of an AMQP message: read, written, and never trusted."""

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands

from django_microservices.transports.rabbitmq.afterlife import (
    Copy,
    came_by,
    copy_to_retry,
    dead_letter,
    deliveries_of,
)
from django_microservices.transports.rabbitmq.outgoing import Outgoing
from django_microservices.transports.rabbitmq.packets import read_answer, reply_text
from django_microservices.transports.rabbitmq.properties import (
    essentials,
    of_item,
    of_reply,
    read_properties,
    read_texts,
    write_texts,
)
from django_microservices.transports.rabbitmq.protocol import DELIVER, Content
from django_microservices.transports.rabbitmq.wire import RabbitMQWire
from django_microservices.wire.messages import UNSET, Message, Reply
from django_microservices.wire.packets import NO_HANDLER
from django_microservices.wire.patterns import Pattern

ROOM = 131_000
SHORT = st.text(max_size=60)
TEXTS = st.dictionaries(st.text(min_size=1, max_size=30), st.text(max_size=60))
SOME = st.none() | SHORT.filter(bool)
DIRECT = "amq.rabbitmq.reply-to"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=6,
)


def read(raw: bytes) -> commands.Basic.Properties:
    """Read properties, as pamqp does."""
    return read_properties(raw)


def content(
    properties: commands.Basic.Properties | None = None,
    exchange: str = "amq.topic",
    key: str = "orders.new",
    raw: bytes = b"\0\0",
) -> Content:
    """Make a delivery."""
    names = b"".join(bytes((len(n),)) + n.encode() for n in (exchange, key))
    arguments = b"\x03tag" + (7).to_bytes(8, "big") + b"\x01" + names
    packed = raw if properties is None else properties.marshal()
    return Content(1, DELIVER, arguments, packed, b"{}", 2)


def message(id_: Any = UNSET, **more: Any) -> Message:
    """Make what a client sends."""
    return Message(Pattern.of("orders.new"), b"1", id_, **more)


def outgoing(**options: Any) -> Outgoing:
    """Make a packer."""
    given: dict[str, Any] = {"headers": {}, "persistent": None, "names_events": True}
    return Outgoing(**given | {"user": "guest"} | options, known={})


# --- reading ---


@given(
    st.builds(
        commands.Basic.Properties,
        content_type=SOME,
        content_encoding=SOME,
        headers=TEXTS.map(dict),
        delivery_mode=st.sampled_from((None, 1, 2)),
        priority=st.none() | st.integers(0, 255),
        correlation_id=SOME,
        reply_to=SOME,
        expiration=SOME,
        message_id=SOME,
    )
)
def test_essentials(properties: commands.Basic.Properties) -> None:
    """Whatever else is there, what each message is asked for is found."""
    table, *names = essentials(properties.marshal())
    wanted = (properties.correlation_id, properties.reply_to)
    assert names == [None if one is None else one.encode() for one in wanted]
    assert read_texts(table or b"") == properties.headers


@given(st.binary(max_size=60))
def test_anything_is_survived(raw: bytes) -> None:
    """Bytes of strangers are properties, or a ``ValueError``."""
    for function in (essentials, read_texts, read_properties):
        try:
            function(raw)
        except ValueError:
            continue


def test_time_that_no_calendar_has() -> None:
    """A header of an impossible time is an error like any other."""
    table = b"\x01aT" + b"\x7f" + b"\xff" * 7
    for function, raw in (
        (read_texts, table),
        (read_properties, b"\x20\0" + len(table).to_bytes(4, "big") + table),
    ):
        with pytest.raises(ValueError, match=r".+"):
            function(raw)


def test_cut_off_properties() -> None:
    """Properties that end too early are an error."""
    with pytest.raises(ValueError, match="cut off"):
        essentials(b"\x04\0")
    with pytest.raises(ValueError, match="cut off"):
        essentials(b"\x80")


@given(TEXTS)
def test_texts_are_written_and_read(headers: dict[str, str]) -> None:
    """Headers come back as they were, and are the reader's own."""
    table = write_texts(headers)[4:]
    read_texts(table)["changed"] = "yes"
    assert read_texts(table) == headers


def test_headers_that_are_no_texts() -> None:
    """Of a peer's headers those that are texts are handed on."""
    when = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    headers: Any = {"a": "b", "n": 1, "list": [1], "when": when, "table": {"x": "y"}}
    table = essentials(commands.Basic.Properties(headers=headers).marshal())[0]
    assert read_texts(table or b"") == {"a": "b"}


def test_many_kinds_of_headers_are_forgotten() -> None:
    """What peers write is remembered within bounds."""
    for number in range(2000):
        assert read_texts(write_texts({"n": str(number)})[4:]) == {"n": str(number)}


def test_deep_headers() -> None:
    """A table in a table in a table is an error, not the end."""
    table = b""
    for _ in range(3000):
        table = b"\x01aF" + len(table).to_bytes(4, "big") + table
    with pytest.raises(ValueError, match="recursion"):
        read_texts(table)
    with pytest.raises(ValueError, match="recursion"):
        read_properties(b"\x20\0" + len(table).to_bytes(4, "big") + table)


def test_name_of_a_header_is_short() -> None:
    """A name over 128 bytes is an error."""
    with pytest.raises(ValueError, match="more than 128 bytes"):
        write_texts({"x" * 129: ""})


def test_name_of_a_header_beside_others_is_short() -> None:
    """So it is where pamqp would cut it."""
    one = message(headers={"x" * 129: "a"})
    with pytest.raises(ValueError, match="more than 128 bytes"):
        outgoing().of_event(one)


# --- what a client sends ---


def test_request() -> None:
    """A request says whom to answer, its id, and how long it is of use."""
    packer = outgoing()
    for id_ in ("a1", "b2"):
        found = read(packer.of_request(message(id_, timeout=5.0), DIRECT))
        assert (found.correlation_id, found.reply_to) == (id_, DIRECT)
        assert (found.delivery_mode, found.expiration) == (1, "6000")
        assert found.headers == {"dm-peer": "1", "dm-timeout": "5000"}


def test_request_without_a_timeout() -> None:
    """A request that waits for ever does not expire."""
    found = read(outgoing().of_request(message("a1"), DIRECT))
    assert (found.expiration, found.headers) == (None, {"dm-peer": "1"})


def test_request_with_headers() -> None:
    """The client's headers and the message's travel beside ours; the message's win."""
    packer = outgoing(headers={"a": "client", "b": "client"}, persistent=True)
    one = message("a1", timeout=1.0, headers={"a": "message"}, options={"priority": 3})
    found = read(packer.of_request(one, DIRECT))
    assert found.headers == {
        "a": "message",
        "b": "client",
        "dm-peer": "1",
        "dm-timeout": "1000",
    }
    assert (found.delivery_mode, found.priority) == (2, 3)
    assert (found.correlation_id, found.reply_to) == ("a1", DIRECT)
    assert found.expiration == "2000"


def test_request_with_an_expiration() -> None:
    """What the caller says of it counts more than its timeout."""
    one = message("a1", timeout=1.0, options={"expiration": 9})
    assert read(outgoing().of_request(one, DIRECT)).expiration == "9000"


def test_request_with_headers_that_waits_for_ever() -> None:
    """It does not expire either."""
    found = read(outgoing().of_request(message("a1", headers={"a": "b"}), DIRECT))
    assert found.expiration is None


@pytest.mark.parametrize("headers", [None, {"a": "b"}])
def test_request_that_waits_for_longer_than_the_broker_knows(
    headers: dict[str, str] | None,
) -> None:
    """It does not expire: the broker would end the channel of all requests."""
    timeouts = (4_294_966.0, 4_294_967.0, 1e9)
    found = [
        read(outgoing().of_request(message("a1", timeout=t, headers=headers), DIRECT))
        for t in timeouts
    ]
    assert [one.expiration for one in found] == ["4294967000", None, None]


def test_many_timeouts_are_forgotten() -> None:
    """What recurs is kept within bounds."""
    packer = outgoing()
    for number in range(1, 1500):
        packer.of_request(message("a", timeout=float(number)), DIRECT)
    assert len(packer.known) < 1100


def test_event() -> None:
    """An event is persistent, and has an id of its own and nothing else."""
    raw, name = outgoing().of_event(message())
    found = read(raw)
    assert (found.delivery_mode, found.message_id) == (2, name)
    assert (found.correlation_id, found.reply_to, found.headers) == (None, None, None)


@pytest.mark.parametrize(("persistent", "mode"), [(None, 2), (True, 2), (False, 1)])
def test_persistence(persistent: bool | None, mode: int) -> None:  # noqa: FBT001
    """The option decides for events; Nest's own delivery names none."""
    packer = outgoing(persistent=persistent, names_events=False)
    raw, name = packer.of_event(message())
    assert (read(raw).delivery_mode, read(raw).message_id, name) == (mode, None, None)


def test_options_of_one_message() -> None:
    """Each option of a message becomes the property of that name."""
    when = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    options = {
        "app_id": "shop",
        "bcc": ["hidden"],
        "cc": ["seen"],
        "content_encoding": "identity",
        "content_type": "application/json",
        "expiration": datetime.timedelta(seconds=2),
        "message_id": "m1",
        "persistent": False,
        "priority": 7,
        "timestamp": when,
        "type": "order",
        "user_id": "guest",
        "qos": 1,
    }
    raw, name = outgoing().of_event(message(options=options, headers={"h": "v"}))
    found = read(raw)
    assert name == "m1"
    assert dict(found) == {
        "app_id": "shop",
        "cluster_id": "",
        "content_encoding": "identity",
        "content_type": "application/json",
        "correlation_id": None,
        "delivery_mode": 1,
        "expiration": "2000",
        "headers": {"h": "v", "CC": ["seen"], "BCC": ["hidden"]},
        "message_id": "m1",
        "message_type": "order",
        "priority": 7,
        "reply_to": None,
        "timestamp": when,
        "user_id": "guest",
    }


def test_event_with_options_has_an_id() -> None:
    """An id is made where the options give none."""
    raw, name = outgoing().of_event(message(options={"priority": 1}))
    assert name
    assert read(raw).message_id == name


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"priority": 300}, ValueError),
        ({"priority": "high"}, ValueError),
        ({"content_type": 5}, ValueError),
        ({"expiration": -1}, ValueError),
        ({"expiration": 4_294_968}, ValueError),
        ({"expiration": "soon"}, TypeError),
        ({"message_id": "x" * 300}, ValueError),
        ({"cc": "orders"}, ValueError),
        ({"cc": 5}, ValueError),
        ({"bcc": ["a", 5]}, ValueError),
        ({"bcc": ["x" * 300]}, ValueError),
        ({"user_id": "somebody"}, ValueError),
    ],
)
def test_wrong_option(options: dict[str, Any], error: type[Exception]) -> None:
    """An option that cannot travel is an error that names it."""
    with pytest.raises(error, match="options"):
        outgoing().of_event(message(options=options))


def test_user_of_a_certificate() -> None:
    """Where the broker alone knows who we are it is left to the broker."""
    raw, _ = outgoing(user=None).of_event(message(options={"user_id": "me"}))
    assert read(raw).user_id == "me"


@pytest.mark.parametrize("name", ["CC", "BCC"])
def test_headers_of_the_broker(name: str) -> None:
    """What the broker would end everybody's channel for is refused."""
    with pytest.raises(ValueError, match="headers"):
        outgoing().of_event(message(headers={name: "orders"}))


def test_event_that_must_arrive_has_an_id() -> None:
    """Also where events have none."""
    raw, name = outgoing(names_events=False).of_event(message(), mandatory=True)
    assert name
    assert read(raw).message_id == name


# --- replies ---


def test_properties_of_replies() -> None:
    """A reply carries the correlation id alone; a stream's item where to end it."""
    assert dict(read(of_reply(b"a1"))) == dict(
        commands.Basic.Properties(correlation_id="a1")
    )
    assert dict(read(of_reply(None))) == dict(commands.Basic.Properties())
    item = read(of_item(b"a1"))
    assert (item.correlation_id, item.reply_to) == ("a1", DIRECT)


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Reply("i", b"6"), b'{"response":6,"isDisposed":true}'),
        (Reply("i", b"6", last=False), b'{"response":6}'),
        (Reply("i"), b'{"isDisposed":true}'),
        (Reply("i", last=False), b"{}"),
        (Reply("i", None, b'"no"'), b'{"err":"no","isDisposed":true}'),
        (
            Reply("i", missing=True),
            b'{"id":"i","status":"error","err":"%b"}' % NO_HANDLER.encode(),
        ),
    ],
)
def test_replies_have_no_id(reply: Reply, text: bytes) -> None:
    """Only the one that says "no handler" has an id, as Nest's."""
    assert reply_text(reply) == text
    found = read_answer("i", text)
    assert (found.id, found.last, found.missing) == ("i", reply.last, reply.missing)
    assert bytes(found.data or b"") == (reply.data or b"")


@pytest.mark.parametrize("body", [b"{", b"7", b"[]", b""])
def test_unreadable_reply_ends_its_call(body: bytes) -> None:
    """A reply that is none ends the request, with what cannot be decoded."""
    reply = read_answer("i", body)
    assert (reply.id, reply.last, reply.data) == ("i", True, b"(not JSON)")


# --- retries and dead letters ---


def test_first_delivery() -> None:
    """Without a history a message was delivered once."""
    assert deliveries_of(content()) == 1
    assert came_by(content()) == ("amq.topic", "orders.new")


@pytest.mark.parametrize(
    ("headers", "count"),
    [
        ({"x-dm-attempts": 3}, 4),
        ({"x-delivery-count": 2}, 3),
        ({"x-dm-attempts": 1, "x-delivery-count": 2}, 4),
        ({"x-dm-attempts": -5}, 1),
        ({"x-dm-attempts": "many"}, 1),
    ],
)
def test_deliveries_are_counted(headers: Any, count: int) -> None:
    """Our own count and a quorum queue's are added."""
    properties = commands.Basic.Properties(headers=headers)
    assert deliveries_of(content(properties)) == count


def test_copy_to_retry() -> None:
    """The copy says how often and by what it came, and keeps what it was."""
    headers: Any = {"h": "v", "CC": ["other"], "x-death": [{"count": 1}]}
    properties = commands.Basic.Properties(
        headers=headers,
        correlation_id="c",
        delivery_mode=1,
        expiration="10",
        message_id="m1",
        user_id="guest",
    )
    copy = copy_to_retry(content(properties), 2, ROOM)
    found = read(copy.properties)
    assert (copy.name, copy.body) == ("m1", b"{}")
    assert found.headers == {
        "h": "v",
        "x-dm-attempts": 2,
        "x-dm-exchange": "amq.topic",
        "x-dm-routing-key": "orders.new",
    }
    assert (found.correlation_id, found.message_id) == ("c", "m1")
    assert (found.delivery_mode, found.expiration, found.user_id) == (2, None, None)
    again = content(found, "", "orders")
    assert came_by(again) == ("amq.topic", "orders.new")
    assert deliveries_of(again) == 3


def test_dead_letter() -> None:
    """A dead letter has its reason in one line, and an id."""
    copy = dead_letter(content(), 5, ROOM, "no\nhandler")
    headers = read(copy.properties).headers or {}
    assert headers["x-dm-reason"] == "no\\nhandler"
    assert headers["x-dm-attempts"] == 5
    assert read(copy.properties).message_id == copy.name


@given(st.dictionaries(st.text(max_size=9), VALUES, max_size=5))
def test_any_headers_are_copied(headers: dict[str, Any]) -> None:
    """Whatever pamqp can read a copy can be made of."""
    properties = commands.Basic.Properties(headers=headers)
    found = read(copy_to_retry(content(properties), 1, ROOM).properties).headers or {}
    assert found["x-dm-attempts"] == 1


@given(st.binary(max_size=80))
def test_any_properties_are_copied(raw: bytes) -> None:
    """A copy can be made whatever a peer wrote."""
    assert isinstance(dead_letter(content(raw=raw), 1, ROOM, "unreadable"), Copy)


TABLE = (
    b"\x05priced@3\xfdp\xa3\xd7\n="  # 19.99, which pamqp writes as another number
    b"\x04huged\x7e\x37\xe4\x3c\x88\x00\x75\x9c"
    b"\x04textS\0\0\0\x01\xff"
    b"\x04whenT\xff\xff\xff\xff\xff\xff\xff\xff"
    b"\x04listA\0\0\0\x02t\x01\x04noneV"
)


def test_headers_are_copied_byte_for_byte() -> None:
    """Whatever another publisher's driver wrote, the copy says the same."""
    raw = b"\x20\x40" + len(TABLE).to_bytes(4, "big") + TABLE + b"\xff" * 8
    for copy in (
        copy_to_retry(content(raw=raw), 1, ROOM),
        dead_letter(content(raw=raw), 1, ROOM, "no"),
    ):
        assert TABLE in copy.properties
        assert b"\xff" * 8 in copy.properties
        assert deliveries_of(content(raw=copy.properties)) == 2


@pytest.mark.parametrize("table", [b"\x01a?", b"\x09a", b"\x01aS\0\0\0\x09x", b"\x01a"])
def test_headers_that_cannot_be_read(table: bytes) -> None:
    """They are left out; the copy is made all the same."""
    raw = b"\x20\0" + len(table).to_bytes(4, "big") + table
    headers = read(copy_to_retry(content(raw=raw), 1, ROOM).properties).headers or {}
    assert headers.keys() == {"x-dm-attempts", "x-dm-exchange", "x-dm-routing-key"}


def test_count_that_a_stranger_wrote() -> None:
    """A copy can be made of a message that came more often than anything can."""
    table = b"\x0dx-dm-attemptsl\x7f" + b"\xff" * 7
    one = content(raw=b"\x20\0" + len(table).to_bytes(4, "big") + table)
    copy = copy_to_retry(one, deliveries_of(one), ROOM)
    assert (read(copy.properties).headers or {})["x-dm-attempts"] == 2**31 - 1


def test_first_key_that_is_no_text() -> None:
    """A header of ours that somebody else wrote is taken for nothing."""
    headers: Any = {"x-dm-routing-key": 5}
    properties = commands.Basic.Properties(headers=headers)
    assert came_by(content(properties, exchange="")) == ("", "")


def test_headers_that_leave_no_room() -> None:
    """Headers that fill a frame make way for ours."""
    properties = commands.Basic.Properties(headers={"big": "x" * 130_000})
    copy = copy_to_retry(content(properties), 1, 4000)
    assert len(copy.properties) < 1000
    assert read(copy.properties).message_id == copy.name


def test_wire() -> None:
    """The context's wire tells what Nest's ``getMessage()`` does."""
    properties = commands.Basic.Properties(priority=4, app_id="shop")
    wire = RabbitMQWire(content(properties))
    assert (wire.exchange, wire.routing_key) == ("amq.topic", "orders.new")
    assert (wire.delivery_tag, wire.consumer_tag, wire.redelivered) == (7, "tag", True)
    assert (wire.properties.priority, wire.properties.app_id) == (4, "shop")
    assert wire.body == b"{}"
