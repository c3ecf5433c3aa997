"""Messages, replies, and the ids of requests."""

import os

from django_microservices.wire import messages
from django_microservices.wire.messages import (
    UNSET,
    Message,
    Reply,
    Subscription,
    new_id,
)
from django_microservices.wire.patterns import Pattern

PATTERN = Pattern.of("a")


def test_event() -> None:
    """A message without an id is an event, and knows nothing else by itself."""
    message = Message(PATTERN, b"1")
    assert message.id is UNSET
    assert (message.headers, message.timeout, message.wire) == (None, None, None)


def test_messages_are_things() -> None:
    """Equal messages are not the same one: each can be a key of its own."""
    assert len({Message(PATTERN, b"1", "7"), Message(PATTERN, b"1", "7")}) == 2


def test_reply_ends() -> None:
    """A reply ends the answer unless it says otherwise."""
    reply = Reply("7", b"1")
    assert (reply.last, reply.missing, reply.error) == (True, False, None)


def test_subscription_has_options_of_its_own() -> None:
    """What one subscription is told, no other hears."""
    first = Subscription(PATTERN, "event")
    first.options["qos"] = 1
    assert Subscription(PATTERN, "event").options == {}


def test_ids_are_unique() -> None:
    """Ids are 20 hex digits, and none comes twice."""
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert {len(id_) for id_ in ids} == {20}
    assert set("".join(ids)) <= set("0123456789abcdef")


def test_ids_are_drawn_in_bulk(monkeypatch: object) -> None:
    """One system call gives 256 ids."""
    messages._ids.clear()
    new_id()
    assert len(messages._ids) == 255


def test_child_process_draws_its_own_ids() -> None:
    """After a fork the child never hands out the ids that its parent will."""
    new_id()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - coverage does not see the child's end
        os.write(writer, new_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    theirs = os.read(reader, 100).decode()
    os.close(reader)
    assert theirs not in {new_id() for _ in range(256)}
