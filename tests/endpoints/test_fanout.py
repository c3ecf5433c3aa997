"""A message that has several handlers, or none."""

import logging
from typing import Any

import pytest

from django_microservices.endpoints.fanout import Fanout, Unhandled, answer
from django_microservices.wire.messages import UNSET, Message, Reply
from django_microservices.wire.patterns import Pattern


class Part:
    """A delivery that ends when the test says so."""

    def __init__(self) -> None:
        self.outcome: str | None = None
        self.callback: Any = None

    def start(self) -> None:
        """Begin."""

    def when_done(self, callback: Any) -> None:
        """Keep who waits."""
        self.callback = callback

    def end(self, outcome: str) -> None:
        """End."""
        self.outcome = outcome
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


def test_one_that_fails() -> None:
    """Where one part failed, it is to be retried."""
    fanout, parts = started()
    for part, outcome in zip(parts, ("ack", "retry", "ack"), strict=True):
        part.end(outcome)
    assert fanout.outcome == "retry"


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


def test_unhandled() -> None:
    """What nobody handles is done at once, and dead."""
    done: list[Any] = []
    unhandled = Unhandled(Message(Pattern.of("wrong"), b"1", UNSET))
    unhandled.when_done(done.append)
    unhandled.cancel()
    assert (unhandled.outcome, done) == ("dead", [unhandled])


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
