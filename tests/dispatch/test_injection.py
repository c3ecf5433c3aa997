"""What ``Inject`` hands over to a handler."""

from typing import Annotated, Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_microservices.dispatch.injection import Part, cache_of, provider_of
from django_microservices.dispatch.signatures import Inject, slots_of
from django_microservices.wire.context import MessageContext

from .services import STOCK, Service, aservice, resolve_client


class AsyncFactory:
    """An instance whose call is async."""

    async def __call__(self) -> Service:
        """Make a service on the loop."""
        return Service()


def of_message(context: MessageContext[Any]) -> str:
    """Ask for the context."""
    return context.pattern


def of_any(context: MessageContext[Any] | None = None) -> str:
    """Take the context where there is one."""
    return context.pattern if context is not None else "none"


def provided(source: Any, context: Any) -> Any:
    """Return what a source gives for a context."""

    def function(value: Annotated[Any, Inject(source)]) -> None: ...

    part = provider_of(function, slots_of(function)[0], resolve_client)
    return part.call(context, cache_of(context))


# --- steps --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "is_async"),
    [(Service, False), (aservice, True), (AsyncFactory(), True)],
)
def test_a_step_knows_how_it_is_called(function: Any, is_async: object) -> None:
    """A sync step may use the database; an async one has its own ways."""
    part = Part.of(function)
    assert part.is_async is is_async
    assert part.may_block is not is_async


# --- providers ----------------------------------------------------------------------


def test_a_name_gives_the_client() -> None:
    """With or without a message."""
    assert provided("STOCK", None) is STOCK


def test_a_factory_is_called_once_for_a_message(message: Any) -> None:
    """Without a message, each time."""
    assert provided(Service, message) is provided(Service, message)
    assert provided(Service, None) is not provided(Service, None)


def test_a_factory_gets_the_context_if_it_asks(message: Any) -> None:
    """By a required parameter, or by one annotated with it."""
    assert provided(of_message, message) == "p"
    assert provided(of_any, message) == "p"
    assert provided(lambda any_name: any_name, message) is message
    assert provided(lambda limit=5: limit, message) == 5


def test_a_factory_that_tells_no_signature_gets_nothing(message: Any) -> None:
    """Some builtins do not tell."""
    assert provided(dict, message) == {}


def test_a_factory_may_do_without_a_message() -> None:
    """If its parameter has a default."""
    assert provided(of_any, None) == "none"


def test_a_factory_that_needs_a_message_says_so() -> None:
    """By its name."""
    with pytest.raises(LookupError, match=r"of_message.* no message is being"):
        provided(of_message, None)


def wants_two(a: int, b: int) -> None:
    """Require more than anybody has."""


def wants_a_name(*, a: int) -> None:
    """Require a name that nobody knows."""


@pytest.mark.parametrize(
    ("factory", "names"), [(wants_two, "a, b"), (wants_a_name, "a")]
)
def test_a_factory_that_requires_more_is_refused(factory: Any, names: str) -> None:
    """At registration, with the names."""
    with pytest.raises(ImproperlyConfigured, match=f"requires {names}"):
        provided(factory, None)


def test_the_context_is_provided_to_handlers(message: Any) -> None:
    """Where a parameter is annotated with it."""

    def handler(context: MessageContext[Any]) -> None: ...

    part = provider_of(handler, slots_of(handler)[0], resolve_client)
    assert part.call(message, {}) is message


def test_a_source_is_a_name_or_a_factory() -> None:
    """Anything else is refused with the parameter's name."""
    with pytest.raises(
        ImproperlyConfigured, match=r"parameter 'value': Inject\(5\) is"
    ):
        provided(5, None)
