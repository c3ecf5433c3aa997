"""Params: how a handler is called with a message."""

import functools
from typing import Annotated, Any

import msgspec
import pytest
from django import forms
from django.core.exceptions import ImproperlyConfigured

from django_microservices.dispatch.params import Inject, Parameter, Payload, plan
from django_microservices.dispatch.payloads import PayloadError
from django_microservices.wire.context import MessageContext
from django_microservices.wire.messages import UNSET, Message
from django_microservices.wire.patterns import Pattern

CLIENTS = {"STOCK": object()}
resolve_client = CLIENTS.__getitem__


class Order(msgspec.Struct):
    """A typed payload."""

    id: int


class Search(forms.Form):
    """A payload whose reading may ask the database."""

    text = forms.CharField()


class Unknown:
    """A class that says nothing of its fields."""


class Tenant:
    """What a factory makes."""

    def __init__(self, context: MessageContext[Any]) -> None:
        self.name = context.headers["tenant"]


async def aget_tenant(context: MessageContext[Any]) -> Tenant:
    """Make a tenant on the loop."""
    return Tenant(context)


@pytest.fixture
def context() -> MessageContext[Any]:
    """A message of some tenant."""
    return MessageContext(Message(Pattern.of("p"), b"1", headers={"tenant": "acme"}))


def bound(function: Any, data: Any = b"1", context: Any = None, **options: Any) -> Any:
    """Return what a handler would be called with."""
    return plan(function, resolve_client=resolve_client, **options).bind(data, context)


def refusal(function: Any) -> str:
    """Return why a handler cannot be planned."""
    with pytest.raises(ImproperlyConfigured) as caught:
        plan(function, resolve_client=resolve_client)
    return str(caught.value)


# --- payload and context ------------------------------------------------------------


def test_the_payload_gets_the_type_of_its_annotation() -> None:
    """Decoded from what stands in the message."""

    def handler(data: Order) -> None: ...

    assert bound(handler, b'{"id":1}') == ((Order(1),), {})


def test_a_payload_without_annotation_is_plain_python() -> None:
    """And ``UNSET`` where none came."""

    def handler(data) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001

    assert bound(handler, b'{"id":1}') == (({"id": 1},), {})
    assert bound(handler, UNSET) == ((UNSET,), {})


def test_a_payload_without_annotation_may_have_a_type() -> None:
    """The one that a contract says; an annotation of the function's own counts."""

    def untyped(data, context: MessageContext[Any]) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001
    def typed(data: Any) -> None: ...

    assert bound(untyped, b'{"id":1}', payload=Order) == ((Order(1), None), {})
    assert bound(typed, b'{"id":1}', payload=Order) == (({"id": 1},), {})


def test_a_payload_that_does_not_fit_is_an_error() -> None:
    """The caller's, with its path."""

    def handler(data: Order) -> None: ...

    with pytest.raises(PayloadError, match=r"id: Expected `int`, got `str`"):
        bound(handler, b'{"id":"1"}')


def test_the_context_is_found_by_its_annotation(context: Any) -> None:
    """On either side of the payload."""

    def after(data: int, context: MessageContext[Any]) -> None: ...
    def before(context: MessageContext[Any], data: int) -> None: ...
    def alone(context: MessageContext[Any]) -> None: ...

    assert bound(after, b"1", context) == ((1, context), {})
    assert bound(before, b"1", context) == ((context, 1), {})
    assert bound(alone, b"1", context) == ((context,), {})


def test_a_handler_without_parameters_ignores_the_payload() -> None:
    """Whatever it is."""

    def handler() -> None: ...

    assert bound(handler, b"{broken") == ((), {})


def test_self_is_not_the_payload() -> None:
    """A Controller's method is read before it is bound."""

    class Orders:
        def create(self, data: int) -> None: ...

    assert bound(Orders.create, b"1", skip_self=True) == ((1,), {})


# --- members ------------------------------------------------------------------------


def test_members_are_picked_by_key() -> None:
    """In the order of the parameters, by name where they are keyword-only."""

    def handler(
        b: Annotated[str, Payload("b")], *, a: Annotated[int, Payload("a")] = 7
    ) -> None: ...

    assert bound(handler, b'{"a":1,"b":"x"}') == (("x",), {"a": 1})
    assert bound(handler, b'{"b":"x"}') == (("x",), {"a": 7})


def test_members_and_the_whole_may_be_asked_for(context: Any) -> None:
    """Beside the context."""

    def handler(
        data: Any, context: MessageContext[Any], b: Annotated[int, Payload("b")]
    ) -> None: ...

    assert bound(handler, b'{"b":2}', context) == (({"b": 2}, context, 2), {})


def test_members_are_validated_together() -> None:
    """All errors are told at once."""

    def handler(
        a: Annotated[int, Payload("a")], b: Annotated[int, Payload("b")]
    ) -> None: ...

    with pytest.raises(PayloadError, match=r"a: Expected .*; b: `b` is missing"):
        bound(handler, b'{"a":"x"}')


# --- injection ----------------------------------------------------------------------


def test_a_client_is_injected_by_name(context: Any) -> None:
    """Looked up once, when the handler is registered."""

    def handler(data: int, stock: Annotated[Any, Inject("STOCK")]) -> None: ...

    assert bound(handler, b"1", context) == ((1, CLIENTS["STOCK"]), {})


def test_a_factory_is_called_once_per_message(context: Any) -> None:
    """Everything that asks for it gets the same object."""

    def handler(
        a: Annotated[Tenant, Inject(Tenant)], *, b: Annotated[Tenant, Inject(Tenant)]
    ) -> None: ...

    (a,), kwargs = bound(handler, b"1", context)
    assert a.name == "acme"
    assert kwargs == {"b": a}
    assert bound(handler, b"1", context)[0] == (a,)


async def test_an_async_factory_is_awaited(context: Any) -> None:
    """By the binding for the loop."""

    def handler(data: int, tenant: Annotated[Tenant, Inject(aget_tenant)]) -> None: ...

    made = plan(handler, resolve_client=resolve_client)
    assert made.is_async
    (data, tenant), _ = await made.abind(b"1", context)
    assert (data, tenant.name) == (1, "acme")
    with pytest.raises(RuntimeError, match="abind"):
        made.bind(b"1", context)


# --- pipes --------------------------------------------------------------------------


def test_pipes_get_values_and_their_parameters(context: Any) -> None:
    """One after the other, of what comes from the payload only."""
    seen = []

    def note(value: Any, parameter: Parameter) -> Any:
        seen.append(parameter)
        return value + 1

    def handler(
        data: dict[str, int],
        key: Annotated[int, Payload("a")],
        context: MessageContext[Any],
        stock: Annotated[Any, Inject("STOCK")],
    ) -> None: ...

    def total(value: Any, parameter: Parameter) -> Any:
        return sum(value.values()) if parameter.kind == "payload" else value

    args, _ = bound(handler, b'{"a":1,"b":2}', context, pipes=[total, note])
    assert args == (4, 2, context, CLIENTS["STOCK"])
    assert seen == [
        Parameter("data", dict[str, int], "payload"),
        Parameter("key", int, "key", "a"),
    ]


async def test_an_async_pipe_is_awaited(context: Any) -> None:
    """By the binding for the loop."""

    async def pipe(value: Any, parameter: Parameter) -> Any:
        return value * 2

    def handler(data: int) -> None: ...

    made = plan(handler, resolve_client=resolve_client, pipes=[pipe])
    assert made.is_async
    assert await made.abind(b"2", context) == ((4,), {})


# --- what a plan tells --------------------------------------------------------------


def test_a_plan_tells_its_parameters() -> None:
    """Those that come from the payload."""

    def handler(data: int, context: MessageContext[Any]) -> None: ...

    made = plan(handler, resolve_client=resolve_client)
    assert made.parameters == (Parameter("data", int, "payload"),)
    assert not made.is_async


def test_a_plan_tells_whether_it_may_block() -> None:
    """Forms, sync factories and sync pipes may use the database."""

    def typed(data: int, a: Annotated[Any, Inject("STOCK")]) -> None: ...
    def form(data: Search) -> None: ...
    def member(a: Annotated[Search, Payload("a")]) -> None: ...
    def factory(a: Annotated[Any, Inject(Tenant)]) -> None: ...

    plans = [plan(f, resolve_client=resolve_client) for f in (typed, form, member)]
    assert [made.may_block for made in plans] == [False, True, True]
    assert plan(factory, resolve_client=resolve_client).may_block
    assert plan(typed, resolve_client=resolve_client, pipes=[max]).may_block


# --- refusals -----------------------------------------------------------------------


def test_a_second_payload_is_refused() -> None:
    """With the names and the cure."""

    def handler(data: int, ctx) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001

    text = refusal(handler)
    assert "handler: parameter 'ctx' would be a second payload beside 'data'" in text
    assert "MessageContext" in text


def test_only_variadic_parameters_are_refused() -> None:
    """No message would reach them; beside others, or without any, it is no mistake."""

    def keywords(**members: Any) -> None: ...
    def places(*parts: Any) -> None: ...
    def both(data: int, *args: Any, **kwargs: Any) -> None: ...
    def none() -> None: ...

    assert "keywords: nothing fills *args and **kwargs: annotate a payload" in refusal(
        keywords
    )
    assert "places: nothing fills" in refusal(places)
    assert bound(both) == ((1,), {})
    assert bound(none) == ((), {})


def test_self_alone_takes_no_message() -> None:
    """Written, or among what is variadic."""

    def written(self: Any, **members: Any) -> None: ...
    def hidden(*args: Any) -> None: ...

    for handler in (written, hidden):
        with pytest.raises(ImproperlyConfigured, match="nothing fills"):
            plan(handler, resolve_client=resolve_client, skip_self=True)


def test_a_decorated_handler_has_the_parameters_inside() -> None:
    """As ``functools.wraps`` tells them."""

    def handler(data: int) -> None: ...

    @functools.wraps(handler)
    def wrapper(*args: Any, **kwargs: Any) -> None: ...

    assert bound(wrapper) == ((1,), {})


def test_a_keyword_only_parameter_needs_a_source() -> None:
    """Or a default, and is then left alone."""

    def handler(data: int, *, limit: int) -> None: ...
    def with_default(data: int, *, limit: int = 5) -> None: ...

    assert "nothing fills the keyword-only parameter 'limit'" in refusal(handler)
    assert bound(with_default) == ((1,), {})


def test_a_member_is_read_once() -> None:
    """Two parameters for the same key are a mistake."""

    def handler(
        a: Annotated[int, Payload("a")], b: Annotated[str, Payload("a")]
    ) -> None: ...

    assert "parameter 'b' takes the member 'a'" in refusal(handler)


def test_a_type_that_nothing_reads_is_refused() -> None:
    """Of a payload and of a member, with the parameter's name."""

    def whole(data: list[Unknown]) -> None: ...
    def member(a: Annotated[Unknown, Payload("a")]) -> None: ...

    assert "parameter 'data': list[" in refusal(whole)
    assert "parameter 'a': " in refusal(member)
    assert "Unknown cannot be read from JSON" in refusal(member)
