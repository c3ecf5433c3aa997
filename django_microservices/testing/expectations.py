"""What a mocked client expects, and how it answers."""

from collections.abc import Callable, Iterable
from typing import Any

from ..dispatch.errors import error_value
from ..endpoints.calls import Call
from ..exceptions import RemoteError, RpcException
from ..wire.codecs import decode, encode
from ..wire.messages import UNSET, Reply
from ..wire.packets import read_reply, write_reply
from .sent import ANY, Sent, plain_of, route_of, told

Receive = Callable[[Reply], None]
Answer = Callable[[Call, Receive], None]


class Expectation:
    """A message that a mocked client expects: ``stock.on("reserve", {"sku": 1})``.

    Each of :meth:`reply`, :meth:`stream`, :meth:`raises` and :meth:`times_out` adds an
    answer: they are given in turn, and the last one again and again. An event needs
    none, and hears nothing of a reply or stream: it is noted, and ``emit`` returns.
    """

    def __init__(self, pattern: Any, data: Any = ANY) -> None:
        self.pattern = pattern
        self.route = route_of(pattern)
        self.data = plain_of(data)
        self._answers: list[Answer] = []
        self._given = 0

    def reply(self, value: Any) -> "Expectation":
        """Answer with a value; it must be one that a handler could return."""
        data = _encoded(value)

        def answer(call: Call, receive: Receive) -> None:
            _receive(receive, Reply(call.id, data))

        return self._add(_to_requests(answer))

    def stream(self, items: Iterable[Any]) -> "Expectation":
        """Answer with items; one that is an exception is raised in its turn."""
        steps = [i if isinstance(i, BaseException) else _encoded(i) for i in items]

        def answer(call: Call, receive: Receive) -> None:
            for step in steps:
                if isinstance(step, BaseException):
                    call.fail(_as_remote(step))
                    return
                _receive(receive, Reply(call.id, step, last=False))
            _receive(receive, Reply(call.id))

        return self._add(_to_requests(answer))

    def raises(self, exception: BaseException | type[BaseException]) -> "Expectation":
        """Fail: with a ``RemoteError``, ``NotConnected``, or anything else.

        An ``RpcException`` arrives as the ``RemoteError`` that callers get for it.
        """

        def answer(call: Call, receive: Receive) -> None:  # noqa: ARG001
            raise _as_remote(exception)

        return self._add(answer)

    def times_out(self) -> "Expectation":
        """Raise ``MessageTimeout``, without the waiting."""

        def answer(call: Call, receive: Receive) -> None:  # noqa: ARG001
            if call.timeout is None:
                message = f"{self} has no timeout: its caller would wait for ever."
                raise AssertionError(message)
            raise call.timed_out()

        return self._add(answer)

    def _add(self, answer: Answer) -> "Expectation":
        self._answers.append(answer)
        return self

    def reset(self) -> None:
        """Begin with the first answer again."""
        self._given = 0

    def matches(self, sent: Sent) -> bool:
        """Whether a message is the expected one."""
        return sent.is_like(self.route, self.data)

    def answer(self, call: Call, receive: Receive) -> None:
        """Answer a message, or raise."""
        if self._answers:
            answer = self._answers[min(self._given, len(self._answers) - 1)]
            self._given += 1
            answer(call, receive)
        elif not call.is_event:
            message = f"{self} has no answer: add .reply(...) or its kin."
            raise AssertionError(message)

    def __str__(self) -> str:
        return told(self.pattern, self.data)


def _to_requests(answer: Answer) -> Answer:
    """Give an answer to those who hear one."""

    def given(call: Call, receive: Receive) -> None:
        if not call.is_event:
            answer(call, receive)

    return given


def _encoded(value: Any) -> bytes | None:
    return None if value is UNSET else encode(value)


def _receive(receive: Receive, reply: Reply) -> None:
    """Hand a reply over, through the codec."""
    arrived = read_reply(write_reply(reply))
    assert arrived is not None
    receive(arrived)


def _as_remote(exception: Any) -> BaseException:
    """Return the exception that the caller gets, its value having travelled."""
    if isinstance(exception, RpcException):
        exception = RemoteError(error_value(exception))
    if isinstance(exception, RemoteError):
        return RemoteError(decode(encode(exception.error)))
    made: BaseException = exception() if isinstance(exception, type) else exception
    return made
