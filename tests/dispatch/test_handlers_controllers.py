"""Handlers of a Controller, and the parts around a handler."""

from typing import Annotated, Any

import pytest

from django_microservices import (
    Controller,
    Inject,
    inject,
    message_pattern,
    use_filters,
    use_guards,
    use_interceptors,
    use_pipes,
)
from django_microservices.dispatch.handlers import the

from .composing import handler_of, refusal

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
    made = []

    class Noted(Controller):
        def __init__(self, note: str = "made") -> None:
            made.append(note)

        @message_pattern("a")
        def method(self, data: Any) -> None: ...

    handler = handler_of(Noted.method, Noted)
    assert made == []
    handler.function(None)
    assert made == ["made"]


@pytest.mark.parametrize("scope", ["process", "message"])
def test_controller_that_needs_arguments(scope: str) -> None:
    """Nobody gives them, so it is refused before it is made."""

    class Unmakable(Controller, scope=scope):
        def __init__(self, missing: int) -> None: ...

        @message_pattern("a")
        def method(self, data: Any) -> None: ...

    text = refusal(Unmakable.method, Unmakable)
    assert text.endswith(
        "Unmakable cannot be made: missing a required argument: 'missing'."
    )


def test_controller_that_is_injected() -> None:
    """What ``inject`` fills is not asked of anybody."""

    class Injected(Controller):
        @inject
        def __init__(self, stock: Annotated[Any, Inject(list)]) -> None:
            self.stock = stock

        @message_pattern("a")
        def method(self, data: Any) -> Any:
            return self.stock

    assert handler_of(Injected.method, Injected).function(None) == []


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


def test_a_class_that_needs_arguments_is_no_guard() -> None:
    """Its one instance is made here, so it is refused here."""

    class Unmakable:
        def __init__(self, missing: int) -> None: ...

    @use_guards(Unmakable)
    @message_pattern("a")
    def function(data: Any) -> None: ...

    text = refusal(function)
    assert "Unmakable cannot be made: " in text
    assert "'missing'" in text
