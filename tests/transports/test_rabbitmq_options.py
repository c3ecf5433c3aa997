"""RabbitMQ's options: read, refused, and what follows from them."""

import base64
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from pamqp import commands

from django_microservices.exceptions import (
    ConnectionLost,
    InvalidMessage,
    NoHandler,
    NotConnected,
    TransportRefused,
)
from django_microservices.options import build_transport
from django_microservices.transports.rabbitmq import RabbitMQTransport
from django_microservices.transports.rabbitmq.address import Address, read_address
from django_microservices.transports.rabbitmq.errors import BrokerClosed, copied
from django_microservices.transports.rabbitmq.handshake import Handshake
from django_microservices.transports.rabbitmq.names import (
    beside,
    binding_key,
    is_private,
    routing_key,
)
from django_microservices.transports.rabbitmq.topology import queue_arguments
from django_microservices.wire.patterns import Pattern


def built(end: str = "server", **options: Any) -> RabbitMQTransport:
    """Make a transport as settings do; the service is ``shop``."""
    transport = build_transport(RabbitMQTransport, options, "path", end, lambda: "shop")
    assert isinstance(transport, RabbitMQTransport)
    return transport


# --- urls ---


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("amqp://localhost", Address()),
        ("amqp://host:1", Address("host", 1)),
        ("amqps://host", Address("host", 5671, tls=True)),
        ("amqp://me:p%40ss@host", Address("host", username="me", password="p@ss")),
        ("amqp://me@host", Address("host", username="me")),
        ("amqp://host/", Address("host")),
        ("amqp://host/a%2Fb", Address("host", vhost="a/b")),
        (
            "amqp://host?heartbeat=2.5&frameMax=4096&locale=de_DE",
            Address("host", heartbeat=2.5, frame_max=4096, locale="de_DE"),
        ),
        (
            "amqps://host?auth_mechanism=external",
            Address("host", 5671, tls=True, mechanism="EXTERNAL"),
        ),
        ({}, Address()),
        ({"protocol": "amqps", "hostname": "host"}, Address("host", 5671, tls=True)),
        (
            {
                "hostname": "host",
                "port": 7,
                "username": "me",
                "password": "p",
                "vhost": "v",
                "heartbeat": 3,
                "frame_max": 8192,
                "locale": "de_DE",
            },
            Address("host", 7, False, "me", "p", "v", 3, 8192, "de_DE"),
        ),
    ],
)
def test_url(url: Any, address: Address) -> None:
    """A URL, or its parts, says where the broker is and who we are."""
    assert read_address(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "http://me:s3cret@host",
        "amqp://",
        "me:s3cret@host",
        "amqp://me:s3cret@host:port",
        "amqp://me:s3cret@host?heartbeat=often",
        {"protocol": "http", "password": "s3cret"},
    ],
)
def test_wrong_url(url: Any) -> None:
    """What is no URL of a broker is refused, without its secrets."""
    with pytest.raises(ValueError, match="amqp://host:port") as caught:
        read_address(url)
    assert "s3cret" not in str(caught.value)


def test_unknown_mechanism() -> None:
    """There are two ways to say who one is."""
    with pytest.raises(ValueError, match="'plain' or 'external'"):
        read_address("amqp://host?auth_mechanism=magic")


def test_address_tells_no_secret() -> None:
    """An address as text is without user and password."""
    address = read_address("amqps://me:s3cret@[::1]:7/v")
    assert f"{address} {address!r}" == "amqps://[::1]:7 <Address amqps://[::1]:7>"


def test_response() -> None:
    """PLAIN says user and password, EXTERNAL leaves it to the certificate."""
    assert Address(username="me", password="p").response == "\0me\0p"
    assert Address(mechanism="EXTERNAL").response == ""


def test_one_url_or_many() -> None:
    """``url`` stands for ``urls``; the default is Nest's."""
    assert built(url="amqp://a").route.addresses == [Address("a")]
    assert built(urls=["amqp://a", {"hostname": "b"}]).route.addresses == [
        Address("a"),
        Address("b"),
    ]
    assert built().route.addresses == [Address()]
    with pytest.raises(ImproperlyConfigured, match="one of both"):
        built(url="amqp://a", urls=["amqp://b"])
    with pytest.raises(ImproperlyConfigured, match="none is given"):
        built(urls=[])


# --- queues, exchanges, delivery ---


def test_queue_is_the_service() -> None:
    """A server's queue is its own, else its group, else a private one."""
    assert built().topology.queue == "shop"
    assert built(queue="orders").topology.queue == "orders"
    private = built(group="")
    assert (private.topology.queue, private.shares_work) == ("", False)
    assert built().shares_work


@pytest.mark.parametrize(
    ("options", "exchange", "to_queue"),
    [
        ({}, "amq.topic", False),
        ({"queue": "orders"}, "amq.topic", True),
        ({"queue": "orders", "exchange": ""}, "", True),
        ({"queue": "orders", "wildcards": True}, "orders", False),
        ({"queue": "orders", "wildcards": True, "exchange": "x"}, "x", False),
        ({"wildcards": True}, "amq.topic", False),
        ({"exchange": "x", "exchange_type": "fanout", "queue": "orders"}, "x", False),
        ({"exchange": "x", "exchange_type": "direct", "queue": "orders"}, "x", True),
    ],
)
def test_where_a_client_publishes(
    options: dict[str, Any],
    exchange: str,
    to_queue: bool,  # noqa: FBT001
) -> None:
    """Straight to a queue that is named, as Nest's client; else to the exchange."""
    client = built("client", **options)
    assert (client.topology.exchange, client.sends_to_queue) == (exchange, to_queue)


def test_flags_follow_options() -> None:
    """What the wire can do depends on what it is told."""
    assert built().acknowledges
    assert not built(nest_delivery=True).acknowledges
    assert not built(no_ack=True).acknowledges
    assert built(no_ack=False, nest_delivery=True).acknowledges
    assert built("client").confirms
    assert not built("client", confirms=False).confirms
    assert built("client").no_listener
    assert not built("client", queue="orders").no_listener
    assert built("client", queue="orders", no_assert=True).no_listener
    assert built(queue="orders").answers_unknown
    assert built(exchange="").answers_unknown
    assert not built().answers_unknown


@pytest.mark.parametrize(
    ("options", "requests", "events"),
    [
        ({}, True, False),
        ({"queue": "orders"}, True, True),
        ({"mandatory": True}, True, True),
        ({"mandatory": False, "queue": "orders"}, False, False),
        ({"nest_delivery": True, "queue": "orders"}, False, False),
        ({"nest_delivery": True, "mandatory": True}, True, True),
    ],
)
def test_what_comes_back(
    options: dict[str, Any],
    requests: bool,  # noqa: FBT001
    events: bool,  # noqa: FBT001
) -> None:
    """Requests return where nobody listens; events where they go to one queue."""
    client = built("client", **options)
    assert (client.returns_requests, client.returns_events) == (requests, events)


def test_nest_delivery() -> None:
    """One option restores what Nest does unless told otherwise."""
    nest = built(nest_delivery=True)
    assert (nest.no_ack, nest.prefetch_count) == (True, 0)
    assert built("client", nest_delivery=True).persistent is False
    assert built("client", nest_delivery=True, persistent=True).persistent is True
    assert built("client").persistent is None


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "shop.dead"),
        ({"dead_letter_queue": "cemetery"}, "cemetery"),
        ({"dead_letter_queue": ""}, ""),
        ({"queue_options": {"dead_letter_exchange": "x"}}, ""),
        ({"queue_options": {"arguments": {"x-dead-letter-exchange": "x"}}}, ""),
        ({"queue": ""}, ""),
    ],
)
def test_dead_letters(options: dict[str, Any], name: str) -> None:
    """They have a queue of their own, unless the broker or nobody keeps them."""
    assert built(**options).dead_letters_of("shop") == name


def test_arguments_of_a_queue() -> None:
    """Options become arguments as Nest's driver makes them; times milliseconds."""
    assert queue_arguments({"durable": True, "no_assert": False}) == {}
    assert queue_arguments(
        {
            "arguments": {"x-queue-type": "quorum"},
            "message_ttl": 1.5,
            "expires": 60,
            "dead_letter_exchange": "dlx",
            "dead_letter_routing_key": "key",
            "max_length": 10,
            "max_priority": 5,
        }
    ) == {
        "x-queue-type": "quorum",
        "x-message-ttl": 1500,
        "x-expires": 60_000,
        "x-dead-letter-exchange": "dlx",
        "x-dead-letter-routing-key": "key",
        "x-max-length": 10,
        "x-max-priority": 5,
    }


NAMES = ("queue", "exchange", "routing_key", "consumer_tag", "dead_letter_queue")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        *(({name: "q" * 256}, f"{name}: q.*more than 255 bytes") for name in NAMES),
        ({"prefetch_count": 70_000}, "'prefetch_count'.*0 to 65535"),
        ({"exchange_type": "fanout"}, "exchange: name the one"),
        ({"urls": ["amqp://me:s3cret@"]}, "urls: "),
        (
            {"urls": ["amqps://a", "amqp://b"], "tls_options": {"key": "s3cret"}},
            "amqp://b:5672 speaks no TLS",
        ),
    ],
)
def test_wrong_option(options: dict[str, Any], text: str) -> None:
    """What could never work is refused when settings are read."""
    with pytest.raises(ImproperlyConfigured, match=text) as caught:
        built(**options)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [("CC", "'CC' is the broker's"), ("x" * 129, "more than 128 bytes")],
)
def test_wrong_header(name: str, text: str) -> None:
    """Headers that are the broker's own, or cannot travel, are refused for a client."""
    with pytest.raises(ImproperlyConfigured, match=text):
        built("client", headers={name: "orders"})


def test_socket_options() -> None:
    """Nest's names for what concerns the connection."""
    transport = built(
        max_connection_attempts=3,
        socket_options={
            "heartbeat_interval_in_seconds": 2,
            "reconnect_time_in_seconds": 0.5,
            "connection_options": {"client_properties": {"connection_name": "me"}},
        },
    )
    assert transport.route.manners.heartbeat == 2
    assert transport.route.manners.properties == {"connection_name": "me"}
    assert (transport.retry_attempts, transport.retry_delay) == (3, 0.5)
    assert built().route.manners.heartbeat == 5
    assert built(max_connection_attempts=-1).retry_attempts is None
    assert repr(transport.route) == "<Route to amqp://localhost:5672>"


# --- names ---


@pytest.mark.parametrize(
    "pattern", ["orders.new", "größe", {"cmd": "a b"}, "a..b", "x" * 255, "a*b"]
)
def test_routing_key(pattern: Any) -> None:
    """A pattern's route is its routing key."""
    assert routing_key(Pattern.of(pattern)) == Pattern.of(pattern).route


@pytest.mark.parametrize(
    "pattern", ["", "x" * 256, "ü" * 128, "a\nb", "a\0b", "a\x7f", "a.*", "#", "*.a"]
)
def test_pattern_that_is_no_routing_key(pattern: str) -> None:
    """Control characters, wildcards and too many bytes are refused by name."""
    with pytest.raises(ValueError, match=r"routing key|wildcards"):
        routing_key(Pattern.of(pattern))


def test_binding_key() -> None:
    """A server binds wildcards as they are."""
    assert binding_key(Pattern.of("a.*.#")) == "a.*.#"


def token(
    atom: bytes = b"w\x08",
    *,
    mark: bytes = b"\x83X",
    numbers: int = 12,
    key: bytes = b"k",
) -> bytes:
    """Make an address of direct reply-to, as the broker does, or nearly so."""
    process = mark + atom + b"reply@12" + bytes(numbers)
    parts = [base64.b64encode(part) for part in (process, key)]
    return b"amq.rabbitmq.reply-to." + b".".join(parts)


@pytest.mark.parametrize(
    ("name", "private"),
    [
        (token(), True),
        (token(mark=b"\x83g", numbers=9), True),
        (token(b"d\0\x08"), True),
        (token(b"v\0\x08"), True),
        (b"amq.gen-abc", True),
        (b"amq.rabbitmq.reply-to.", False),
        (b"amq.rabbitmq.reply-to.abc", False),
        (b"amq.rabbitmq.reply-to.!!!", False),
        (b"amq.rabbitmq.reply-to.g1h=.x", False),
        (token().removesuffix(b".aw=="), False),
        (token(key=b""), False),
        (token(mark=b"\x82X"), False),
        (token(mark=b"\x83x"), False),
        (token(b"x\x08"), False),
        (token(b"w\x07"), False),
        (token(numbers=11), False),
        (b"amq.rabbitmq.reply-to", False),
        (b"orders", False),
        (b"", False),
        (b"\xff", False),
    ],
)
def test_private_queues(name: bytes, private: bool) -> None:  # noqa: FBT001
    """Answers go to what can only be a client's own."""
    assert is_private(name) == private


def test_name_beside_a_queue() -> None:
    """A name that would be too long is cut, and still is that queue's alone."""
    names = [beside("ü" * 125 + end, ".retry.1000") for end in "ab"]
    assert beside("orders", ".dead") == "orders.dead"
    assert len(set(names)) == 2
    assert all(len(name.encode()) <= 255 for name in names)
    assert all(name.endswith(".retry.1000") for name in names)


# --- what the broker refuses ---


@pytest.mark.parametrize(
    ("code", "text", "opening", "publishing"),
    [
        (403, "ACCESS_REFUSED", TransportRefused, TransportRefused),
        (406, "PRECONDITION_FAILED", TransportRefused, TransportRefused),
        (503, "COMMAND_INVALID", TransportRefused, TransportRefused),
        (540, "NOT_IMPLEMENTED", TransportRefused, TransportRefused),
        (530, "NOT_ALLOWED - vhost x not found", TransportRefused, TransportRefused),
        (530, "NOT_ALLOWED - connection limit", NotConnected, BrokerClosed),
        (404, "NOT_FOUND", NotConnected, NoHandler),
        (320, "CONNECTION_FORCED", NotConnected, BrokerClosed),
    ],
)
def test_codes(
    code: int, text: str, opening: type[Exception], publishing: type[Exception]
) -> None:
    """What no retry mends is refused for good; a limit may have room again."""
    error = BrokerClosed(code, text)
    assert isinstance(error, ConnectionLost)
    assert type(error.when_opening()) is opening
    assert type(error.when_publishing()) is publishing
    assert str(error.when_opening()) == str(error.when_publishing()) == text


def test_each_gets_an_error_of_its_own() -> None:
    """An error that many get is made anew for each."""
    one = BrokerClosed(404, "NOT_FOUND")
    other = copied(one)
    assert isinstance(other, BrokerClosed)
    assert other is not one
    assert (other.code, str(other)) == (404, "NOT_FOUND")
    assert str(copied(ConnectionLost("gone"))) == "gone"


# --- the first words ---

START = commands.Connection.Start(0, 9, {}, "PLAIN AMQPLAIN", "en_US")


def handshake(**options: Any) -> Handshake:
    """Begin to shake hands."""
    address = Address(username="me", password="p", **options)
    return Handshake(address, {"connection_name": "me"}, 5.0)


def test_handshake() -> None:
    """Who we are, what both can do, and where to."""
    one = handshake(vhost="v")
    (ok,) = one.answer(START)
    assert isinstance(ok, commands.Connection.StartOk)
    assert (ok.mechanism, ok.response, ok.locale) == ("PLAIN", "\0me\0p", "en_US")
    properties: Any = ok.client_properties
    assert properties["connection_name"] == "me"
    assert properties["capabilities"]["consumer_cancel_notify"]
    tuned, opened = one.answer(commands.Connection.Tune(2047, 8192, 60))
    assert isinstance(tuned, commands.Connection.TuneOk)
    assert isinstance(opened, commands.Connection.Open)
    assert (tuned.channel_max, tuned.frame_max, tuned.heartbeat) == (2047, 8192, 5)
    assert opened.virtual_host == "v"
    assert not one.is_done
    assert one.answer(commands.Connection.OpenOk()) == []
    assert one.is_done


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"),
    [(5, 60, 5), (60, 5, 5), (0, 5, 5), (5, 0, 5), (0.4, 5, 1)],
)
def test_heartbeat(ours: float, theirs: int, agreed: int) -> None:
    """The shorter heartbeat counts; 0 is none."""
    one = handshake(heartbeat=ours)
    one.answer(commands.Connection.Tune(1, 0, theirs))
    assert (one.heartbeat, one.frame_max) == (agreed, 131_072)


def test_unknown_mechanisms() -> None:
    """A broker that does not take our kind of proof never will."""
    with pytest.raises(BrokerClosed, match="EXTERNAL is none of") as caught:
        handshake(mechanism="EXTERNAL").answer(START)
    assert caught.value.is_refusal


def test_refused_in_the_handshake() -> None:
    """The broker's own words are kept."""
    with pytest.raises(BrokerClosed, match="ACCESS_REFUSED") as caught:
        handshake().answer(commands.Connection.Close(403, "ACCESS_REFUSED", 0, 0))
    assert caught.value.code == 403


def test_unexpected_words() -> None:
    """What has no place in a handshake is an error."""
    with pytest.raises(InvalidMessage, match="middle of the handshake"):
        handshake().answer(commands.Channel.OpenOk())
