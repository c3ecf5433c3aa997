"""What is under way on an MQTT connection, without sockets."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from django_microservices.exceptions import ConnectionLost
from django_microservices.transports.mqtt.flows import (
    LARGEST_ID,
    Accepted,
    Asked,
    Outgoing,
)
from django_microservices.transports.mqtt.packets import (
    MQTT_3,
    Ack,
    Kind,
    Oversized,
    Packet,
    Publish,
    Subscribe,
    ack_packet,
    subscribe_packet,
)
from django_microservices.transports.mqtt.reader import PacketReader

QOS_1, QOS_2 = 0x02, 0x04


class Wire(list[bytes]):
    """What was written."""

    def ids(self) -> list[int]:
        """Return the packet identifiers of the messages."""
        return [one.packet_id for one in self.read() if isinstance(one, Publish)]

    def read(self) -> list[Packet]:
        """Return what a broker would read, of what it reads as we do."""
        return PacketReader(MQTT_3, 10_000).receive(b"".join(self))


def outgoing(flags: int, done: Callable[[Any], None]) -> Outgoing:
    """Make a message."""
    return Outgoing(flags, b"\x00\x01a", b"", b"1", done)


# --- what we ask --------------------------------------------------------------------


def test_qos_1_ends_with_its_puback() -> None:
    """One answer confirms it."""
    wire, ended = Wire(), list[Any]()
    asked = Asked(wire.append)
    asked.publish(outgoing(QOS_1, ended.append))
    assert wire.read() == [Publish("a", b"1", 1, packet_id=1)]
    asked.answered(Ack(Kind.PUBACK, 1))
    assert ended == [Ack(Kind.PUBACK, 1)]


def test_qos_2_ends_with_its_pubcomp() -> None:
    """Two answers confirm it, and the first one is answered itself."""
    wire, ended = Wire(), list[Any]()
    asked = Asked(wire.append)
    asked.publish(outgoing(QOS_2, ended.append))
    asked.answered(Ack(Kind.PUBREC, 1))
    assert (wire[-1], ended) == (ack_packet(Kind.PUBREL, 1), [])
    asked.answered(Ack(Kind.PUBCOMP, 1))
    assert ended == [Ack(Kind.PUBCOMP, 1)]


def test_refused_qos_2_ends_with_its_pubrec() -> None:
    """A refusal has no second step."""
    wire, ended = Wire(), list[Any]()
    asked = Asked(wire.append)
    asked.publish(outgoing(QOS_2, ended.append))
    asked.answered(Ack(Kind.PUBREC, 1, b"\x87"))
    assert (ended, len(wire)) == ([Ack(Kind.PUBREC, 1, b"\x87")], 1)


def test_subscriptions_end_with_their_answers() -> None:
    """They are no messages: no window holds them back."""
    wire, ended = Wire(), list[Any]()
    asked = Asked(wire.append, window=1)
    asked.publish(outgoing(QOS_1, ended.append))
    asked.ask(
        Kind.SUBSCRIBE,
        lambda id_: subscribe_packet(MQTT_3, Subscribe("a"), id_),
        ended.append,
    )
    asked.ask(Kind.UNSUBSCRIBE, lambda _: b"", ended.append)
    assert wire[1] == subscribe_packet(MQTT_3, Subscribe("a"), 2)
    answers = [Ack(Kind.SUBACK, 2), Ack(Kind.UNSUBACK, 3, b"")]
    for answer in answers:
        asked.answered(answer)
    assert ended == answers


@pytest.mark.parametrize(
    "answer",
    [
        Ack(Kind.PUBACK, 2),
        Ack(Kind.PUBREC, 1),
        Ack(Kind.PUBCOMP, 1),
        Ack(Kind.SUBACK, 1),
    ],
)
def test_answer_to_nothing(answer: Ack) -> None:
    """An answer that was not asked for is ignored."""
    wire, ended = Wire(), list[Any]()
    asked = Asked(wire.append)
    asked.publish(outgoing(QOS_1, ended.append))
    asked.answered(answer)
    assert (ended, len(wire)) == ([], 1)


def test_window() -> None:
    """No more are under way than the broker takes; the rest keep their order."""
    wire, ended = Wire(), list[Any]()
    asked = Asked(wire.append, window=2)
    for _ in range(5):
        asked.publish(outgoing(QOS_1, ended.append))
    assert wire.ids() == [1, 2]
    asked.answered(Ack(Kind.PUBACK, 2))
    asked.answered(Ack(Kind.PUBACK, 1))
    assert wire.ids() == [1, 2, 3, 4]
    asked.answered(Ack(Kind.PUBACK, 4))
    assert wire.ids() == [1, 2, 3, 4, 5]


def test_identifiers_go_round() -> None:
    """After the largest one comes the first that is free."""
    wire = Wire()
    asked = Asked(wire.append)
    asked.publish(outgoing(QOS_1, lambda _: None))
    asked._last_id = LARGEST_ID - 1
    for _ in range(2):
        asked.publish(outgoing(QOS_1, lambda _: None))
    assert wire.ids() == [1, LARGEST_ID, 2]


def test_no_identifier_is_left() -> None:
    """A subscription gets the first one that is free, before messages that waited."""
    wire, ended = Wire(), list[Any]()
    asked = Asked(wire.append)
    for _ in range(LARGEST_ID + 1):
        asked.publish(outgoing(QOS_1, lambda _: None))
    wire.clear()
    subscribe = Subscribe("a")
    for _ in range(2):
        asked.ask(
            Kind.SUBSCRIBE,
            lambda id_: subscribe_packet(MQTT_3, subscribe, id_),
            ended.append,
        )
    assert not wire
    asked.answered(Ack(Kind.PUBACK, 7))
    assert wire == [subscribe_packet(MQTT_3, subscribe, 7)]
    asked.answered(Ack(Kind.SUBACK, 7))
    asked.fail("cut")
    assert [type(one) for one in ended] == [Ack, ConnectionLost]


def test_lost_connection_fails_all() -> None:
    """Each gets an error of its own, also those that were not sent; nothing follows."""
    wire, ended = Wire(), list[Any]()
    asked = Asked(wire.append, window=1)
    for _ in range(3):
        asked.publish(outgoing(QOS_1, ended.append))
    asked.fail("cut")
    assert [str(error) for error in ended] == ["cut"] * 3
    assert len({id(error) for error in ended}) == 3
    assert {type(error) for error in ended} == {ConnectionLost}
    asked.answered(Ack(Kind.PUBACK, 1))
    assert len(wire) == 1


class Conversation(RuleBasedStateMachine):
    """Messages of all kinds, and a broker that answers in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.wire = Wire()
        self.asked = Asked(self.wire.append, window=5)
        self.sent = 0
        self.ended: list[int] = []
        self.under_way: dict[int, Kind] = {}

    def learn(self) -> None:
        """Have the broker read what was written."""
        for one in self.wire.read():
            if isinstance(one, Publish):
                assert one.packet_id not in self.under_way
                kind = Kind.PUBACK if one.qos == 1 else Kind.PUBREC
                self.under_way[one.packet_id] = kind
            else:
                assert isinstance(one, Ack)
                assert one.kind is Kind.PUBREL
                self.under_way[one.packet_id] = Kind.PUBCOMP
        self.wire.clear()

    @rule(flags=st.sampled_from([QOS_1, QOS_2]))
    def publish(self, flags: int) -> None:
        """Send one."""
        number = self.sent
        self.sent += 1
        self.asked.publish(outgoing(flags, lambda _: self.ended.append(number)))
        self.learn()

    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        """Answer one of them."""
        if self.under_way:
            packet_id = data.draw(st.sampled_from(sorted(self.under_way)))
            kind = self.under_way.pop(packet_id)
            self.asked.answered(Ack(kind, packet_id))
            self.learn()

    @invariant()
    def nothing_is_lost(self) -> None:
        """What was sent is under way, waits for room, or has ended once."""
        assert len(set(self.ended)) == len(self.ended)
        left = self.sent - len(self.ended)
        assert len(self.under_way) == min(left, 5)

    def teardown(self) -> None:
        """Whatever is left fails."""
        self.asked.fail("cut")
        assert sorted(self.ended) == list(range(self.sent))


TestConversation = Conversation.TestCase


# --- what came ----------------------------------------------------------------------


def test_qos_1_is_acknowledged() -> None:
    """The broker may forget it, and its identifier is free again."""
    wire = Wire()
    accepted = Accepted(wire.append)
    publish = Publish("a", b"1", 1, packet_id=7)
    again = Publish("a", b"1", 1, dup=True, packet_id=7)
    assert accepted.is_new(publish)
    assert not accepted.is_new(again)  # while it is handled
    accepted.acknowledge(publish)
    assert wire == [ack_packet(Kind.PUBACK, 7)]
    assert accepted.is_new(publish)


def test_qos_2_is_handled_once() -> None:
    """Until the broker releases the identifier, it is the same message."""
    wire = Wire()
    accepted = Accepted(wire.append)
    publish = Publish("a", b"1", 2, packet_id=7)
    assert accepted.is_new(publish)
    accepted.acknowledge(publish)
    assert not accepted.is_new(Publish("a", b"1", 2, dup=True, packet_id=7))
    assert wire == [ack_packet(Kind.PUBREC, 7)] * 2
    accepted.released(Ack(Kind.PUBREL, 7))
    assert wire[-1] == ack_packet(Kind.PUBCOMP, 7)
    assert accepted.is_new(publish)


@given(st.integers(1, LARGEST_ID))
def test_unknown_release(packet_id: int) -> None:
    """It is confirmed: the broker would ask for ever."""
    wire = Wire()
    Accepted(wire.append).released(Ack(Kind.PUBREL, packet_id))
    assert wire == [ack_packet(Kind.PUBCOMP, packet_id)]


def test_large_message_has_an_identifier_too() -> None:
    """What was too large to be read is settled like others."""
    wire = Wire()
    accepted = Accepted(wire.append)
    oversized = Oversized("a", 5000, 1, 7)
    assert accepted.is_new(oversized)
    assert not accepted.is_new(Oversized("a", 5000, 1, 7, dup=True))
    accepted.acknowledge(oversized)
    assert wire == [ack_packet(Kind.PUBACK, 7)]


def test_message_that_comes_again_over_the_next_connection() -> None:
    """It is the same while it is handled, and what is done by then is acknowledged."""
    wire = Wire()
    accepted = Accepted(wire.append)
    first, second = (Publish("a", b"%d" % n, 1, packet_id=n) for n in (1, 2))
    assert accepted.is_new(first)
    assert accepted.is_new(second)
    accepted.use(None)
    accepted.acknowledge(first)
    assert (wire, len(accepted)) == ([], 1)
    accepted.use(wire.append)
    again = Publish("a", b"1", 1, dup=True, packet_id=1)
    assert not accepted.is_new(again)
    assert wire == [ack_packet(Kind.PUBACK, 1)]
    assert not accepted.is_new(Publish("a", b"2", 1, dup=True, packet_id=2))
    accepted.acknowledge(second)
    assert wire[1:] == [ack_packet(Kind.PUBACK, 2)]
    assert accepted.steps == 2


@pytest.mark.parametrize(
    "new",
    [
        Publish("a", b"2", 1, packet_id=7),
        Publish("a", b"2", 1, dup=True, packet_id=7),
        Publish("a", b"1", 1, packet_id=7),
    ],
    ids=["another", "another that came before", "one that says the same"],
)
def test_identifier_of_another_message(new: Publish) -> None:
    """A broker that was killed gives it anew: it has an outcome of its own."""
    wire = Wire()
    accepted = Accepted(wire.append)
    old = Publish("a", b"1", 1, packet_id=7)
    assert accepted.is_new(old)
    assert accepted.is_new(new)
    accepted.acknowledge(old)
    assert not wire
    assert (accepted.has(old), accepted.has(new)) == (False, True)


def test_identifier_of_another_message_before_its_release() -> None:
    """A broker that was killed forgot that it owes a PUBREL: no message is lost."""
    wire = Wire()
    accepted = Accepted(wire.append)
    old, new = (Publish("a", b"%d" % n, 2, packet_id=7) for n in (1, 2))
    assert accepted.is_new(old)
    accepted.acknowledge(old)
    assert accepted.is_new(new)
    assert not accepted.is_new(Publish("a", b"2", 2, dup=True, packet_id=7))
    assert wire == [ack_packet(Kind.PUBREC, 7)]
    accepted.acknowledge(new)
    assert wire == [ack_packet(Kind.PUBREC, 7)] * 2


def test_release_that_is_forgotten() -> None:
    """In a new session an identifier says nothing, not even with DUP."""
    accepted = Accepted(Wire().append)
    publish = Publish("a", b"1", 2, dup=True, packet_id=7)
    assert accepted.is_new(publish)
    accepted.acknowledge(publish)
    accepted.forget()
    assert accepted.is_new(publish)


def test_session_that_is_forgotten() -> None:
    """What the broker does not wait for is not acknowledged."""
    wire = Wire()
    accepted = Accepted(wire.append)
    publish = Publish("a", b"1", 2, packet_id=7)
    assert accepted.is_new(publish)
    accepted.use(None)
    accepted.forget()
    accepted.released(Ack(Kind.PUBREL, 7))
    accepted.use(wire.append)
    accepted.acknowledge(publish)
    assert not wire
    assert accepted.is_new(publish)
