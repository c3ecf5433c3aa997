"""Types: what mypy says of contracts on both ends, and of what has none.

In a case ``# R: X`` stands where mypy reveals the type X, and ``# E: X`` where it gives
an error that contains X: the line of the decorator. Any other error fails the case.
"""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

HEAD = """
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any
from django_microservices import (
    Client, Controller, Event, Inject, MessageContext, Request, clients,
    create_client, event_pattern, inject, message_pattern, use_guards,
)
from django_microservices.transports.tcp import TCPContext

SUM = Request({"cmd": "sum"}, list[int], int)
COUNT = Request("count", int, int)
FIND: Request[int, str | None] = Request("find", int, str | None)
PING: Request[None, str] = Request("ping", None, str)
NOTED = Event("noted", str)
Context = MessageContext[Any]
"""

CASES = {
    "a handler that keeps its contract": """
@message_pattern(SUM)
def plain(data: list[int]) -> int:
    return sum(data)

reveal_type(plain)  # R: def (list[int]) -> int

@message_pattern(SUM)
async def coroutine(data: list[int]) -> int:
    return sum(data)

reveal_type(coroutine)  # R: def (list[int]) -> typing.Coroutine[Any, Any, int]

@message_pattern(COUNT)
def generator(data: int) -> Iterator[int]:
    yield from range(data)

reveal_type(generator)  # R: def (int) -> typing.Iterator[int]

@message_pattern(COUNT)
async def async_generator(data: int) -> AsyncIterator[int]:
    yield data

reveal_type(async_generator)  # R: def (int) -> typing.AsyncIterator[int]

@message_pattern(FIND)
def union(data: int) -> str | None:
    return None

@message_pattern(PING)
def nothing(data: None) -> str:
    return ""
""",
    "a handler that takes more": """
@message_pattern(SUM, atomic=True)
def more(data: list[int], context: Context, *, name: str = "") -> int:
    return sum(data)

@message_pattern(SUM)
def wider(data: list[int] | list[str]) -> bool:
    return bool(data)
""",
    "a payload of another type": """
@message_pattern(SUM)  # E: expected "Callable[[list[int]], int]"
def plain(data: list[str]) -> int:
    return len(data)

@message_pattern(SUM)  # E: has incompatible type "Callable[[str],
async def coroutine(data: str) -> int:
    return len(data)

@message_pattern(COUNT)  # E: expected "Callable[[int], int]"
def generator(data: str) -> Iterator[int]:
    yield len(data)
""",
    "an answer of another type": """
@message_pattern(SUM)  # E: expected "Callable[[list[int]], int]"
def plain(data: list[int]) -> str:
    return ""

@message_pattern(SUM)  # E: Coroutine[Any, Any, str]]"; expected
async def coroutine(data: list[int]) -> str:
    return ""

@message_pattern(COUNT)  # E: Iterator[str]]"; expected
def generator(data: int) -> Iterator[str]:
    yield ""

@message_pattern(COUNT)  # E: AsyncIterator[str]]";
async def async_generator(data: int) -> AsyncIterator[str]:
    yield ""

@message_pattern(FIND)  # E: expected "Callable[[int], str | None]"
def union(data: int) -> int:
    return data
""",
    "methods of a Controller": """
class Math(Controller):
    @message_pattern(SUM)
    def plain(self, data: list[int]) -> int:
        return sum(data)

    @message_pattern(SUM)
    async def coroutine(self, data: list[int], context: Context) -> int:
        return sum(data)

    @message_pattern(COUNT)
    def generator(self, data: int) -> Iterator[int]:
        yield data

    @message_pattern(COUNT)
    async def async_generator(self, data: int) -> AsyncIterator[int]:
        yield data

    @event_pattern(NOTED)
    def noted(self, data: str) -> None: ...

reveal_type(Math().plain)  # R: def (list[int]) -> int
reveal_type(Math().noted)  # R: def (str)
""",
    "methods that do not keep it": """
class Math(Controller):
    @message_pattern(SUM)  # E: has incompatible type "Callable[[Math, str]
    def payload(self, data: str) -> int:  # E: "self" parameter missing
        return 1

    @message_pattern(SUM)  # E: "Callable[[Math, list[int]], str]"
    def answer(self, data: list[int]) -> str:  # E: "self" parameter missing
        return ""

    @event_pattern(NOTED)  # E: "Callable[[Math, int], None]"
    def noted(self, data: int) -> None: ...  # E: "self" parameter missing
""",
    "a context of any wire": """
@message_pattern("x")
def bare(data: int, context: MessageContext) -> str:
    reveal_type(context)  # R: django_microservices.wire.context.MessageContext[Any]
    return context.pattern

@use_guards(lambda context: True)
@message_pattern("x")
def typed(data: int, context: TCPContext) -> None:
    reveal_type(context.wire)  # R: django_microservices.transports.tcp.context.TCPWire
""",
    "functions whose parameters are filled": """
@inject
def view(path: str, stock: Annotated[Client, Inject("STOCK")]) -> int:
    return len(path)

reveal_type(view("x"))  # R: int

@inject
async def aview(path: str, *, stock: Annotated[Client, Inject("STOCK")]) -> int:
    return len(path)

reveal_type(aview("x"))  # R: typing.Coroutine[Any, Any, int]

@inject
class Stock:
    def __init__(self, stock: Annotated[Client, Inject("STOCK")]) -> None: ...

    @inject
    def find(self, sku: str, stock: Annotated[Client, Inject("STOCK")]) -> str:
        return sku

reveal_type(Stock)  # R: def (stock: django_microservices
""",
    "events": """
@event_pattern(NOTED)
def plain(data: str) -> None: ...

@event_pattern(NOTED)
async def coroutine(data: str, context: Context) -> None: ...

@event_pattern(NOTED)  # E: expected "Callable[[str], None]"
def wrong(data: int) -> None: ...
""",
    "patterns without a contract": """
@message_pattern("x", {"cmd": "y"}, servers="default")
def plain(a: int, *, b: str = "") -> bytes:
    return b""

reveal_type(plain)  # R: def (a: int, *, b: str =) -> bytes

@event_pattern("x")
async def event(data: dict[str, Any]) -> None: ...

reveal_type(event)  # R: def (data: dict[str, Any]) -> typing.Coroutine[Any, Any, None]

@use_guards(bool)
@message_pattern("x")
@event_pattern("y")
def stacked(a: int) -> bytes:
    return b""

reveal_type(stacked)  # R: def (a: int) -> bytes
""",
    "clients by name": """
math = clients["MATH"]
reveal_type(math)  # R: django_microservices.endpoints.client.Client
reveal_type(create_client())  # R: django_microservices.endpoints.client.Client
""",
    "calls with a contract": """
def call(client: Client) -> None:
    reveal_type(client.send(SUM, [1, 2], timeout=2))  # R: int
    reveal_type(client.send(FIND, 1))  # R: str | None
    reveal_type(client.send(PING, None))  # R: str
    reveal_type(client.stream(COUNT, 1))  # R: typing.Iterator[int]
    client.emit(NOTED, "x", on_commit=True)
    client.emit(SUM, [1])

async def acall(client: Client) -> None:
    reveal_type(await client.asend(SUM, [1, 2]))  # R: int
    reveal_type(client.astream(COUNT, 1))  # R: typing.AsyncGenerator[int, None]
    await client.aemit(NOTED, "x")
""",
    "calls with the wrong data": """
def call(client: Client) -> None:
    client.send(SUM, ["1"])  # E: "In" of "send"
    client.send(SUM)  # E: No overload variant of "send"
    client.stream(COUNT, "1")  # E: "In" of "stream"
    client.emit(NOTED, 1)  # E: "In" of "emit"

async def acall(client: Client) -> None:
    await client.asend(SUM, "1")  # E: "In" of "asend"
    client.astream(COUNT, "1")  # E: "In" of "astream"
    await client.aemit(NOTED, 1)  # E: "In" of "aemit"
""",
    "calls without a contract": """
def call(client: Client) -> None:
    reveal_type(client.send("x", 1))  # R: Any
    reveal_type(client.send({"cmd": "x"}, 1, returns=list[str]))  # R: list[str]
    reveal_type(client.stream(("a", 1), returns=str))  # R: typing.Iterator[str]
    client.emit("x", object())
    client.send(object(), 1)  # E: No overload variant of "send"

async def acall(client: Client) -> None:
    reveal_type(await client.asend("x", 1, returns=str))  # R: str
    reveal_type(await client.asend("x"))  # R: Any
""",
}

_EXPECTED = re.compile(r"# (?P<kind>[RE]): (?P<text>.*)$")
_TOLD_AS = {"R": 'Revealed type is "{}"', "E": "{}"}
_TOLD = re.compile(r"^case_(\d+)\.py:(\d+): (error|note): (.*)$", re.MULTILINE)

Told = dict[str, dict[int, list[str]]]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Check all cases in one run, with the project's own settings and cache."""
    folder = tmp_path_factory.mktemp("cases")
    for number, text in enumerate(CASES.values()):
        (folder / f"case_{number}.py").write_text(HEAD + text)
    files = sorted(path.name for path in folder.iterdir())
    command = [
        *(sys.executable, "-m", "mypy", *files),
        *("--config-file", str(ROOT / "pyproject.toml")),
        *("--cache-dir", str(ROOT / ".mypy_cache" / "contracts")),
        "--hide-error-context",
    ]
    environment = {"PATH": "", "PYTHONPATH": str(ROOT), "MYPYPATH": str(ROOT)}
    found = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment,
    )
    assert not found.stderr, found.stderr
    names, lines = list(CASES), defaultdict[str, dict[int, list[str]]](dict)
    for number, line, kind, text in _TOLD.findall(found.stdout):
        if kind == "error" or text.startswith("Revealed"):
            lines[names[int(number)]].setdefault(int(line), []).append(text)
    return lines


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, told: Told) -> None:
    """Mypy says of each line what the line expects, and nothing else."""
    expected = {
        number: f'Revealed type is "{found["text"]}' * (found["kind"] == "R")
        or found["text"]
        for number, line in enumerate((HEAD + CASES[name]).splitlines(), 1)
        if (found := _EXPECTED.search(line))
    }
    said = {number: " | ".join(texts) for number, texts in told[name].items()}
    wrong = {
        number: (expected.get(number), said.get(number))
        for number in expected.keys() | said.keys()
        if expected.get(number, "nothing") not in said.get(number, "")
    }
    assert wrong == {}
