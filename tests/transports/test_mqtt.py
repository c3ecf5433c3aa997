"""The MQTT transport: its options, and what its two halves say to a broker."""

import asyncio
import inspect
import re
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_microservices.exceptions import NotConnected, TransportRefused
from django_microservices.transports import MQTTTransport
from django_microservices.transports.mqtt import stream as stream_module
from django_microservices.transports.mqtt.packets import Kind, packet
from django_microservices.wire.messages import UNSET, new_id
from tests.brokers.mosquitto import Mosquitto
from tests.docs import reference

from .mqtt_ends import linked, served
from .mqtt_peer import Broker, Client, Peer

ANYWHERE = "mqtt://127.0.0.1:1"
Ports = Any


# --- options ------------------------------------------------------------------------


def test_defaults_are_nests() -> None:
    """MQTT 3.1.1 on loopback, QoS 0, and no session that is kept."""
    wire = MQTTTransport()
    assert (wire.host, wire.port, wire.protocol_version) == ("127.0.0.1", 1883, 4)
    assert (wire.clean, wire.default_qos, wire.reply_qos) == (True, 0, 0)
    assert (wire.tls_options, wire.username, wire.password) == (None, None, None)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://broker", ("broker", 1883, None, None, None)),
        ("mqtt://u:p%40@[::1]:42", ("::1", 42, "u", "p@", None)),
        ("mqtts://broker", ("broker", 8883, None, None, {})),
    ],
)
def test_url(url: str, expected: tuple[Any, ...]) -> None:
    """A URL names the broker, and who we are."""
    wire = MQTTTransport(url=url)
    found = (wire.host, wire.port, wire.username, wire.password, wire.tls_options)
    assert found == expected


def test_options_stand_over_the_url() -> None:
    """Who names a user twice means the option."""
    wire = MQTTTransport(url="mqtt://u:p@a", username="me", password="mine")
    assert (wire.username, wire.password) == ("me", "mine")


@pytest.mark.parametrize(
    "url", ["ws://a:1", "mqtt://", "mqtt://:1", "a:1", "", "mqtt://a:99999"]
)
def test_wrong_url(url: str) -> None:
    """Any other URL is an error that shows the form."""
    with pytest.raises(ImproperlyConfigured, match=r"url: .*mqtt://host:port"):
        MQTTTransport(url=url)


def test_secrets_are_not_told() -> None:
    """Neither in an error nor in the address is a password."""
    with pytest.raises(ImproperlyConfigured) as caught:
        MQTTTransport(url="ws://user:s3cret@a:1")
    assert "s3cret" not in str(caught.value)
    wire = MQTTTransport(url="mqtt://user:s3cret@a:1")
    assert wire.address == "mqtt://a:1"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"password": "x"}, "password: it needs a username"),
        ({"client_id": "a\nb"}, "client_id: it has a control character"),
        ({"username": "\ud800"}, "username: it has half a surrogate"),
        (
            {"user_properties": {"a": "b\n"}, "protocol_version": 5},
            "user_properties: .*control character",
        ),
        ({"clean": False}, "clean: .*client_id"),
        ({"session_expiry": 5.0, "protocol_version": 5}, "session_expiry: .*clean"),
        (
            {"session_expiry": 5.0, "clean": False, "client_id": "a"},
            "session_expiry: only protocol_version 5",
        ),
        ({"user_properties": {"a": "b"}}, "user_properties: only protocol_version 5"),
        ({"subscribe_options": {"rap": True}}, r"\['rap'\]: only protocol_version 5"),
        (
            {
                "subscribe_options": {"nl": True},
                "protocol_version": 5,
                "group": "orders",
            },
            r"subscribe_options\['nl'\]: .*group=''",
        ),
        ({"group": "a/b"}, "group"),
        ({"dead_letter_topic": "a/#"}, "a wildcard"),
        ({"will": {"topic": "$x"}}, r"will\['topic'\]"),
        ({"tls_options": {}}, "tls_options: .*mqtts://"),
    ],
)
def test_wrong_options(options: dict[str, Any], says: str) -> None:
    """What could never work is refused, and the option is named."""
    with pytest.raises((ImproperlyConfigured, ValueError), match=says):
        MQTTTransport(**options)


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({}, set()),
        ({"group": "orders"}, {"shares_work"}),
        ({"group": "orders", "client_id": "a"}, set()),
        ({"client_id": "a", "clean": False}, {"durable"}),
        ({"subscribe_options": {"qos": 1}}, {"acknowledges"}),
        ({"publish_options": {"qos": 1}}, {"confirms"}),
    ],
)
def test_flags(options: dict[str, Any], flags: set[str]) -> None:
    """Options decide what the wire can do."""
    wire = MQTTTransport(**options)
    names = ("shares_work", "durable", "acknowledges", "confirms")
    assert {name for name in names if getattr(wire, name)} == flags


@pytest.mark.parametrize(
    ("options", "topic"),
    [
        ({}, "dead"),
        ({"group": "orders"}, "orders/dead"),
        ({"group": "orders", "dead_letter_topic": "graves"}, "graves"),
    ],
)
def test_dead_letter_topic(options: dict[str, Any], topic: str) -> None:
    """Each service has one of its own."""
    assert MQTTTransport(**options).dead_letter_topic == topic


def test_reference_of_options() -> None:
    """Each option has a row, in order: its default, and which end takes it."""
    rows = reference.rows_of("transports/mqtt", "Options")
    told = [
        (reference.names_in(row[0])[0], row[1], row[2]) for row in rows if "`" in row[0]
    ]
    client, server = MQTTTransport.client_only, MQTTTransport.server_only
    assert told == [
        (
            name,
            f"`{parameter.default!r}`",
            "client" if name in client else "server" if name in server else "both",
        )
        for name, parameter in inspect.signature(MQTTTransport).parameters.items()
    ]


def test_attempts_are_the_servers_to_count() -> None:
    """Nest's name for what the Server reads of every transport."""
    assert MQTTTransport().retry_attempts is None
    assert MQTTTransport(max_connection_attempts=3).retry_attempts == 3


def test_server_has_its_client_id() -> None:
    """It is exactly the one given; without one each connection has another."""
    named = MQTTTransport(client_id="orders-1")
    assert named.connect_of_server(1, "").client_id == "orders-1"
    assert named.connect_of_server(1, "-2").client_id == "orders-1-2"
    unnamed = MQTTTransport(group="orders")
    ids = {unnamed.connect_of_server(1, "").client_id for _ in range(3)}
    assert len(ids) == 3
    assert all(one.startswith("orders-") for one in ids)


def test_client_has_ids_of_its_own() -> None:
    """A process has a link on each loop: one id would have them end each other."""
    wire = MQTTTransport(client_id="gateway")
    ids = {wire.connect_of_client().client_id for _ in range(3)}
    assert len(ids) == 3
    assert all(one.startswith("gateway-") for one in ids)


def test_connect_of_a_server() -> None:
    """CONNECT says what the options say; the will goes with one connection."""
    wire = MQTTTransport(
        url="mqtt://me:mine@a",
        protocol_version=5,
        client_id="orders-1",
        clean=False,
        session_expiry=90.5,
        keepalive=7.5,
        will={"topic": "gone", "payload": "orders", "qos": 1, "retain": True},
    )
    first, second = (wire.connect_of_server(limit, "") for limit in (50, 10**6))
    assert (first.username, first.password) == ("me", "mine")
    assert (first.clean, first.keepalive) == (False, 8)
    assert first.will == ("gone", b"orders", 1, True, {})
    assert dict(first.properties) == {
        "receive_maximum": 150,  # with what may rest meanwhile
        "session_expiry_interval": 91,
        "maximum_packet_size": 1024 * 1024,
    }
    assert second.properties["receive_maximum"] == 65_535
    assert wire.connect_of_server(1, "-2").will is None
    assert wire.connect_of_answers().will is None
    clean = MQTTTransport(protocol_version=5).connect_of_server(50, "")
    assert clean.properties["receive_maximum"] == 50


def test_session_that_is_kept_for_ever() -> None:
    """That is what 3.1.1 does, and 5 without another word."""
    wire = MQTTTransport(client_id="a", clean=False, protocol_version=5)
    assert wire.connect_of_server(1, "").properties["session_expiry_interval"] == (
        0xFFFFFFFF
    )


def test_client_keeps_no_session() -> None:
    """Nobody would take up what is left of a call."""
    assert MQTTTransport(client_id="a", clean=False).connect_of_client().clean


# --- connecting ---------------------------------------------------------------------


async def test_both_halves_say_where_they_are(mqtt_server: Mosquitto) -> None:
    """The address is for people, the driver for who needs more."""
    async with served(mqtt_server.url, "a") as server, linked(mqtt_server.url) as calls:
        assert server.intake.address == mqtt_server.url
        assert [one.version for one in server.intake.driver] == [4]
        assert calls.link.driver.version == 4


async def test_nobody_listens(free_port: Ports) -> None:
    """Where nobody listens, the error names the address, and it may pass."""
    port = free_port()
    with pytest.raises(NotConnected, match=f"mqtt://127.0.0.1:{port}: .*refused"):
        await served(f"mqtt://127.0.0.1:{port}", "a").__aenter__()


async def test_unknown_host() -> None:
    """So does a name that nobody knows (now)."""
    with pytest.raises(NotConnected, match=r"no-such-host\.invalid"):
        await linked("mqtt://no-such-host.invalid").__aenter__()


async def test_broker_that_says_nothing(free_port: Ports) -> None:
    """Connecting takes so long at most, the CONNACK included."""
    async with Broker(free_port(), Client.stay) as broker:
        with pytest.raises(NotConnected, match="did not answer in time"):
            await linked(broker.url, connect_timeout=0.05).__aenter__()


async def test_broker_that_hangs_up(free_port: Ports) -> None:
    """A connection that ends before the CONNACK is an error with a reason."""

    async def hang_up(client: Client) -> None:
        await client.hear()

    async with Broker(free_port(), hang_up) as broker:
        with pytest.raises(NotConnected, match="the broker closed the connection"):
            await linked(broker.url).__aenter__()


@pytest.mark.parametrize(
    ("version", "code", "kind", "says"),
    [
        (4, 1, TransportRefused, "protocol_version"),
        (4, 2, TransportRefused, "the client id is not valid"),
        (4, 3, NotConnected, "the broker is unavailable"),
        (4, 4, TransportRefused, "bad username or password"),
        (4, 5, TransportRefused, "not authorized"),
        (5, 0x84, TransportRefused, "protocol_version"),
        (5, 0x86, TransportRefused, "bad username or password"),
        (5, 0x89, NotConnected, "the broker is busy"),
        (5, 0x97, NotConnected, "quota exceeded"),
        (5, 0xF0, TransportRefused, "code 0xf0"),
    ],
)
async def test_refusal(
    free_port: Ports, version: Any, code: int, kind: type[Exception], says: str
) -> None:
    """What no retry mends ends it; anything else may pass."""

    async def refuse(client: Client) -> None:
        await client.greet({} if version == 5 else None, code)
        await client.stay()

    async with Broker(free_port(), refuse) as broker:
        with pytest.raises(kind, match=f"{broker.url}: .*{says}"):
            await linked(broker.url, protocol_version=version).__aenter__()


async def test_wrong_password(start_server: Any) -> None:
    """A real broker's refusal is permanent too, and tells no password."""
    broker = start_server(Mosquitto, password="s3cret")
    async with linked(broker.url):
        pass
    wrong = broker.url.replace("s3cret", "wr0ng")
    for version in (4, 5):
        with pytest.raises(TransportRefused) as caught:
            await served(wrong, "a", protocol_version=version).__aenter__()
        assert "wr0ng" not in str(caught.value)


@pytest.mark.parametrize(
    ("packets", "says"),
    [
        ([b"\xd0\x00"], "something before its CONNACK"),
        ([b"\x30\x03\x00\x01a"], "something before its CONNACK"),
        ([b"HTTP/1.1 400 Bad Request\r\n" * 4], "begins with 0x48"),
    ],
)
async def test_no_broker(free_port: Ports, packets: list[bytes], says: str) -> None:
    """Who speaks something else is no broker."""

    async def speak(client: Client) -> None:
        await client.hear()
        client.say(*packets)
        await client.stay()

    async with Broker(free_port(), speak) as broker:
        with pytest.raises(NotConnected, match=says):
            await linked(broker.url).__aenter__()


@pytest.mark.parametrize(
    ("version", "packets", "says"),
    [
        (4, [b"\x20\x02\x00\x00"], "a second CONNACK"),
        (4, [b"\x20\x02\x00\x00", b"\xd0\x00", b"\x10\x00"], "a second CONNACK"),
        (4, [b"\xf0\x00"], "a packet of MQTT 5: AUTH"),
        (4, [b"\x10\x00"], "begins with 0x10"),
        (5, [b"\xf0\x00"], "the broker sent an AUTH"),
        (5, [b"\xe0\x01\x8e"], "another client has the same client_id"),
        (5, [packet(0xE0, b"\x98\x08\x1f\x00\x05maybe")], r"administrative.*\(maybe\)"),
        (5, [b"\xe0\x00"], "says goodbye"),
    ],
)
async def test_connection_ends_with_the_reason(
    free_port: Ports, version: Any, packets: list[bytes], says: str
) -> None:
    """What a broker may not send, and its farewell, end the connection."""

    async def speak(client: Client) -> None:
        await client.greet({} if version == 5 else None)
        client.say(*packets)
        await client.stay()

    async with (
        Broker(free_port(), speak) as broker,
        linked(broker.url, protocol_version=version) as calls,
    ):
        reason = await asyncio.wait_for(calls.link.closed, 10)
    assert re.search(says, str(reason))


async def test_reason_is_told_to_the_broker(free_port: Ports) -> None:
    """A broker of MQTT 5 learns why we hang up."""
    heard: list[bytes] = []

    async def speak(client: Client) -> None:
        await client.greet({})
        client.say(b"\xf0\x00")
        heard.append((await client.hear(Kind.DISCONNECT)).body)

    async with (
        Broker(free_port(), speak) as broker,
        linked(broker.url, protocol_version=5) as calls,
    ):
        await asyncio.wait_for(calls.link.closed, 10)
    assert heard == [b"\x8c"]


async def test_goodbye_is_said(free_port: Ports) -> None:
    """Leaving the block says DISCONNECT, so that no will is published."""
    heard = asyncio.Event()

    async def listen(client: Client) -> None:
        await client.greet()
        await client.hear(Kind.DISCONNECT)
        heard.set()

    async with Broker(free_port(), listen) as broker:
        async with linked(broker.url):
            pass
        await asyncio.wait_for(heard.wait(), 10)


@pytest.mark.parametrize("version", [4, 5])
async def test_will(mqtt_server: Mosquitto, version: Any) -> None:
    """It is published when a process is gone without a word, and only then."""
    topic = f"wills/{new_id()}"
    will: Any = {"topic": topic, "payload": "gone", "qos": 1}
    async with Peer(mqtt_server.url) as peer:
        await peer.subscribe(topic, qos=1)
        async with linked(mqtt_server.url, will=will, protocol_version=version):
            pass
        async with linked(
            mqtt_server.url, will=will, protocol_version=version
        ) as calls:
            calls.link.driver.abort("without a word")
            (gone,) = await peer.came(1)
    assert (gone.payload, gone.qos, len(peer.messages)) == (b"gone", 1, 1)


async def test_leaving_does_not_wait_for_a_dead_broker(free_port: Ports) -> None:
    """A broker that reads nothing any more holds nobody up."""

    async def freeze(client: Client) -> None:
        await client.greet()
        await asyncio.Event().wait()

    async with Broker(free_port(), freeze) as broker:
        async with linked(broker.url, max_frame_size=10**8) as calls:
            calls.send("a", b"1" * 10**7, UNSET)
        assert calls.link.closed.done()


# --- TLS ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secure(start_server: Any, certificates: dict[str, str]) -> Mosquitto:
    """Give a broker that speaks TLS, and wants to know who calls."""
    broker: Mosquitto = start_server(Mosquitto, tls=certificates, mutual=True)
    return broker


async def test_tls(secure: Mosquitto, certificates: dict[str, str]) -> None:
    """Both halves speak it, with certificates of their own."""
    tls: Any = {
        "ca": certificates["ca"],
        "cert": certificates["client_cert"],
        "key": certificates["client_key"],
    }
    async with (
        served(secure.url, "a", tls_options=tls) as server,
        linked(secure.url, tls_options=tls) as calls,
    ):
        assert server.intake.address.startswith("mqtts://")
        await calls.send("a", b"1", "7")
        (reply,) = await calls.came(1)
    assert bytes(reply.data or b"") == b"1"


async def test_files_of_tls_are_read_once(
    secure: Mosquitto, certificates: dict[str, str], contexts: list[Any]
) -> None:
    """However often one connects."""
    tls: Any = {
        "ca": certificates["ca"],
        "cert": certificates["client_cert"],
        "key": certificates["client_key"],
    }
    transport = MQTTTransport(url=secure.url, tls_options=tls)
    for _ in range(2):
        async with transport.connect(print, print):
            pass
    assert len(contexts) == 1


async def test_broker_that_is_not_trusted(secure: Mosquitto) -> None:
    """Whom nobody trusts we do not talk to."""
    with pytest.raises(NotConnected, match=r"refused by TLS: .*certificate"):
        await linked(secure.url).__aenter__()


async def test_nobodys_certificate(
    secure: Mosquitto, certificates: dict[str, str]
) -> None:
    """A broker that wants one ends the connection without."""
    with pytest.raises(NotConnected):
        await linked(secure.url, tls_options={"ca": certificates["ca"]}).__aenter__()


async def test_certificate_that_is_no_file(secure: Mosquitto) -> None:
    """That will not change by trying again."""
    with pytest.raises(TransportRefused, match="'ca'"):
        await linked(secure.url, tls_options={"ca": "/nowhere.pem"}).__aenter__()


# --- the socket ---------------------------------------------------------------------


def test_other_sockets() -> None:
    """What is no TCP socket has no acknowledgements to hurry."""
    stream_module._acknowledging(None)()


async def test_reading_after_the_end(mqtt_server: Mosquitto) -> None:
    """Room that is made when the connection is gone harms nobody."""
    async with linked(mqtt_server.url) as calls:
        connection: Any = calls.link.driver
        connection.transport.abort()
        connection.pause_reading()
        connection.resume_reading()
        await asyncio.wait_for(calls.link.closed, 10)
        assert not connection.deaf
