"""Checks of handlers and their patterns."""

import sys
from types import ModuleType
from typing import Any

import pytest

from django_microservices.transports import MemoryTransport
from django_microservices.wire.patterns import AMQP

from .running import Write, found, ids, one, served


class WildTransport(MemoryTransport):
    """A wire with wildcards."""

    grammar = AMQP


def test_duplicates(handlers: Write) -> None:
    """Two handlers for one request are told with both names."""
    name = handlers(
        "@message_pattern({'a': 1, 'b': 2})\ndef one(data): ...\n"
        "@message_pattern('x', {'b': 2, 'a': 1})\ndef two(data): ...\n"
    )
    message = one(found(SERVERS=served(name)), "E003")
    both = f"{name}.one and {name}.two"
    pattern = '{"a":1,"b":2}'
    text = f"Server 'default': the request {pattern!r} is answered by both {both}."
    assert message.msg == text


def test_duplicates_on_two_servers(handlers: Write) -> None:
    """Handlers for one request may be parted by ``servers=``."""
    name = handlers(
        "@message_pattern('a', servers='default')\ndef one(data): ...\n"
        "@message_pattern('a', servers='other')\ndef two(data): ...\n"
    )
    other = {"HANDLERS": [name], "OPTIONS": {"port": 3001}}
    assert ids(found(SERVERS={**served(name), "other": other})) == []


def test_several_handlers_of_an_event(handlers: Write) -> None:
    """Any number of handlers may listen to one event."""
    name = handlers(
        "@event_pattern('a')\ndef one(data): ...\n"
        "@event_pattern('a')\ndef two(data): ...\n"
    )
    assert ids(found(SERVERS=served(name))) == []


def test_duplicates_by_inheritance(handlers: Write) -> None:
    """Two Controllers that inherit a handler are told apart."""
    name = handlers(
        "class Base(Controller):\n"
        "    @message_pattern('a')\n"
        "    def a(self, data): ...\n"
        "class Other(Base): ...\n"
    )
    message = one(found(SERVERS=served(name)), "E003")
    assert message.msg.endswith(f"{name}.Base.a and {name}.Base.a ({name}.Other).")


ASKING = """
from typing import Annotated
from django_microservices import Client, Inject
class C(Controller):
    @message_pattern('a')
    def a(self, data, stock: Annotated[Client, Inject('STOK')]): ...
    @message_pattern('b')
    def b(self, data, one: Annotated[int, Inject(int)]): ...
"""


def test_unknown_client(handlers: Write) -> None:
    """A handler that asks for a client that is not, is told, with what was meant."""
    name = handlers(ASKING)
    clients: dict[str, Any] = {"STOCK": {"OPTIONS": {"prot": 1}}}
    message = one(found(SERVERS=served(name), CLIENTS=clients), "E009")
    asked = f"{name}.C.a: parameter 'stock': Inject('STOK')"
    assert message.msg == f"{asked}: unknown; did you mean 'STOCK'?"


def test_known_client(handlers: Write) -> None:
    """One that settings have may be asked for, though its options be wrong."""
    clients: dict[str, Any] = {"STOK": {"OPTIONS": {"prot": 1}}}
    messages = found(SERVERS=served(handlers(ASKING)), CLIENTS=clients)
    assert ids(messages) == ["E001"]


def test_unknown_server(handlers: Write) -> None:
    """A handler that is bound to a server that is not, is told."""
    name = handlers("@message_pattern('a', servers='defualt')\ndef a(data): ...")
    message = one(found(SERVERS=served(name)), "E004")
    text = f"{name}.a: servers='defualt': unknown; did you mean 'default'?"
    assert message.msg == text


def test_reserved_pattern(handlers: Write) -> None:
    """A pattern of our own extension cannot be a handler's."""
    name = handlers("@message_pattern('dm-cancel')\ndef a(data): ...")
    message = one(found(SERVERS=served(name)), "E005")
    assert message.msg.startswith(f"{name}.a: 'dm-cancel' begins with 'dm-'")


@pytest.mark.parametrize("annotation", ["User", "QuerySet[User]"])
def test_unencodable_answer(handlers: Write, annotation: str) -> None:
    """A handler that says that it returns a model is told what to do."""
    name = handlers(f"@message_pattern('a')\ndef a(data: int) -> {annotation}: ...")
    message = one(found(SERVERS=served(name)), "E006")
    assert message.msg.startswith(f"{name}.a: ")


ANSWERS = """
from dataclasses import dataclass
from decimal import Decimal
from django import forms
from django_microservices.dispatch.payloads import encode, register
class Plain: ...
class Money: ...
class MoneyAdapter:
    may_block = False
    claims = staticmethod(lambda annotation: annotation is Money)
    encoder_for = staticmethod(lambda annotation: encode)
register(MoneyAdapter(), when=__name__)
class Form(forms.Form): ...
"""


@pytest.mark.parametrize("answer", ["Plain", "list[Plain]", "Plain | None"])
@pytest.mark.parametrize("given", ["", ", response={answer}"])
def test_answer_of_a_plain_class(handlers: Write, answer: str, given: str) -> None:
    """It says nothing of its fields, so no answer of it can travel."""
    annotation = "" if given else f" -> {answer}"
    name = handlers(
        f"{ANSWERS}@message_pattern('a'{given.format(answer=answer)})\n"
        f"def a(data: int){annotation}: ..."
    )
    message = one(found(SERVERS=served(name)), "E006")
    assert message.msg.startswith(f"{name}.a: {name}.Plain cannot travel as JSON")


def test_answer_that_an_adapter_writes(handlers: Write) -> None:
    """It knows the class."""
    name = handlers(f"{ANSWERS}@message_pattern('a')\ndef a(data) -> Money: ...")
    assert ids(found(SERVERS=served(name))) == []


def test_answer_that_its_adapter_refuses(handlers: Write) -> None:
    """A form shapes no answer, which is no accident of the checks."""
    name = handlers(f"{ANSWERS}@message_pattern('a')\ndef a(data) -> Form: ...")
    message = one(found(SERVERS=served(name)), "E002")
    assert message.msg.startswith(f"{name}.a: the answer: Form is a form")


def test_payload_of_a_form_without_a_model(handlers: Write) -> None:
    """Found here, and not by the first message."""
    name = handlers(
        "from django.forms import ModelForm\n"
        "class Form(ModelForm): ...\n"
        "@message_pattern('a')\ndef a(data: Form): ...\n"
    )
    message = one(found(SERVERS=served(name)), "E002")
    assert message.msg == (
        f"{name}.a: parameter 'data': {name}.Form cannot be a payload: a ModelForm "
        "needs a Meta that names its model."
    )


@pytest.mark.parametrize("pattern", ["1.0", '{"b":1,"a":2}', "true", '"x"'])
def test_unreachable_pattern(handlers: Write, pattern: str) -> None:
    """A text that is JSON and not in its canonical form is never looked up."""
    name = handlers(f"@message_pattern({pattern!r})\ndef a(data): ...")
    message = one(found(SERVERS=served(name)), "E007")
    assert message.msg.startswith(f"{name}.a: The pattern {pattern!r} is read as")


def test_reachable_patterns(handlers: Write) -> None:
    """Objects, numbers and plain texts are reachable."""
    name = handlers("@message_pattern('a', '007', 1.5, {'b': 1})\ndef a(data): ...")
    assert ids(found(SERVERS=served(name))) == []


def test_overlap(handlers: Write) -> None:
    """Two wildcards that match the same names are told."""
    name = handlers(
        "@message_pattern('order.*')\ndef one(data): ...\n"
        "@message_pattern('*.created')\ndef two(data): ...\n"
    )
    message = one(found(SERVERS=served(name, TRANSPORT=WildTransport)), "W001")
    text = "Server 'default': the requests '*.created' and 'order.*' overlap."
    assert message.msg == text


def test_no_overlap(handlers: Write) -> None:
    """Wildcards that match different names are fine, and so are exact patterns."""
    name = handlers(
        "@message_pattern('order.*')\ndef one(data): ...\n"
        "@message_pattern('user.*')\ndef two(data): ...\n"
        "@message_pattern('user.created')\ndef three(data): ...\n"
    )
    assert ids(found(SERVERS=served(name, TRANSPORT=WildTransport))) == []


def test_text_is_no_wildcard(handlers: Write) -> None:
    """On a wire without wildcards a star is a star."""
    name = handlers(
        "@message_pattern('order.*')\ndef one(data): ...\n"
        "@message_pattern('*.created')\ndef two(data): ...\n"
    )
    assert ids(found(SERVERS=served(name))) == []


@pytest.fixture
def stray(handlers: Write) -> ModuleType:
    """Import a module with a handler that no server names."""
    name = handlers("@message_pattern('a')\ndef stray(data): ...")
    __import__(name)
    return sys.modules[name]


def test_stray(stray: ModuleType) -> None:
    """A marked function that no server finds is told."""
    messages = found()
    (text,) = (m.msg for m in messages if stray.__name__ in m.msg)
    assert text.startswith(f"{stray.__name__}.stray is marked as a handler")


def test_stray_that_is_served(stray: ModuleType) -> None:
    """A module that a server names may be called as it likes."""
    assert stray.__name__ not in str(found(SERVERS=served(stray.__name__)))


WITHOUT_WRAPS = """
def logged(function):
    def call(*args): return function(*args)
    return call
@logged
@message_pattern('a')
def stray(data): ...
"""
NO_CONTROLLER = """
class Orders:
    @message_pattern('a')
    def stray(self, data): ...
"""


@pytest.mark.parametrize("text", [WITHOUT_WRAPS, NO_CONTROLLER])
def test_stray_in_a_module_that_is_served(handlers: Write, text: str) -> None:
    """A marked function that discovery cannot see is told, though it stands there."""
    name = handlers(text)
    (message,) = (m for m in found(SERVERS=served(name)) if name in m.msg)
    assert "stray is marked as a handler, but is neither" in message.msg


def test_no_stray_under_a_decorator_that_wraps(handlers: Write) -> None:
    """With ``functools.wraps`` the mark is seen, and the wrapper is what runs."""
    name = handlers(
        "import functools\n"
        "def logged(function):\n"
        "    return functools.wraps(function)(lambda *args: function(*args))\n"
        "@logged\n@message_pattern('a')\ndef stray(data): ...\n"
    )
    assert name not in str(found(SERVERS=served(name)))


@pytest.mark.parametrize("kind", ["staticmethod", "classmethod"])
def test_handler_without_self(handlers: Write, kind: str) -> None:
    """A Controller's handler takes self, and is refused without."""
    name = handlers(
        f"class C(Controller):\n    @{kind}\n    @message_pattern('a')\n"
        "    def stray(self_or_class, data): ...\n"
    )
    message = one(found(SERVERS=served(name)), "E002")
    assert message.msg.startswith(f"{name}.C.stray: a Controller's handler takes self")
    assert f"@{kind}" in message.msg


@pytest.mark.parametrize(
    "parameters", ["", "data", "*, data", "data: int", "data: int, context: Any"]
)
def test_handler_that_forgot_self(handlers: Write, parameters: str) -> None:
    """What stands first gets the instance, so it can be no payload."""
    name = handlers(
        "class C(Controller):\n    @message_pattern('a')\n"
        f"    def stray({parameters}): ...\n"
    )
    message = one(found(SERVERS=served(name)), "E002")
    assert message.msg == (
        f"{name}.C.stray: a Controller's handler takes self: write it first, "
        "or make it a function of the module."
    )


@pytest.mark.parametrize("parameters", ["self: Any, data", "this, data", "self"])
def test_handler_with_self(handlers: Write, parameters: str) -> None:
    """It may be annotated, or have a name of its own."""
    name = handlers(
        "class C(Controller):\n    @message_pattern('a')\n"
        f"    def a({parameters}): ...\n"
    )
    assert ids(found(SERVERS=served(name))) == []


def test_stray_in_handlers() -> None:
    """A ``handlers.py`` that no server names was left out on purpose."""
    assert "tests.handlers_app" not in str(found(SERVERS=served()))


def test_strays_while_discovery_fails(stray: ModuleType) -> None:
    """While settings are wrong, nobody knows who is stray."""
    assert stray.__name__ not in str(found(SYNC_THREADS=0))


@pytest.mark.parametrize("parameters", ["**members", "*parts", "*parts, **members"])
def test_handler_that_gets_nothing(handlers: Write, parameters: str) -> None:
    """Its only parameters are those that nothing fills."""
    name = handlers(f"@message_pattern('a')\ndef a({parameters}): ...")
    message = one(found(SERVERS=served(name)), "E002")
    text = f"{name}.a: nothing fills *args and **kwargs: annotate a payload parameter"
    assert message.msg.startswith(text)
