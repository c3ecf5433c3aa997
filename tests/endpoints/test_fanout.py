"""A message that has several handlers, or none."""

import logging
from typing import Any

import pytest

from django_microservices.endpoints.fanout import Fanout, Settled, answer
from django_microservices.wire.messages import UNSET, Message, Reply
from django_microservices.wire.patterns import Pattern


class Part:
    """A delivery that ends when the test says so."""

    def __init__(self) -> None:
        self.outcome: str | None = None
        self.reason = ""
        self.delay: float | None = None
        self.callback: Any = None

    def start(self) -> None:
        """Begin."""

    def when_done(self, callback: Any) -> None:
        """Keep who waits."""
        self.callback = callback

    def end(self, outcome: str, reason: str = "", delay: float | None = None) -> None:
        """End."""
        self.outcome, self.reason, self.delay = outcome, reason, delay
        self.callback(self)

    def cancel(self) -> None:
        """End unanswered."""
        self.end("retry")


def new_message() -> Message:
    """Make a request."""
    return Message(Pattern.of("noted"), b"1", "id")


def started(respond: Any = None) -> tuple[Fanout, list[Any]]:
    """Make one of three parts that has begun."""
    parts: list[Any] = [Part(), Part(), Part()]
    fanout = Fanout(new_message(), respond)
    fanout.start(parts)
    return fanout, parts


def test_done_with_the_last() -> None:
    """It is done when the last of its parts is, and answers once."""
    replies: list[Reply] = []
    done: list[Any] = []
    fanout, parts = started(replies.append)
    fanout.when_done(done.append)
    for part in parts[:2]:
        part.end("ack")
    assert (fanout.outcome, replies, done) == (None, [], [])
    parts[2].end("ack")
    assert (fanout.outcome, done) == ("ack", [fanout])
    assert [(reply.id, reply.data) for reply in replies] == [("id", None)]


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        (("ack", "dead", "retry"), ("retry", "third", 3)),
        (("ack", "dead", "ack"), ("dead", "second", 2)),
        (("ack", "ack", "ack"), ("ack", "first", 1)),
    ],
)
def test_worst_outcome_counts(outcomes: tuple[str, ...], expected: Any) -> None:
    """An event is tried again where one part wants that, else dead where one is."""
    fanout = Fanout(Message(Pattern.of("noted"), b"1"), None)
    parts: list[Any] = [Part(), Part(), Part()]
    fanout.start(parts)
    names = ("first", "second", "third")
    for number, (part, outcome, name) in enumerate(
        zip(parts, outcomes, names, strict=True), 1
    ):
        part.end(outcome, name, number)
    assert (fanout.outcome, fanout.reason, fanout.delay) == expected


def test_answered_request_is_done() -> None:
    """A request is answered, and not tried again although a part failed."""
    fanout, parts = started(lambda reply: None)
    for part, outcome in zip(parts, ("ack", "retry", "ack"), strict=True):
        part.end(outcome)
    assert fanout.outcome == "ack"


def test_asked_when_it_is_done() -> None:
    """Who asks late is told at once."""
    done: list[Any] = []
    fanout, parts = started()
    for part in parts:
        part.end("ack")
    fanout.when_done(done.append)
    assert done == [fanout]


def test_cancel() -> None:
    """Cancelling cancels every part, and nothing is answered."""
    replies: list[Reply] = []
    fanout, _ = started(replies.append)
    fanout.cancel()
    assert (fanout.outcome, replies) == ("retry", [])


def test_settled() -> None:
    """What nobody handles is done at once."""
    done: list[Any] = []
    settled = Settled(Message(Pattern.of("wrong"), b"1", UNSET), "dead", "no handler")
    settled.when_done(done.append)
    settled.cancel()
    assert (settled.outcome, settled.reason, done) == ("dead", "no handler", [settled])


def test_answer_to_a_slow_reader() -> None:
    """Nobody waits for a peer to read the only reply."""

    async def slow() -> None:
        raise AssertionError

    answer(lambda reply: slow(), Reply("id"))
    answer(lambda reply: None, Reply("id"))


def test_answer_that_cannot_be_sent(caplog: pytest.LogCaptureFixture) -> None:
    """A wire that refuses the reply is logged."""

    def refuse(reply: Reply) -> None:
        raise KeyError("seam")

    with caplog.at_level(logging.ERROR):
        answer(refuse, Reply("id"))
    assert "The answer could not be sent." in caplog.text
