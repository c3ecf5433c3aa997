"""The packets of MQTT, without sockets: cut at will, and read as they were meant."""

import socket
import time
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
    Connect,
    Disconnect,
    Kind,
    Oversized,
    Packet,
    Publish,
    Subscribe,
    ack_packet,
    acknowledged_publish,
    connect_packet,
    packet,
    subscribe_packet,
    unsubscribe_packet,
)
from django_microservices.transports.mqtt.properties import (
    length_bytes,
    property_bytes,
    text_bytes,
)
from django_microservices.transports.mqtt.reader import PacketReader
from django_microservices.wire.messages import new_id
from tests.brokers.mosquitto import Mosquitto

from .mqtt_streams import (
    CUTS,
    LIMIT,
    STREAMS,
    TOPICS,
    VERSIONS,
    error,
    read,
    split,
    written,
)


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
