"""The packets that we send, to the letter."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from django_microservices.transports.mqtt.packets import (
    MQTT_3,
    MQTT_5,
    PINGREQ,
    Ack,
    Connect,
    Kind,
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
    length_bytes,
    read_length,
    text_bytes,
)

from .mqtt_streams import VERSIONS, read


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


def test_ack_of_nothing() -> None:
    """A code that stands nowhere is a success."""
    assert Ack(Kind.PUBACK, 1).codes == b"\0"
