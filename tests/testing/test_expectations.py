"""What a mocked client expects, and how it answers."""

from typing import Any

import pytest

from django_microservices import (
    UNSET,
    EncodingError,
    Event,
    MessageTimeout,
    NotConnected,
    RemoteError,
    Request,
    RpcException,
)
from django_microservices.endpoints.calls import Call
from django_microservices.testing import Expectation, Sent
from django_microservices.wire.messages import Reply
from django_microservices.wire.patterns import Pattern
from tests.endpoints.ends import sent


class Caller:
    """Who waits for an answer."""

    def __init__(self, timeout: float | None = 5.0, id_: Any = 1) -> None:
        self.call = sent(Call(Pattern.of("a"), b"null", id_, timeout=timeout))
        self.call.waiter = self
        self.replies: list[Reply] = []
        self.error: BaseException | None = None

    def set_exception(self, error: BaseException) -> None:
        """Note the error."""
        self.error = error

    def ask(self, expectation: Expectation) -> list[Any]:
        """Return what comes back."""
        expectation.answer(self.call, self.replies.append)
        return [
            None if reply.data is None else bytes(reply.data) for reply in self.replies
        ]


def test_reply() -> None:
    """One value is one packet."""
    caller = Caller()
    assert caller.ask(Expectation("a").reply({"b": (1,)})) == [b'{"b":[1]}']
    assert [reply.last for reply in caller.replies] == [True]


def test_reply_without_a_value() -> None:
    """Nothing at all is not null."""
    assert Caller().ask(Expectation("a").reply(UNSET)) == [None]
    assert Caller().ask(Expectation("a").reply(None)) == [b"null"]


def test_reply_that_cannot_travel() -> None:
    """What a handler could not return is refused where it is said."""
    with pytest.raises(EncodingError):
        Expectation("a").reply(object())
    with pytest.raises(EncodingError):
        Expectation("a").stream([1, object()])


def test_stream() -> None:
    """Items come one by one, and then the end."""
    caller = Caller()
    assert caller.ask(Expectation("a").stream(range(2))) == [b"0", b"1", None]
    assert [reply.last for reply in caller.replies] == [False, False, True]


def test_stream_that_breaks() -> None:
    """An exception among the items is raised in its turn, and ends them."""
    caller = Caller()
    assert caller.ask(Expectation("a").stream([1, NotConnected("gone"), 2])) == [b"1"]
    assert isinstance(caller.error, NotConnected)


def test_raises() -> None:
    """An exception is raised as it is, or made from its class."""
    error = NotConnected("gone")
    with pytest.raises(NotConnected) as caught:
        Caller().ask(Expectation("a").raises(error))
    assert caught.value is error
    with pytest.raises(NotConnected):
        Caller().ask(Expectation("a").raises(NotConnected))


def test_raises_a_remote_error() -> None:
    """A peer's value has travelled."""
    with pytest.raises(RemoteError) as caught:
        Caller().ask(Expectation("a").raises(RemoteError({"codes": (1, 2)})))
    assert caught.value.error == {"codes": [1, 2]}


def test_raises_what_a_handler_raises() -> None:
    """An RpcException is what its caller gets for it."""
    with pytest.raises(RemoteError) as caught:
        Caller().ask(Expectation("a").raises(RpcException("no")))
    assert caught.value.error == {"status": "error", "message": "no"}


def test_times_out() -> None:
    """Nobody has to wait for a timeout."""
    with pytest.raises(MessageTimeout, match="within 5 s"):
        Caller().ask(Expectation("a").times_out())


def test_times_out_never() -> None:
    """A call without a timeout cannot end so."""
    with pytest.raises(AssertionError, match="'a' with <ANY> has no timeout"):
        Caller(timeout=None).ask(Expectation("a").times_out())


def test_several_answers() -> None:
    """They are given in turn, the last one again and again."""
    expectation = Expectation("a").reply(1).reply(2)
    assert [Caller().ask(expectation) for _ in "123"] == [[b"1"], [b"2"], [b"2"]]
    expectation.reset()
    assert Caller().ask(expectation) == [b"1"]


def test_request_needs_an_answer() -> None:
    """A request without an answer is the test's mistake."""
    with pytest.raises(AssertionError, match=r"has no answer: add \.reply"):
        Caller().ask(Expectation("a"))


def test_event_needs_none() -> None:
    """An event is taken as it is."""
    assert Caller(id_=UNSET).ask(Expectation("a")) == []


@pytest.mark.parametrize(
    "expectation",
    [Expectation("a").reply(1), Expectation("a").stream([1, NotConnected("gone")])],
)
def test_event_hears_no_reply(expectation: Expectation) -> None:
    """A reply is for requests: an event that meets one is taken."""
    caller = Caller(id_=UNSET)
    assert caller.ask(expectation) == []
    assert caller.error is None


@pytest.mark.parametrize("pattern", ["a", Request("a", int, int), Event("a", int)])
def test_matches(pattern: Any) -> None:
    """An expectation is met by its pattern and, where it says one, its payload."""
    assert Expectation(pattern).matches(Sent("a", 1))
    assert Expectation(pattern, 1).matches(Sent("a", 1))
    assert not Expectation(pattern, 2).matches(Sent("a", 1))
    assert not Expectation(pattern).matches(Sent("b", 1))


def test_shown() -> None:
    """An expectation is named as a message is."""
    assert str(Expectation("a", {"b": 1})) == "'a' with {'b': 1}"
