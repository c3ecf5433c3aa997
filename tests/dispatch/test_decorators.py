"""The decorators: they mark, and return what they got."""

import functools
from collections.abc import Iterable
from typing import Any

import pytest

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
from django_microservices.dispatch.decorators import (
    kind_name,
    marked_functions,
    marks_of,
)

SUM = Request({"cmd": "sum"}, list[int], int)
NOTED = Event("noted", str)


def plain(data: Any) -> Any:
    """Answer nothing."""


def routes(function: Any) -> list[tuple[str, list[str]]]:
    """Return the kind and the patterns of each mark."""
    return [(m.kind, [p.route for p in m.patterns]) for m in marks_of(function)]


def test_function_stays_itself() -> None:
    """A decorator marks the function and returns it."""

    def function(data: Any) -> None: ...

    assert message_pattern("a")(function) is function
    assert routes(function) == [("request", ["a"])]


def test_unmarked_function_has_no_marks() -> None:
    """Nothing was said of a function without a decorator."""
    assert marks_of(plain) == []


def test_several_patterns() -> None:
    """One decorator takes any number of patterns."""

    @event_pattern("a", {"b": 1}, 3)
    def function(data: Any) -> None: ...

    assert routes(function) == [("event", ["a", '{"b":1}', "3"])]


def test_stacked_decorators() -> None:
    """Each decorator is a mark of its own, from the top down."""

    @message_pattern("a", atomic=True)
    @event_pattern("b")
    def function(data: Any) -> None: ...

    assert routes(function) == [("request", ["a"]), ("event", ["b"])]
    assert [mark.options for mark in marks_of(function)] == [{"atomic": True}, {}]


def test_contract_gives_the_pattern() -> None:
    """A contract stands for its pattern, and is kept."""

    @message_pattern(SUM)
    def function(data: list[int]) -> int:
        return sum(data)

    (mark,) = marks_of(function)
    assert (mark.patterns, mark.contract) == ((SUM.pattern,), SUM)


def test_contract_beside_another_pattern() -> None:
    """A contract may stand among other patterns."""

    @event_pattern("old.name", NOTED)
    def function(data: str) -> None: ...

    assert routes(function) == [("event", ["old.name", "noted"])]
    assert marks_of(function)[0].contract is NOTED


def test_pattern_is_required() -> None:
    """A decorator without a pattern says so at once."""
    with pytest.raises(TypeError, match=r"event_pattern\(\) needs at least one"):
        event_pattern()


def test_contract_of_the_other_kind() -> None:
    """An event's contract is no request's, and the other way round."""
    with pytest.raises(TypeError, match=r"a contract for event_pattern\(\), not"):
        message_pattern(NOTED)
    with pytest.raises(TypeError, match=r"a contract for message_pattern\(\), not"):
        event_pattern(SUM)


@pytest.mark.parametrize("target", [Controller, staticmethod(plain), object()])
def test_only_functions_are_marked(target: Any) -> None:
    """A class or another object cannot answer a message."""
    with pytest.raises(TypeError, match=r"message_pattern\(\) marks functions, not"):
        message_pattern("a")(target)


def test_kind_name() -> None:
    """Each kind of handler has its decorator's name."""
    assert kind_name("request") == "message_pattern"
    assert kind_name("event") == "event_pattern"


def test_marks_survive_another_decorator() -> None:
    """``functools.wraps`` takes the marks along."""

    @message_pattern("a")
    def function(data: Any) -> None: ...

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any: ...

    assert routes(wrapper) == [("request", ["a"])]


def test_marked_functions_are_known() -> None:
    """Every marked function can be found, wherever it stands, while it lives."""

    @message_pattern("a")
    def function(data: Any) -> None: ...

    assert function in marked_functions()
    assert plain not in marked_functions()


@pytest.mark.parametrize(
    ("use", "shape"),
    [
        (use_guards, "guards"),
        (use_pipes, "pipes"),
        (use_interceptors, "interceptors"),
        (use_filters, "filters"),
    ],
)
def test_shapes(use: Any, shape: str) -> None:
    """Stacked, the upper one stands outside of the lower one."""

    def function(data: Any) -> None: ...

    assert use(1, 2)(use(3)(function)) is function
    assert getattr(function, shape) == (1, 2, 3)


def test_shapes_of_a_controller() -> None:
    """A Controller's decorator adds to its attribute."""

    @use_guards(1)
    class Guarded(Controller):
        guards: Iterable[Any] = (2,)

    assert Guarded.guards == (1, 2)


def test_shapes_are_inherited() -> None:
    """A decorated class keeps what it inherits, and changes nothing of its base."""

    class Base(Controller):
        guards: Iterable[Any] = (1,)

    @use_guards(2)
    class Derived(Base): ...

    assert (Base.guards, Derived.guards) == ((1,), (2, 1))


def test_scope() -> None:
    """A Controller's scope is given with its class, and inherited."""

    class Fresh(Controller, scope="message"): ...

    class Derived(Fresh): ...

    class Shared(Fresh, scope="process"): ...

    scopes = [cls.scope for cls in (Controller, Fresh, Derived, Shared)]
    assert scopes == ["process", "message", "message", "process"]


def test_wrong_scope() -> None:
    """A scope that there is not is refused where the class is made."""
    with pytest.raises(TypeError, match=r"Wrong: scope='request' is not 'process'"):
        type("Wrong", (Controller,), {}, scope="request")


@pytest.mark.parametrize("decorator", [message_pattern, event_pattern])
def test_a_decorator_is_written_with_a_pattern(decorator: Any) -> None:
    """Without parentheses it would get the function for a pattern."""

    def f(data: Any) -> None: ...

    with pytest.raises(TypeError) as caught:
        decorator(f)
    name = decorator.__name__
    assert str(caught.value) == (
        f"Write @{name}(...) with a pattern, which {f.__qualname__} is not."
    )
