"""The options of a handler's decorator."""

import datetime
from typing import Any, Literal, TypeVar

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_microservices.dispatch.decorators import Mark
from django_microservices.dispatch.marks import Options

from .test_payloads_pydantic import Order as Model


def options(kind: str = "request", **given: Any) -> Options:
    """Read the options of a handler ``app.f``."""
    return Options.of(Mark(kind, ("a",), given), "app.f")


def refusal(kind: str = "request", **given: Any) -> str:
    """Return why options are refused."""
    with pytest.raises(ImproperlyConfigured) as caught:
        options(kind, **given)
    return str(caught.value)


def test_nothing_is_required() -> None:
    """A pattern alone is enough."""
    assert options() == Options(None, False, None, None, False, None, {})


def test_all_options() -> None:
    """What is given is what is read."""
    read = options(
        servers="a",
        atomic=True,
        using="default",
        timeout=2,
        uses_database=True,
        response=int,
        qos=1,
        queue="q",
    )
    of_the_wire = {"qos": 1, "queue": "q"}
    assert read == Options(("a",), True, "default", 2.0, True, int, of_the_wire)


@pytest.mark.parametrize("given", [["a", "b"], ("a", "b"), iter(["a", "b"])])
def test_several_servers(given: Any) -> None:
    """A handler may be bound to several servers."""
    assert options(servers=given).servers == ("a", "b")


def test_timeout_is_a_timedelta() -> None:
    """A duration is as good as its seconds."""
    assert options(timeout=datetime.timedelta(minutes=1)).timeout == 60


@pytest.mark.parametrize(
    "response", [int, list[int], int | None, Literal["a"], Any, TypeVar("T"), Model]
)
def test_response_is_any_type(response: Any) -> None:
    """Whatever a return annotation may be, and what an adapter claims."""
    assert options(response=response).response is response


@pytest.mark.parametrize(
    "name", ["servers", "using", "timeout", "response", "queue", "qos"]
)
def test_none_is_the_default(name: str) -> None:
    """None says nothing."""
    nothing: dict[str, Any] = {name: None}
    assert options(**nothing) == options()


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"servers": ()}, "servers=() is not the name of a server, or several."),
        ({"servers": 1}, "servers=1 is not the name of a server, or several."),
        ({"servers": [1]}, "servers=[1] is not the name of a server, or several."),
        ({"atomic": "yes"}, "atomic='yes' is not True or False."),
        ({"uses_database": 1}, "uses_database=1 is not True or False."),
        ({"using": "b", "atomic": True}, "using='b' is not an alias in DATABASES."),
        ({"response": 5}, "response=5 is not a type, or a serializer."),
        ({"response": "Out"}, "response='Out' is not a type, or a serializer."),
        (
            {"response": [int]},
            "response=[<class 'int'>] is not a type, or a serializer.",
        ),
        ({"queue": 5}, "queue=5 is not a text."),
        ({"qos": "1"}, "qos='1' is not a whole number."),
        ({"qos": True}, "qos=True is not a whole number."),
        ({"qos": -1}, "qos=-1 is not a whole number."),
        ({"timeout": 0}, "timeout=0 is not a number of seconds above 0."),
        ({"timeout": True}, "timeout=True is not a number of seconds above 0."),
        ({"timeout": float("inf")}, "timeout=inf is not a number of seconds above 0."),
        ({"timeout": "5"}, "timeout='5' is not a number of seconds above 0."),
        (
            {"timeout": datetime.timedelta(0)},
            "timeout=datetime.timedelta(0) is not a number of seconds above 0.",
        ),
    ],
)
def test_wrong_value(given: dict[str, Any], what: str) -> None:
    """A value that means nothing names the handler and the option."""
    assert refusal(**given) == f"app.f: message_pattern(): {what}"


def test_using_without_atomic() -> None:
    """The database of a transaction that there is not is a mistake."""
    text = "app.f: event_pattern(): using='default' is for atomic=True."
    assert refusal("event", using="default") == text


def test_misspelt_option() -> None:
    """An option that nearly is one is guessed."""
    text = "app.f: message_pattern() has no option 'atmoic'; did you mean 'atomic'?"
    assert refusal(atmoic=True) == text


def test_unknown_option() -> None:
    """For another option all are named."""
    assert refusal(x=1) == (
        "app.f: message_pattern() has no option 'x'; there is atomic, qos, queue, "
        "response, servers, timeout, uses_database, using."
    )


def test_event_has_no_response() -> None:
    """Nobody reads an event's answer, so nothing shapes it."""
    assert "event_pattern() has no option 'response'; there is" in refusal(
        "event", response=int
    )
