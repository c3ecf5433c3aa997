"""Streams of MQTT as a broker may send them, made at will, and how tests read them."""

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import strategies as st

from django_microservices.transports.mqtt.packets import (
    MQTT_3,
    MQTT_5,
    Ack,
    Auth,
    ConnAck,
    Disconnect,
    Kind,
    Oversized,
    Packet,
    PingResp,
    Publish,
    packet,
)
from django_microservices.transports.mqtt.properties import (
    LARGEST_LENGTH,
    LONGEST_TEXT,
    property_bytes,
    text_bytes,
)
from django_microservices.transports.mqtt.reader import PacketReader

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
