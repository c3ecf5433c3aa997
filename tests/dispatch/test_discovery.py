"""The handlers of a project, looked for once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_microservices.dispatch.discovery import Discovery

APP = "tests.handlers_app"
PATH = "MICROSERVICES['SERVERS']['a']['HANDLERS']"

Write = Callable[[str, str], None]


@pytest.fixture
def discovery() -> Discovery:
    """Look into apps and modules."""
    return Discovery(str.upper)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that writes a module."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)

    return write


def test_installed_apps(discovery: Discovery) -> None:
    """Without names it is every installed app."""
    names = {handler.name for handler in discovery.handlers("a", None, PATH)}
    assert f"{APP}.handlers.echo" in names
    assert f"{APP}.handlers.Greetings.greet" in names


def test_app_or_module(discovery: Discovery) -> None:
    """An app is named, or a module of handlers."""
    by_app = discovery.handlers("a", (APP,), PATH)
    by_module = discovery.handlers("a", (f"{APP}.handlers",), PATH)
    assert [h.name for h in by_app] == [h.name for h in by_module]


def test_once(discovery: Discovery) -> None:
    """Servers with the same names share what was found."""
    first, second = (discovery.handlers(name, (APP,), PATH) for name in "ab")
    assert first == second == discovery.all()


def test_anew(discovery: Discovery) -> None:
    """Settings that changed may name others."""
    before = discovery.handlers("a", (APP,), PATH)
    discovery.clear()
    assert discovery.all() == []
    assert discovery.handlers("a", (APP,), PATH) != before


def test_bound_to_servers(discovery: Discovery, write: Write) -> None:
    """A handler with ``servers=`` is offered by those only."""
    write(
        "handlers_of_one",
        "from django_microservices import message_pattern\n"
        "@message_pattern('a', servers='one')\n"
        "def a(data: int) -> int: return data\n",
    )
    (handler,) = discovery.handlers("one", ("handlers_of_one",), PATH)
    assert discovery.handlers("two", ("handlers_of_one",), PATH) == []
    assert discovery.all() == [handler]


@pytest.mark.parametrize("name", ["nowhere", f"{APP}.nowhere"])
def test_unknown(discovery: Discovery, name: str) -> None:
    """What is neither an app nor a module is refused."""
    with pytest.raises(ImproperlyConfigured) as caught:
        discovery.handlers("a", (name,), PATH)
    text = f"{PATH}: {name!r} is neither an installed app nor a module."
    assert str(caught.value) == text


def test_module_that_imports_what_is_not(discovery: Discovery, write: Write) -> None:
    """A module that is there and cannot be imported shows its own error."""
    write("handlers_that_break", "import nowhere_at_all")
    unusable: Any = ("handlers_that_break",)
    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        discovery.handlers("a", unusable, PATH)
