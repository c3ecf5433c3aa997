"""Handlers: what was said of a function, decided once."""

from collections import abc
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection

from django_microservices import Event, Request, event_pattern, message_pattern
from django_microservices.dispatch.payloads import PayloadError
from django_microservices.wire.messages import Subscription
from django_microservices.wire.patterns import Pattern

from .composing import handler_of, refusal

if TYPE_CHECKING:
    from decimal import Decimal


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


@pytest.mark.parametrize(
    ("contract", "data", "payload"),
    [
        (Request("a", set[int], int), b"[1,1]", {1}),
        (Event("a", set[int]), b"[1,1]", {1}),
        (Request("a", type(None), int), b"null", None),
    ],
)
def test_contract_types_the_payload(contract: Any, data: bytes, payload: Any) -> None:
    """Without an annotation the contract says what the payload is."""
    decorate: Any = event_pattern if isinstance(contract, Event) else message_pattern
    bind: Any = handler_of(decorate(contract)(lambda data: data)).plan.bind
    assert bind(data, None) == ((payload,), {})


def test_contract_without_a_payload() -> None:
    """What the contract does not allow is the caller's error: None is null."""
    nothing: Any = None
    contract = Request("a", nothing, int)
    bind: Any = handler_of(message_pattern(contract)(lambda data: data)).plan.bind
    assert bind(b"null", None) == ((None,), {})
    with pytest.raises(PayloadError):
        bind(b"1", None)


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
