"""A reader of MQTT trusts nothing: whatever comes, it says what is wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_microservices.transports.mqtt.packets import MQTT_3, MQTT_5, Packet
from django_microservices.transports.mqtt.reader import PacketReader

from .mqtt_streams import CUTS, LIMIT, STREAMS, VERSIONS, error, split, written


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
