"""Handlers: what was said of a function, decided once."""

from collections import abc
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection

from django_microservices import (
    Controller,
    Event,
    Request,
    event_pattern,
    message_pattern,
    use_filters,
    use_guards,
    use_interceptors,
    use_pipes,
)
from django_microservices.dispatch.handlers import the
from django_microservices.wire.messages import Subscription
from django_microservices.wire.patterns import Pattern

from .composing import handler_of

if TYPE_CHECKING:
    from decimal import Decimal


def refusal(function: Any, controller: type[Controller] | None = None) -> str:
    """Return why a function cannot be a handler."""
    with pytest.raises(ImproperlyConfigured) as caught:
        handler_of(function, controller)
    return str(caught.value)


# --- what is read -----------------------------------------------------------------


@message_pattern("a", {"b": 1}, servers="x", timeout=3, qos=1)
def plain(data: int) -> str:
    """Answer a text."""
    return str(data)


def test_function() -> None:
    """A handler knows its function, its place and what its decorator said."""
    handler = handler_of(plain)
    assert (handler.source, handler.function, handler.controller) == (
        plain,
        plain,
        None,
    )
    assert (handler.module, handler.name) == (__name__, f"{__name__}.plain")
    assert (handler.kind, handler.servers, handler.timeout) == ("request", ("x",), 3)
    assert repr(handler) == f"<Handler {__name__}.plain>"


def test_subscriptions() -> None:
    """A server listens for each pattern, with what the wire was told."""
    assert handler_of(plain).subscriptions == [
        Subscription(Pattern.of("a"), "request", {"qos": 1}),
        Subscription(Pattern.of({"b": 1}), "request", {"qos": 1}),
    ]


def test_unknown_option() -> None:
    """A wrong option names the handler."""
    function = event_pattern("a", cue="q")(lambda data: None)
    assert refusal(function).startswith(f"{__name__}.test_unknown_option.<locals>.<la")


# --- sync, async, streams ---------------------------------------------------------


def made(text: str) -> Any:
    """Return the function ``f`` of a source text."""
    names: dict[str, Any] = {"__name__": __name__, **vars(abc)}
    exec(text, names)
    return names["f"]


@pytest.mark.parametrize(
    ("text", "streams", "is_async", "answer"),
    [
        ("def f(data): ...", False, False, Any),
        ("def f(data) -> int: ...", False, False, int),
        ("def f(data) -> str: ...", False, False, str),
        ("def f(data) -> list[int]: ...", False, False, list[int]),
        ("async def f(data) -> int: ...", False, True, int),
        ("def f(data): yield", True, False, Any),
        ("def f(data) -> Iterator[int]: yield", True, False, int),
        ("async def f(data): yield", True, True, Any),
        ("async def f(data) -> AsyncIterator[int]: yield", True, True, int),
        ("def f(data) -> Iterator: ...", True, False, Any),
        ("def f(data) -> Iterator[int]: ...", True, False, int),
        ("def f(data) -> Iterable[int]: ...", True, False, int),
        ("def f(data) -> Generator[int, None, None]: ...", True, False, int),
        ("def f(data) -> AsyncIterator[int]: ...", True, True, int),
        ("def f(data) -> AsyncIterable[int]: ...", True, True, int),
        ("def f(data) -> AsyncGenerator[int, None]: ...", True, True, int),
        ("async def f(data) -> Iterator[int]: ...", True, True, int),
        ("async def f(data) -> AsyncIterator[int]: ...", True, True, int),
    ],
)
def test_kinds(
    text: str,
    streams: bool,  # noqa: FBT001
    is_async: bool,  # noqa: FBT001
    answer: Any,
) -> None:
    """Sync or async, one answer or a stream, is decided when it is registered."""
    handler = handler_of(message_pattern("a")(made(text)))
    found = (handler.streams, handler.is_async, handler.answer)
    assert found == (streams, is_async, answer)


class Page:
    """An answer with items and more."""

    def __iter__(self) -> Iterator[int]:
        """Iterate over the items."""
        return iter(())


def test_iterable_class_is_no_stream() -> None:
    """An answer that can be iterated over is still one answer."""

    @message_pattern("a")
    def function(data: int) -> Page:
        return Page()

    assert not handler_of(function).streams


# --- the answer -------------------------------------------------------------------


def test_response_shapes_the_answer() -> None:
    """``response=`` goes before the annotation."""

    @message_pattern("a", response=float)
    def function(data: int) -> int:
        return data

    assert handler_of(function).answer is float


def test_contract_shapes_the_answer() -> None:
    """Without an annotation the contract says what is answered."""

    @message_pattern(Request("a", int, list[int]))
    def function(data): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202

    assert handler_of(function).answer == list[int]


def test_event_contract_has_no_answer() -> None:
    """An event's contract says nothing of an answer."""

    @event_pattern(Event("a", int))
    def function(data): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202

    assert handler_of(function).answer is Any


def test_answer_is_encoded_to_its_shape() -> None:
    """The handler's encoder is that of its answer."""
    assert handler_of(plain).encode("x") == b'"x"'


def test_unresolved_annotation() -> None:
    """A name that is there for type checkers only is told, with the cure."""

    @message_pattern("a")
    def function(data: int) -> "Decimal":
        raise NotImplementedError

    told = refusal(function)
    assert "function: " in told
    assert "return annotation cannot be resolved" in told
    assert "under `if TYPE_CHECKING:`" in told


# --- options that exclude each other ----------------------------------------------


def test_atomic_is_for_sync_handlers() -> None:
    """Django's transactions do not work in async code."""

    @message_pattern("a", atomic=True)
    async def function(data: int) -> None: ...

    assert "function: atomic=True needs a sync handler" in refusal(function)


def test_uses_database_is_for_async_handlers() -> None:
    """A sync handler has its thread already."""

    @message_pattern("a", uses_database=True)
    def function(data: int) -> None: ...

    assert "function: uses_database=True is for async" in refusal(function)


# --- transactions -----------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_atomic() -> None:
    """``atomic=True`` runs the handler in a transaction of the database named."""

    @message_pattern("a", atomic=True, using="default")
    def function(data: int) -> bool:
        return connection.in_atomic_block

    assert handler_of(function).function(1)
    assert not connection.in_atomic_block


@pytest.mark.django_db(transaction=True)
def test_atomic_stream() -> None:
    """A stream's transaction lasts until its last item."""

    @message_pattern("a", atomic=True)
    def function(data: int) -> Iterator[bool]:
        yield connection.in_atomic_block
        yield connection.in_atomic_block

    assert list(handler_of(function).function(1)) == [True, True]
    assert not connection.in_atomic_block


# --- Controllers ------------------------------------------------------------------


class Counter(Controller):
    """A Controller that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    @message_pattern("count")
    def count(self, data: Any) -> int:
        """Count a call."""
        self.calls += 1
        return self.calls


class Fresh(Counter, scope="message"):
    """The same, made anew for every message."""


def test_controller_of_the_process() -> None:
    """One instance serves all messages and all its handlers."""
    one, other = handler_of(Counter.count, Counter), handler_of(Counter.count, Counter)
    assert [one.function(0), other.function(0), one.function(0)] == [1, 2, 3]


def test_controller_of_a_message() -> None:
    """Each message has an instance of its own."""
    handler = handler_of(Fresh.count, Fresh)
    assert [handler.function(0), handler.function(0)] == [1, 1]


def test_inherited_handler() -> None:
    """A handler that is inherited counts as the Controller's, under its own name."""

    class Derived(Counter): ...

    Derived.__module__ = "another.handlers"
    handler = handler_of(Derived.count, Derived)
    assert handler.module == "another.handlers"
    assert handler.name == f"{__name__}.Counter.count"


def test_controller_is_made_when_it_is_used() -> None:
    """Looking at handlers, as checks do, makes no instance."""

    class Unmakable(Controller):
        def __init__(self, missing: int) -> None: ...

        @message_pattern("a")
        def method(self, data: Any) -> None: ...

    handler = handler_of(Unmakable.method, Unmakable)
    with pytest.raises(
        ImproperlyConfigured, match=r"Unmakable cannot be made: .*'missi"
    ):
        _ = handler.function


# --- guards, pipes, interceptors, filters -----------------------------------------


class Admit:
    """A guard."""

    def __call__(self, context: Any) -> bool:
        """Let everything in."""
        return True


class Tell:
    """A filter."""

    def __call__(self, exception: Exception, context: Any) -> str:
        """Answer with the error's text."""
        return str(exception)


def wrap(get_response: Any) -> Any:
    """Stand around a handler."""
    return get_response


@use_interceptors(wrap)
class Guarded(Controller):
    """A Controller with parts."""

    guards = (Admit,)
    filters = (Tell,)

    @use_guards(print)
    @use_filters(repr)
    @use_interceptors(Admit)
    @use_pipes(min, max)
    @message_pattern("a")
    def method(self, data: Any) -> None:
        """Do nothing."""


def test_parts() -> None:
    """The Controller's parts stand before the handler's; filters innermost first."""
    handler = handler_of(Guarded.method, Guarded)
    assert handler.guards == (the(Admit), print)
    assert handler.pipes == (min, max)
    assert handler.interceptors == (wrap, Admit)
    assert handler.filters == (repr, the(Tell))


def test_class_is_instantiated_once() -> None:
    """A guard that is a class has one instance, whoever uses it."""
    assert the(Admit) is the(Admit)
    assert isinstance(the(Admit), Admit)


def test_part_that_is_not_callable() -> None:
    """What cannot be called is told with its shape."""
    function = use_guards("is_admin")(message_pattern("a")(lambda data: None))
    assert refusal(function).endswith("'is_admin' in guards is not callable.")


def test_parts_that_are_no_list() -> None:
    """A lone part that is not in a list is told with its shape."""

    class Alone(Controller):
        guards = Admit  # type: ignore[assignment]

        @message_pattern("a")
        def method(self, data: Any) -> None: ...

    assert "method: guards is not a list: " in refusal(Alone.method, Alone)


def test_pipes_reach_the_payload() -> None:
    """The handler's pipes are part of how it is called."""

    @use_pipes(lambda value, parameter: value + 1)
    @message_pattern("a")
    def function(data: int) -> None: ...

    bind: Any = handler_of(function).plan.bind
    assert bind(b"1", None) == ((2,), {})
