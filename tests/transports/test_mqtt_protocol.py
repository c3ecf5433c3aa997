"""The packets of MQTT, without sockets: cut at will, and never trusted."""

import socket
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from django_microservices.transports.mqtt import reader as reader_module
from django_microservices.transports.mqtt.packets import (
    MQTT_3,
    MQTT_5,
    PINGREQ,
    Ack,
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    Kind,
    Oversized,
    Packet,
    PingResp,
    Publish,
    Subscribe,
    Will,
    ack_packet,
    acknowledged_publish,
    connect_packet,
    disconnect_packet,
    packet,
    publish_packet,
    subscribe_packet,
    unsubscribe_packet,
)
from django_microservices.transports.mqtt.properties import (
    LARGEST_LENGTH,
    LONGEST_TEXT,
    NONE,
    OF_MESSAGES,
    check_names,
    length_bytes,
    property_bytes,
    read_length,
    read_properties,
    text_bytes,
)
from django_microservices.transports.mqtt.reader import PacketReader
from django_microservices.transports.mqtt.reasons import (
    REFUSED,
    RETURN_CODES,
    is_permanent,
    text_of,
)
from django_microservices.wire.messages import new_id
from tests.brokers.mosquitto import Mosquitto

LIMIT = 4096
VERSIONS = [MQTT_3, MQTT_5]


def read(version: int, *chunks: bytes, limit: int = LIMIT) -> list[Packet]:
    """Read chunks with one reader, which must find no fault."""
    reader = PacketReader(version, limit)
    packets = [one for chunk in chunks for one in reader.receive(chunk)]
    assert reader.error is None
    return packets


def error(version: int, stream: bytes) -> str | None:
    """Return the fault that a reader finds."""
    reader = PacketReader(version, LIMIT)
    reader.receive(stream)
    return reader.error


def split(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    """Cut a stream into the chunks that a socket might give."""
    places = sorted({cut % (len(stream) + 1) for cut in cuts})
    return [stream[start:end] for start, end in pairwise([0, *places, len(stream)])]


# --- what a broker may send, as this file writes it ---------------------------------


def written(version: int, one: Packet) -> bytes:
    """Write a packet as a broker does."""
    properties = b""
    if version == MQTT_5 and not isinstance(one, PingResp | Auth | Oversized):
        properties = property_bytes(one.properties)
    match one:
        case Publish(topic, payload, qos, retain, dup, packet_id):
            flags = qos << 1 | retain | dup << 3
            id_ = packet_id.to_bytes(2) if qos else b""
            return packet(0x30 | flags, text_bytes(topic), id_, properties, payload)
        case ConnAck(session_present, code):
            return packet(0x20, bytes((session_present, code)), properties)
        case Ack(kind, packet_id, codes):
            flags = 2 if kind is Kind.PUBREL else 0
            parts = [properties, codes]
            if kind not in {Kind.SUBACK, Kind.UNSUBACK}:
                parts = [codes, properties] if version == MQTT_5 else []
            return packet(kind << 4 | flags, packet_id.to_bytes(2), *parts)
        case PingResp():
            return b"\xd0\x00"
        case Disconnect(code):
            return packet(0xE0, bytes((code,)), properties)
        case _:
            return b"\xf0\x00"


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]), max_size=20)
TOPICS = TEXTS.filter(lambda text: text and "+" not in text and "#" not in text)
IDS = st.integers(1, LONGEST_TEXT)
SHORTS = st.integers(0, 0xFFFF)
LONGS = st.integers(0, 0xFFFFFFFF)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3).map(tuple)
REASONS = st.fixed_dictionaries(
    {}, optional={"reason_string": TEXTS, "user_properties": PAIRS}
)
OF_A_MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "payload_format_indicator": st.integers(0, 1),
        "message_expiry_interval": LONGS,
        "content_type": TEXTS,
        "response_topic": TEXTS,
        "correlation_data": st.binary(max_size=20),
        "user_properties": PAIRS,
        "subscription_identifier": st.lists(
            st.integers(1, LARGEST_LENGTH), min_size=1, max_size=3
        ).map(tuple),
    },
)
OF_A_BROKER = st.fixed_dictionaries(
    {},
    optional={
        "receive_maximum": SHORTS,
        "maximum_packet_size": LONGS,
        "server_keep_alive": SHORTS,
        "maximum_qos": st.integers(0, 1),
        "assigned_client_identifier": TEXTS,
        "authentication_data": st.binary(max_size=9),
    },
)


def publishes(version: int) -> st.SearchStrategy[Publish]:
    """Make messages of every QoS."""
    properties = OF_A_MESSAGE if version == MQTT_5 else st.just({})
    payloads = st.binary(max_size=200)
    flag = st.booleans()
    return st.builds(
        Publish,
        TOPICS,
        payloads,
        st.just(0),
        flag,
        st.just(False),
        st.just(0),
        properties,
    ) | st.builds(
        Publish, TOPICS, payloads, st.integers(1, 2), flag, flag, IDS, properties
    )


def packets_of(version: int) -> st.SearchStrategy[Packet]:
    """Make everything that a broker of this version may send."""
    reasons = REASONS if version == MQTT_5 else st.just({})
    broker = OF_A_BROKER if version == MQTT_5 else st.just({})
    code = st.integers(0, 255).map(lambda value: bytes((value,)))
    acks = st.sampled_from([Kind.PUBACK, Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP])
    success = code if version == MQTT_5 else st.just(b"\0")
    every: list[st.SearchStrategy[Packet]] = [
        publishes(version),
        st.builds(ConnAck, st.booleans(), st.integers(0, 255), broker),
        st.builds(Ack, acks, IDS, success, reasons),
        st.builds(Ack, st.just(Kind.SUBACK), IDS, code, reasons),
        st.builds(
            Ack,
            st.just(Kind.UNSUBACK),
            IDS,
            code if reasons is REASONS else st.just(b""),
            reasons,
        ),
        st.just(PingResp()),
    ]
    if version == MQTT_5:
        every += [
            st.builds(Disconnect, st.integers(0, 255), reasons),
            st.just(Auth()),
        ]
    return st.one_of(every)


STREAMS = st.sampled_from(VERSIONS).flatmap(
    lambda version: st.tuples(
        st.just(version), st.lists(packets_of(version), max_size=8)
    )
)
CUTS = st.lists(st.integers(0, 10**6), max_size=20)


# --- good streams -------------------------------------------------------------------


@given(STREAMS, CUTS)
def test_any_split_gives_the_same_packets(
    stream: tuple[int, list[Packet]], cuts: list[int]
) -> None:
    """Packets come out as they were written, however they are split and merged."""
    version, packets = stream
    data = b"".join(written(version, one) for one in packets)
    assert read(version, *split(data, cuts)) == packets


@given(STREAMS)
def test_truncated_stream_waits(stream: tuple[int, list[Packet]]) -> None:
    """What is cut off gives the packets before it, and waits for the rest."""
    version, packets = stream
    if not packets:
        return
    data = b"".join(written(version, one) for one in packets)
    reader = PacketReader(version, LIMIT)
    assert reader.receive(data[:-1]) == packets[:-1]
    assert (reader.partial, reader.error) == (True, None)
    assert reader.receive(data[-1:]) == packets[-1:]
    assert not reader.partial


@pytest.mark.parametrize("version", VERSIONS)
def test_topics_and_properties_are_remembered(
    monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    """They are read once, and what is remembered has a bound."""
    monkeypatch.setattr(reader_module, "_REMEMBERED", 2)
    reader = PacketReader(version, LIMIT)
    properties = {"content_type": "x"} if version == MQTT_5 else {}
    for name in ("a", "a", "b", "c", "d", "a", "x" * 200, "x" * 200):
        publish = Publish(name, b"1", properties=properties)
        assert reader.receive(written(version, publish)) == [publish]
    assert len(reader._topics) <= 2


def test_large_message_is_read_in_time_linear_in_it() -> None:
    """Many small reads of one large message do not copy it each time."""
    publish = Publish("a", bytes(8 * 1024 * 1024))
    data = written(MQTT_3, publish)
    chunks = [data[start : start + 1024] for start in range(0, len(data), 1024)]
    start = time.perf_counter()
    assert read(MQTT_3, *chunks, limit=len(data)) == [publish]
    assert time.perf_counter() - start < 10


# --- a message that is too large ----------------------------------------------------


@given(CUTS, st.integers(0, 2), TOPICS)
@example([], 0, "x" * 5000)
@example([1, 3], 1, "x" * 5000)
def test_large_message_is_skipped(cuts: list[int], qos: int, topic: str) -> None:
    """In 3.1.1 it is said what came, and nothing of it is kept."""
    dup, packet_id = bool(qos), 7 if qos else 0
    large = Publish(topic, bytes(LIMIT + 1), qos, dup=dup, packet_id=packet_id)
    after = Publish("b", b"2")
    data = written(MQTT_3, large) + written(MQTT_3, after)
    first, *rest = read(MQTT_3, *split(data, cuts))
    assert rest == [after]
    assert isinstance(first, Oversized)
    assert (first.topic, first.qos) == (topic, qos)
    assert (first.dup, first.packet_id) == (dup, packet_id)
    assert first.size > LIMIT


def test_skipped_message_is_partial() -> None:
    """Until its end has come it is under way."""
    data = written(MQTT_3, Publish("a", bytes(2 * LIMIT)))
    reader = PacketReader(MQTT_3, LIMIT)
    reader.receive(data[:-1])
    assert reader.partial
    reader.receive(data[-1:])
    assert not reader.partial


@pytest.mark.parametrize(
    ("version", "first"), [(MQTT_3, 0x20), (MQTT_5, 0x20), (MQTT_5, 0x30)]
)
def test_other_large_packet(version: int, first: int) -> None:
    """What no broker sends that knows our limit is refused on the announced length."""
    stream = bytes((first,)) + length_bytes(LIMIT + 1)
    assert "max_frame_size" in str(error(version, stream))


# --- bad streams --------------------------------------------------------------------


@given(
    STREAMS,
    st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=5),
    CUTS,
)
def test_corrupted_stream(
    stream: tuple[int, list[Packet]], changes: list[tuple[int, int]], cuts: list[int]
) -> None:
    """Whatever comes, a reader reads on or finds one fault, the same for any split."""
    version, packets = stream
    data = bytearray(b"".join(written(version, one) for one in packets))
    for place, value in changes:
        if data:
            data[place % len(data)] = value
    whole, pieces = PacketReader(version, LIMIT), PacketReader(version, LIMIT)
    found = whole.receive(bytes(data))
    in_pieces: list[Packet] = []
    for chunk in split(bytes(data), cuts):
        if pieces.error is None:
            in_pieces += pieces.receive(chunk)
    assert in_pieces == found
    assert pieces.error == whole.error


@given(st.sampled_from(VERSIONS), st.binary(max_size=300))
def test_random_bytes(version: int, data: bytes) -> None:
    """Anything at all gives packets, or a fault that is told in a text."""
    reader = PacketReader(version, LIMIT)
    reader.receive(data)
    assert reader.error is None or isinstance(reader.error, str)


PLAIN = {
    "a length of more than four bytes": b"\x30\xff\xff\xff\xff\x01",
    "a topic that is longer than its packet": b"\x30\x04\x00\x09ab",
    "a packet that ends too early": b"\x30\x01\x00",
    "a topic that is no name": b"\x30\x02\x00\x00",
    "a text that is not UTF-8": b"\x30\x04\x00\x02\xff\xfe",
    "a text with a NUL in it": b"\x30\x04\x00\x02a\x00",
    "a message of QoS 3": b"\x36\x05\x00\x01a\x00\x01",
    "a packet identifier of 0": b"\x32\x05\x00\x01a\x00\x00",
    "a field that is longer than its packet": b"\x32\x04\x00\x09ab",
    "a packet that begins with 0x10": b"\x10\x00",
    "a packet that begins with 0x00": b"\x00\x00",
    "a packet that begins with 0x21": b"\x21\x02\x00\x00",
    "a packet that begins with 0x60": b"\x60\x02\x00\x01",
    "a packet that begins with 0x82": b"\x82\x02\x00\x01",
    "a CONNACK with the flags 0x02": b"\x20\x02\x02\x00",
    "a packet that goes on behind its end": b"\x20\x03\x00\x00\x00",
    "a packet of MQTT 5: DISCONNECT": b"\xe0\x00",
    "a packet of MQTT 5: AUTH": b"\xf0\x00",
}


@pytest.mark.parametrize(("says", "stream"), PLAIN.items(), ids=list(PLAIN))
def test_fault(says: str, stream: bytes) -> None:
    """Each fault is told in words."""
    assert error(MQTT_3, stream) == says


@pytest.mark.parametrize("stream", [b"\x30\x05\x00\x03a/+", b"\x30\x03\x00\x01#"])
def test_topic_with_a_wildcard(stream: bytes) -> None:
    """No message has a wildcard in its topic."""
    assert error(MQTT_3, stream) == "a topic that is no name"


@pytest.mark.parametrize(
    "stream", [b"\x40\x03\x00\x01\x00", b"\xd0\x01\x00", b"\x20\x03\x00\x00\x00"]
)
def test_packet_goes_on(stream: bytes) -> None:
    """What follows the last field has no meaning, and is not skipped."""
    assert error(MQTT_3, stream) == "a packet that goes on behind its end"


FAULTS_OF_5 = {
    "properties that are longer than their packet": b"\x30\x05\x00\x01a\x09\x01",
    "a property that has no place there: 0x23": b"\x30\x07\x00\x01a\x03\x23\x00\x01",
    "a property that has no place there: 0x7e": b"\x30\x07\x00\x01a\x03\x7e\x00\x01",
    "a property that stands there twice: payload_format_indicator": (
        b"\x30\x08\x00\x01a\x04\x01\x00\x01\x00"
    ),
    "a subscription identifier that is none": b"\x30\x06\x00\x01a\x02\x0b\x00",
    "a packet that ends too early": b"\x30\x06\x00\x01a\x02\x02\x00",
    "a packet that goes on behind its end": b"\x40\x05\x00\x01\x00\x00\x00",
}


@pytest.mark.parametrize(("says", "stream"), FAULTS_OF_5.items(), ids=list(FAULTS_OF_5))
def test_fault_in_properties(says: str, stream: bytes) -> None:
    """So is each of MQTT 5; a topic alias is one, since we allow none."""
    assert error(MQTT_5, stream) == says


@pytest.mark.parametrize(
    ("stream", "packets"),
    [
        (b"\x40\x02\x00\x01", [Ack(Kind.PUBACK, 1)]),
        (b"\x50\x03\x00\x01\x80", [Ack(Kind.PUBREC, 1, b"\x80")]),
        (b"\xe0\x00", [Disconnect()]),
        (b"\xe0\x01\x8e", [Disconnect(0x8E)]),
        (b"\xf0\x02\x18\x00", [Auth()]),
    ],
)
def test_what_mqtt_5_leaves_out(stream: bytes, packets: list[Packet]) -> None:
    """A success may be left unsaid."""
    assert read(MQTT_5, stream) == packets


# --- what we send -------------------------------------------------------------------


def test_connect() -> None:
    """The first packet, to the letter (MQTT 3.1.1, section 3.1)."""
    will = Will("w", b"gone", 1, retain=True)
    connect = Connect(MQTT_3, "id", True, 60, "user", "pass", will)
    assert connect_packet(connect) == (
        b"\x10\x23\x00\x04MQTT\x04\xee\x00\x3c\x00\x02id"
        b"\x00\x01w\x00\x04gone\x00\x04user\x00\x04pass"
    )


def test_connect_without_anything() -> None:
    """A session that is kept, and nobody's name."""
    assert connect_packet(Connect(MQTT_3, "id", False, 0)) == (
        b"\x10\x0e\x00\x04MQTT\x04\x00\x00\x00\x00\x02id"
    )


def test_connect_of_5() -> None:
    """With properties, of the connection and of the will."""
    will = Will("w", b"x", properties={"will_delay_interval": 1})
    properties = {"session_expiry_interval": 10, "receive_maximum": 5}
    connect = Connect(MQTT_5, "id", True, 60, will=will, properties=properties)
    assert connect_packet(connect) == (
        b"\x10\x23\x00\x04MQTT\x05\x06\x00\x3c\x08\x11\x00\x00\x00\x0a\x21\x00\x05"
        b"\x00\x02id\x05\x18\x00\x00\x00\x01\x00\x01w\x00\x01x"
    )


@pytest.mark.parametrize("version", VERSIONS)
@given(payload=st.binary(max_size=300))
@example(payload=bytes(5000))
def test_message_of_ours_can_be_read(version: int, payload: bytes) -> None:
    """What we publish is read as it was meant."""
    topic = text_bytes("a/b")
    nothing = b"\0" if version == MQTT_5 else b""
    stream = (
        publish_packet(topic + nothing, payload)
        + publish_packet(topic + nothing, payload, 1)
        + acknowledged_publish(0x02, topic, 5, nothing, payload)
        + acknowledged_publish(0x0D, topic, 6, nothing, payload)
    )
    assert read(version, stream, limit=10_000) == [
        Publish("a/b", payload),
        Publish("a/b", payload, 0, retain=True),
        Publish("a/b", payload, 1, packet_id=5),
        Publish("a/b", payload, 2, retain=True, dup=True, packet_id=6),
    ]


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (ack_packet(Kind.PUBACK, 258), b"\x40\x02\x01\x02"),
        (ack_packet(Kind.PUBREL, 1), b"\x62\x02\x00\x01"),
        (
            subscribe_packet(MQTT_3, Subscribe("a/+", 1), 10),
            b"\x82\x08\x00\x0a\x00\x03a/+\x01",
        ),
        (
            subscribe_packet(MQTT_5, Subscribe("a", 0x2C, 300), 10),
            b"\x82\x0a\x00\x0a\x03\x0b\xac\x02\x00\x01a\x2c",
        ),
        (
            subscribe_packet(MQTT_5, Subscribe("a"), 1),
            b"\x82\x07\x00\x01\x00\x00\x01a\x00",
        ),
        (
            unsubscribe_packet(MQTT_3, ["a", "b"], 1),
            b"\xa2\x08\x00\x01\x00\x01a\x00\x01b",
        ),
        (unsubscribe_packet(MQTT_5, ["a"], 1), b"\xa2\x06\x00\x01\x00\x00\x01a"),
        (disconnect_packet(MQTT_3, 0x81), b"\xe0\x00"),
        (disconnect_packet(MQTT_5, 0x81), b"\xe0\x01\x81"),
        (disconnect_packet(MQTT_5), b"\xe0\x00"),
        (PINGREQ, b"\xc0\x00"),
    ],
)
def test_packet(made: bytes, expected: bytes) -> None:
    """The other packets, to the letter."""
    assert made == expected


def test_packet_beyond_all_bounds() -> None:
    """MQTT has no length for it."""

    class Endless(bytes):
        def __len__(self) -> int:
            return LARGEST_LENGTH + 1

    with pytest.raises(ValueError, match="more than MQTT takes"):
        packet(0x30, Endless())


@given(st.integers(0, LARGEST_LENGTH))
def test_length(value: int) -> None:
    """Lengths have one to four bytes, and are read back."""
    data = length_bytes(value)
    assert read_length(data, 0, len(data)) == (value, len(data))


# --- properties ---------------------------------------------------------------------


@given(OF_A_MESSAGE)
def test_properties_come_back(properties: dict[str, Any]) -> None:
    """Properties are read as they were written."""
    data = property_bytes(properties)
    allowed = OF_MESSAGES | {"subscription_identifier"}
    found, end = read_properties(data, 0, len(data), allowed)
    assert (found, end) == (properties, len(data))


@pytest.mark.parametrize(
    "properties",
    [
        {"message_expiry_interval": -1},
        {"message_expiry_interval": 2**32},
        {"message_expiry_interval": 1.5},
        {"content_type": 7},
        {"content_type": "x" * 65_536},
        {"content_type": "\ud800"},
        {"content_type": "a\nb"},
        {"correlation_data": bytes(65_536)},
        {"correlation_data": "text"},
        {"user_properties": [("a",)]},
        {"user_properties": [("a", 1)]},
        {"user_properties": 7},
    ],
)
def test_property_that_cannot_be_written(properties: dict[str, Any]) -> None:
    """It is named, with what is wrong."""
    with pytest.raises(ValueError, match=next(iter(properties))):
        property_bytes(properties)


def test_unknown_property() -> None:
    """A name that is none is refused, and the one that was meant is told."""
    with pytest.raises(ValueError, match=r"options\['x'\].*did you mean"):
        check_names(["content_typ"], OF_MESSAGES, "options['x']")


def test_properties_are_not_to_be_changed() -> None:
    """Several messages may have the same ones."""
    (publish,) = read(
        MQTT_5, written(MQTT_5, Publish("a", b"", properties={"content_type": "x"}))
    )
    assert isinstance(publish, Publish)
    with pytest.raises(TypeError):
        publish.properties["content_type"] = "y"  # type: ignore[index]
    assert NONE == {}


# --- codes --------------------------------------------------------------------------


def test_every_return_code_has_its_words() -> None:
    """Those of 3.1.1 say what those of 5 say."""
    texts = [text_of(code, {}) for code in RETURN_CODES.values()]
    assert texts == [
        "the broker does not speak this protocol_version",
        "the client id is not valid",
        "the broker is unavailable",
        "bad username or password",
        "not authorized",
    ]


def test_code_without_words() -> None:
    """A code that nobody knows is told as a number, with what the broker says."""
    assert text_of(0xFE, {"reason_string": "no"}) == "code 0xfe (no)"


@pytest.mark.parametrize(
    ("code", "permanent"), [(0x86, True), (0x87, True), (0x88, False), (REFUSED, True)]
)
def test_codes_that_may_pass(code: int, permanent: bool) -> None:  # noqa: FBT001
    """Credentials will not get better by waiting; a busy broker will."""
    assert is_permanent(code) is permanent


# --- a real broker's bytes ----------------------------------------------------------


def conversation(url: str, version: int) -> bytes:
    """Return all that mosquitto says to a client that does everything."""
    parts = urlsplit(url)
    topic = text_bytes(f"{new_id()}/a")
    none = b"\0" if version == MQTT_5 else b""
    full = none
    if version == MQTT_5:
        full = property_bytes(
            {
                "content_type": "text/plain",
                "correlation_data": bytes(200),
                "user_properties": (("a", "1"), ("a", "2")),
            }
        )
    said = [
        connect_packet(Connect(version, f"bytes-{new_id()}", True, 60)),
        subscribe_packet(version, Subscribe(f"{topic[2:].decode()}/#", 2, 7), 1),
        packet(0x30, topic, none, b"0" * 200),
        acknowledged_publish(0x02, topic, 2, full, b"1"),
        acknowledged_publish(0x05, topic, 3, none, b"2"),
        ack_packet(Kind.PUBREL, 3),
        unsubscribe_packet(version, [f"{topic[2:].decode()}/#"], 4),
        packet(0x31, topic, none),
        PINGREQ,
    ]
    with socket.create_connection((str(parts.hostname), int(parts.port or 0))) as peer:
        peer.settimeout(10)
        heard = b""
        for one in said:
            peer.sendall(one)
        while b"\xd0\x00" not in heard[-2:]:
            heard += peer.recv(65_536)
    return heard


@pytest.mark.parametrize("version", VERSIONS)
def test_real_bytes_split_at_every_position(
    mqtt_server: Mosquitto, version: int
) -> None:
    """What mosquitto says is read alike, wherever it is cut in two."""
    data = conversation(mqtt_server.url, version)
    expected = read(version, data)
    kinds = {type(one).__name__ for one in expected}
    assert kinds == {"ConnAck", "Ack", "Publish", "PingResp"}
    assert {one.qos for one in expected if isinstance(one, Publish)} == {0, 1, 2}
    for cut in range(len(data) + 1):
        assert read(version, data[:cut], data[cut:]) == expected
    assert read(version, *(data[at : at + 1] for at in range(len(data)))) == expected
