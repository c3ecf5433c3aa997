"""The registry: which handlers there are, and which of them a pattern reaches."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.apps import AppConfig, apps

from django_microservices import Controller, event_pattern, message_pattern
from django_microservices.dispatch.registry import (
    Registry,
    discover,
    handler_modules,
    modules_named,
    modules_of,
)
from django_microservices.wire.patterns import Grammar

from .composing import handlers_of

APP = "registry_app"
IMPORTS = "from django_microservices import *\n"

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Return a function that writes a file of an app that may be imported."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(path: str, text: str = "") -> None:
        file = tmp_path / APP / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(IMPORTS + text)

    write("__init__.py", "")
    yield write
    for name in [name for name in sys.modules if name.split(".")[0] == APP]:
        del sys.modules[name]


def app() -> AppConfig:
    """Return the app that was written."""
    return AppConfig.create(APP)


def found(modules: Any) -> list[str]:
    """Return the names and patterns of what is found, without the app's name."""
    return [
        f"{h.name.removeprefix(f'{APP}.')} {' '.join(p.route for p in h.patterns)}"
        for h in discover(modules, str.upper)
    ]


# --- modules ----------------------------------------------------------------------


def test_handlers_module(write: Write) -> None:
    """An app's ``handlers.py`` is looked at."""
    write("handlers.py", "@message_pattern('a')\ndef f(data): ...")
    assert found(handler_modules(app())) == ["handlers.f a"]


def test_handlers_package(write: Write) -> None:
    """A package ``handlers/`` is looked at with all its submodules."""
    write("handlers/__init__.py", "@message_pattern('a')\ndef f(data): ...")
    write("handlers/b.py", "@message_pattern('b')\ndef f(data): ...")
    write("handlers/deep/__init__.py", "")
    write("handlers/deep/c.py", "@message_pattern('c')\ndef f(data): ...")
    names = ["handlers.f a", "handlers.b.f b", "handlers.deep.c.f c"]
    assert found(handler_modules(app())) == names


def test_app_without_handlers(write: Write) -> None:
    """An app need not have any."""
    assert found(handler_modules(app())) == []


def test_app_without_a_module(write: Write) -> None:
    """Nor need it have a module, as Django's own type says."""
    bare = app()
    bare.module = None
    assert found(handler_modules(bare)) == []


def test_error_in_handlers_is_raised(write: Write) -> None:
    """A ``handlers.py`` that cannot be imported is not passed over."""
    write("handlers/__init__.py", "")
    write("handlers/broken.py", "import no_such_module_at_all")
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        found(handler_modules(app()))


def test_named_app(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of an installed app stands for its handlers."""
    write("handlers.py", "@message_pattern('a')\ndef f(data): ...")
    one = app()
    monkeypatch.setattr(apps, "get_app_configs", lambda: [one])
    assert found(modules_named(APP)) == ["handlers.f a"]


def test_named_module(write: Write) -> None:
    """Any other name is that of a module, with its submodules."""
    write("services/__init__.py", "@message_pattern('a')\ndef f(data): ...")
    write("services/b.py", "@message_pattern('b')\ndef f(data): ...")
    assert found(modules_named(f"{APP}.services")) == ["services.f a", "services.b.f b"]


def test_named_nothing() -> None:
    """A name that is neither is an import error, for settings to explain."""
    with pytest.raises(ModuleNotFoundError, match="no_such_app"):
        list(modules_named("no_such_app.handlers"))


# --- discovery --------------------------------------------------------------------


def test_imported_functions_are_not_found(write: Write) -> None:
    """Only what a module defines is found there, not what it imports."""
    write("elsewhere.py", "@message_pattern('a')\ndef f(data): ...")
    write("handlers.py", f"from {APP}.elsewhere import f\ng = f")
    assert found(handler_modules(app())) == []


def test_found_once(write: Write) -> None:
    """Two names of one function, or one module looked at twice, are one handler."""
    write("handlers.py", "@message_pattern('a')\ndef f(data): ...\ng = f")
    modules = [*modules_of(f"{APP}.handlers"), *modules_of(f"{APP}.handlers")]
    assert found(modules) == ["handlers.f a"]


def test_each_mark_is_a_handler(write: Write) -> None:
    """Stacked decorators are handlers with options of their own."""
    text = (
        "@message_pattern('a', 'b', timeout=1)\n@event_pattern('c')\ndef f(data): ..."
    )
    write("handlers.py", text)
    assert found(handler_modules(app())) == ["handlers.f a b", "handlers.f c"]


def test_unmarked_things_are_passed_over(write: Write) -> None:
    """Other functions, classes and values are no handlers."""
    write(
        "handlers.py",
        "def f(data): ...\n"
        "class C:\n"
        "    @message_pattern('a')\n"
        "    def g(self, data): ...\n"
        "C.instance = C()\n"
        "c = C()\n"
        "n = 3",
    )
    assert found(handler_modules(app())) == []


def test_controller(write: Write) -> None:
    """Of a Controller the marked methods are found."""
    write(
        "handlers.py",
        "class C(Controller):\n"
        "    @message_pattern('a')\n"
        "    def f(self, data): ...\n"
        "    def g(self, data): ...",
    )
    assert found(handler_modules(app())) == ["handlers.C.f a"]


def test_controller_inherits(write: Write) -> None:
    """A Controller has what it inherits, from wherever its base comes."""
    write(
        "base.py",
        "class Base(Controller):\n"
        "    @message_pattern('a')\n"
        "    def f(self, data): ...\n"
        "    @message_pattern('b')\n"
        "    def g(self, data): ...",
    )
    write(
        "handlers.py",
        f"from {APP}.base import Base\n"
        "class C(Base):\n"
        "    @message_pattern('c')\n"
        "    def g(self, data): ...",
    )
    handlers = list(discover(handler_modules(app()), str.upper))
    names = [(h.name.removeprefix(f"{APP}."), h.patterns[0].route) for h in handlers]
    assert names == [("base.Base.f", "a"), ("handlers.C.g", "c")]
    assert {h.module for h in handlers} == {f"{APP}.handlers"}


def test_overridden_without_a_mark(write: Write) -> None:
    """A method that is overridden without a decorator is no handler any more."""
    write(
        "base.py",
        "class B(Controller):\n    @message_pattern('a')\n    def f(s, d): ...",
    )
    text = f"from {APP}.base import B\nclass C(B):\n    def f(self, data): ..."
    write("handlers.py", text)
    assert found(handler_modules(app())) == []


def test_abstract_controller(write: Write) -> None:
    """An abstract Controller answers nothing itself; what derives from it does."""
    write(
        "handlers.py",
        "import abc\n"
        "class Base(Controller, abc.ABC):\n"
        "    @message_pattern('a')\n"
        "    def f(self, data): return self.g()\n"
        "    @abc.abstractmethod\n"
        "    def g(self): ...\n"
        "class C(Base):\n"
        "    def g(self): ...",
    )
    (handler,) = discover(handler_modules(app()), str.upper)
    assert handler.controller is not None
    assert handler.controller.__name__ == "C"


def test_module_that_grows_meanwhile(write: Write) -> None:
    """Reading annotations may import, and so add names to the module."""
    module = ModuleType("growing")

    class Importing:
        @property
        def __module__(self) -> str:  # type: ignore[override]
            setattr(module, f"name_{id(self)}", 1)
            return "growing"

    vars(module).update(a=Importing(), b=Importing())
    assert discover([module], str.upper) == []


# --- look-up ----------------------------------------------------------------------


class Dashes(Grammar, frozen=True, eq=False):
    """A made-up wire: ``a-`` matches what begins with ``a``, longer ones first."""

    def is_wildcard(self, pattern: str) -> bool:
        """Whether it ends with a dash."""
        return pattern.endswith("-")

    def matches(self, pattern: str, name: str) -> bool:
        """Whether the name begins so."""
        return name.startswith(pattern[:-1])

    def specificity(self, pattern: str) -> tuple[int, ...]:
        """Count the letters."""
        return (len(pattern),)


class Answers(Controller):
    """Handlers that are told apart by their names."""

    @message_pattern("order-")
    def prefix(self, data: Any) -> None:
        """Match a prefix."""

    @message_pattern("order.create")
    def exact(self, data: Any) -> None:
        """Match a name."""

    @message_pattern("order.c-")
    def longer(self, data: Any) -> None:
        """Match a longer prefix."""

    @message_pattern("order.c-", "order.create")
    def late(self, data: Any) -> None:
        """Match what others match that stand before it."""

    @event_pattern("done", "do-")
    def twice(self, data: Any) -> None:
        """Match with either pattern."""

    @event_pattern("don-")
    @event_pattern("done")
    def stacked(self, data: Any) -> None:
        """Match with either decorator."""

    @event_pattern("d-")
    def letter(self, data: Any) -> None:
        """Match a letter."""


ORDER = ("prefix", "exact", "longer", "late", "twice", "stacked", "letter")


@pytest.fixture
def registry() -> Registry:
    """Make a registry of these handlers."""
    functions = [getattr(Answers, name) for name in ORDER]
    handlers = [h for function in functions for h in handlers_of(function, Answers)]
    return Registry(handlers, Dashes())


def names(handlers: Any) -> list[str]:
    """Return the names of handlers."""
    return [handler.source.__name__ for handler in handlers]


@pytest.mark.parametrize(
    ("route", "name"),
    [
        ("order.create", "exact"),
        ("order.copy", "longer"),
        ("order.pay", "prefix"),
    ],
)
def test_request(registry: Registry, route: str, name: str) -> None:
    """A request goes to the exact match, the most specific, the first registered."""
    assert names(registry.request(route)) == [name]


def test_event(registry: Registry) -> None:
    """An event goes to every match, each handler once, exact ones first."""
    assert names(registry.event("done")) == ["twice", "stacked", "letter"]
    assert names(registry.event("dont")) == ["twice", "stacked", "letter"]
    assert names(registry.event("down")) == ["twice", "letter"]
    assert names(registry.event("day")) == ["letter"]


def test_request_to_an_event(registry: Registry) -> None:
    """As with Nest, a request to an event's pattern runs its handlers."""
    assert names(registry.request("day")) == ["letter"]


def test_event_to_a_request(registry: Registry) -> None:
    """As with Nest, an event to a request's pattern runs its handler."""
    assert names(registry.event("order.create")) == ["exact"]
    assert names(registry.event("order.pay")) == ["prefix"]


def test_nothing(registry: Registry) -> None:
    """A pattern that nobody has reaches nobody."""
    assert registry.request("x") == registry.event("x") == []


def test_exact_by_default() -> None:
    """A wire without wildcards takes every pattern as a name."""
    registry = Registry(handlers_of(Answers.prefix, Answers))
    assert registry.request("order.pay") == []
    assert names(registry.request("order-")) == ["prefix"]


def test_subscriptions(registry: Registry) -> None:
    """A server listens for every pattern of every handler."""
    listed = [(s.pattern.route, s.kind) for s in registry.subscriptions]
    assert len(listed) == 10
    assert listed[0] == ("order-", "request")
    assert listed[-1] == ("d-", "event")
