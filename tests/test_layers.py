"""The one rule of the layout: a room imports only the rooms above it.

Besides it: only Django's side reads settings, threads and loops meet in ``concurrency``
alone, and nothing is imported that makes objects from a peer's bytes.
"""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = "django_microservices"
ROOT = Path(__file__).resolve().parent.parent
FACE = "__init__"

# From the top down. Rooms on one line do not know each other.
ROOMS = (
    ("exceptions",),
    ("signals",),
    ("wire",),
    ("concurrency",),
    ("transports", "dispatch"),
    ("endpoints",),
    ("runtime",),
    ("schema",),
    ("options",),
    ("conf",),
    ("checks",),
    ("log",),
    ("gateway",),
    ("injection",),
    ("apps",),
    ("management",),
    (FACE,),
    ("contrib", "testing"),
)
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}

CROSSING_METHODS = {"call_soon_threadsafe", "run_in_executor"}
CROSSING_NAMES = {
    "asyncio": {"run_coroutine_threadsafe", "to_thread"},
    "asgiref.sync": {
        "AsyncToSync",
        "SyncToAsync",
        "ThreadSensitiveContext",
        "async_to_sync",
        "sync_to_async",
    },
    "concurrent.futures": {"Executor", "ProcessPoolExecutor", "ThreadPoolExecutor"},
    "queue": {"LifoQueue", "PriorityQueue", "Queue", "SimpleQueue"},
    "threading": {
        "Barrier",
        "BoundedSemaphore",
        "Condition",
        "Event",
        "Lock",
        "RLock",
        "Semaphore",
        "Thread",
        "Timer",
    },
    "_thread": {"allocate_lock", "start_new_thread"},
}
CROSSING = {f"{module}.{name}" for module, of in CROSSING_NAMES.items() for name in of}
LOADERS = {"cloudpickle", "dill", "marshal", "pickle", "_pickle", "shelve", "yaml"}
IMPORTERS = {"__import__", "import_module", "import_string"}


class Use(NamedTuple):
    """A dotted name that a line of the source uses; imported there, or spelled out."""

    name: str
    line: int


class Source:
    """One file of the package, or a made-up one."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.tree = ast.parse(text)
        parts = Path(path).with_suffix("").parts
        self.room = parts[1]
        self.parents = parts[:-1]
        if self.room == FACE:
            _leave_out_type_checking(self.tree)
        self.imports = list(self._imports())
        self.uses = [*self.imports, *self._attributes()]

    def _imports(self) -> Iterator[Use]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Use(alias.name, node.lineno)
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    yield Use(f"{self._module(node)}.{alias.name}", node.lineno)
            elif isinstance(node, ast.Call) and (name := _imported_by_name(node)):
                yield Use(name, node.lineno)

    def _module(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parents = self.parents[: len(self.parents) - node.level + 1]
        return ".".join([*parents, *filter(None, [node.module])])

    def _attributes(self) -> Iterator[Use]:
        local = dict(self._local_names())
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute):
                head, *rest = _chain(node)
                yield Use(".".join([local.get(head, "?"), *rest]), node.lineno)

    def _local_names(self) -> Iterator[tuple[str, str]]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    first = alias.name.partition(".")[0]
                    yield (alias.asname, alias.name) if alias.asname else (first, first)
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    name = f"{self._module(node)}.{alias.name}"
                    yield alias.asname or alias.name, name


def _chain(node: ast.expr) -> list[str]:
    """``a.b.c`` as its names; what is no name at the head becomes ``?``."""
    if isinstance(node, ast.Attribute):
        return [*_chain(node.value), node.attr]
    return [node.id if isinstance(node, ast.Name) else "?"]


def _imported_by_name(node: ast.Call) -> str | None:
    if _chain(node.func)[-1] not in IMPORTERS or not node.args:
        return None
    first = node.args[0]
    is_text = isinstance(first, ast.Constant) and isinstance(first.value, str)
    return ast.literal_eval(first) if is_text else None


def _leave_out_type_checking(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and _chain(node.test)[-1] == "TYPE_CHECKING":
            node.body = []


def _room_of(name: str) -> str | None:
    package, _, rest = f"{name}.".partition(".")
    if package != PACKAGE:
        return None
    room = rest.partition(".")[0]
    return room if room in LEVEL else FACE


def unknown_rooms(source: Source) -> Iterator[str]:
    """Say that a file stands in no room, so that nothing is known of its place."""
    if source.room not in LEVEL:
        yield f"{source.path}: {source.room} is no room: give it a place in ROOMS"


def wrong_imports(source: Source) -> Iterator[str]:
    """Say what a file imports from beside or below its room."""
    level = LEVEL.get(source.room, 0)
    for name, line in source.imports:
        room = _room_of(name)
        if room and room != source.room and LEVEL[room] >= level:
            yield f"{source.path}:{line}: {source.room} may not import {room} ({name})"


def settings_read(source: Source) -> Iterator[str]:
    """Say where a room above ``conf`` reads settings."""
    if LEVEL.get(source.room, 0) < LEVEL["conf"]:
        for name, line in source.uses:
            if f"{name}.".startswith("django.conf."):
                yield f"{source.path}:{line}: take settings as arguments, not {name}"


def crossings(source: Source) -> Iterator[str]:
    """Say where threads and loops meet outside ``concurrency``."""
    if source.room != "concurrency":
        for name, line in source.uses:
            if name in CROSSING or name.rpartition(".")[2] in CROSSING_METHODS:
                yield f"{source.path}:{line}: {name} belongs in concurrency/"


def loaders(source: Source) -> Iterator[str]:
    """Say where something is imported that makes objects from bytes."""
    for name, line in source.uses:
        if name.startswith(("pamqp.", "?.")):  # its frames have a method marshal()
            continue
        if LOADERS.intersection(name.split(".")):
            yield f"{source.path}:{line}: {name} must not be imported"


RULES = (unknown_rooms, wrong_imports, settings_read, crossings, loaders)
FILES = sorted(path.relative_to(ROOT) for path in ROOT.glob(f"{PACKAGE}/**/*.py"))


def test_files_are_found() -> None:
    """The rules are checked on the real package, not on an empty folder."""
    assert Path(PACKAGE, "exceptions.py") in FILES


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_holds(rule: Callable[[Source], Iterator[str]]) -> None:
    """No file of the package breaks the rule."""
    sources = (Source(str(path), (ROOT / path).read_text()) for path in FILES)
    assert [breach for source in sources for breach in rule(source)] == []


BREACHES = [
    (unknown_rooms, "attic.py", ""),
    (unknown_rooms, "attic/things.py", ""),
    (wrong_imports, "wire/a.py", "from ..dispatch import registry"),
    (wrong_imports, "wire/a.py", "from .. import dispatch"),
    (wrong_imports, "wire/__init__.py", "from ..endpoints.server import Server"),
    (wrong_imports, "wire/a.py", "from .. import Client"),
    (wrong_imports, "wire/a.py", "from django_microservices import Client"),
    (wrong_imports, "wire/a.py", "import django_microservices"),
    (wrong_imports, "signals.py", "import django_microservices.wire.messages as m"),
    (wrong_imports, "transports/a.py", "from ..dispatch.registry import Registry"),
    (wrong_imports, "dispatch/b/a.py", "from ...transports.base import Transport"),
    (wrong_imports, "conf.py", "def f():\n    from .apps import Config"),
    (wrong_imports, "conf.py", "if TYPE_CHECKING:\n    from .apps import Config"),
    (wrong_imports, "conf.py", "import_string('django_microservices.contrib.a.B')"),
    (wrong_imports, "__init__.py", "from .testing import mock_client"),
    (wrong_imports, "contrib/a.py", "from ..testing import mock_client"),
    (wrong_imports, "testing/a.py", "from ..contrib.outbox import emit"),
    (settings_read, "runtime/a.py", "from django.conf import settings"),
    (settings_read, "runtime/a.py", "from django import conf"),
    (settings_read, "runtime/a.py", "import django\ndjango.conf.settings.DEBUG"),
    (crossings, "endpoints/a.py", "loop.call_soon_threadsafe(f)"),
    (crossings, "endpoints/a.py", "get_loop().run_in_executor(None, f)"),
    (crossings, "endpoints/a.py", "import asyncio\nasyncio.to_thread(f)"),
    (crossings, "endpoints/a.py", "from asyncio import run_coroutine_threadsafe"),
    (crossings, "gateway.py", "from asgiref.sync import sync_to_async as s"),
    (crossings, "gateway.py", "import asgiref.sync\nasgiref.sync.async_to_sync(f)"),
    (crossings, "testing/a.py", "import threading as t\nt.Thread(target=f)"),
    (crossings, "log.py", "from threading import Lock"),
    (crossings, "log.py", "from concurrent import futures\nfutures.ThreadPoolExecutor"),
    (loaders, "wire/a.py", "import pickle"),
    (loaders, "concurrency/a.py", "from marshal import loads"),
    (loaders, "contrib/a.py", "from msgspec import yaml"),
    (loaders, "contrib/a.py", "import msgspec\nmsgspec.yaml.decode(b'')"),
]


@pytest.mark.parametrize(("rule", "path", "text"), BREACHES)
def test_breach_is_found(
    rule: Callable[[Source], Iterator[str]], path: str, text: str
) -> None:
    """Each rule finds what breaks it, in every way of writing it."""
    assert list(rule(Source(f"{PACKAGE}/{path}", text)))


ALLOWED = [
    ("wire/a.py", "from ..exceptions import MicroserviceError"),
    ("wire/a.py", "from .messages import Message\nfrom . import codecs"),
    ("wire/a.py", "import asyncio, json\nasyncio.Lock(); asyncio.Event()"),
    ("wire/a.py", "from django.db import models"),
    ("dispatch/a.py", "from asgiref.sync import iscoroutinefunction"),
    ("endpoints/a.py", "from ..transports import base\nfrom ..dispatch import a"),
    ("concurrency/a.py", "import threading\nthreading.Lock()"),
    ("conf.py", "from django.conf import settings"),
    ("contrib/a/b.py", "from django_microservices import Client\nfrom .c import D"),
    ("management/commands/a.py", "from ...runtime.microservice import Microservice"),
    ("__init__.py", "if TYPE_CHECKING:\n    from .contrib.outbox import emit"),
]


@pytest.mark.parametrize(("path", "text"), ALLOWED)
def test_allowed_is_left_alone(path: str, text: str) -> None:
    """What the rules allow is no breach."""
    source = Source(f"{PACKAGE}/{path}", text)
    assert [breach for rule in RULES for breach in rule(source)] == []
