"""The harness itself, Nest to Nest: what it says of Nest must be what Nest does."""

import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.brokers.process import ServerUnavailableError

from .harness import NEST_11, NestClient, NestServer, StartNest
from .npm import NEST, install
from .payloads import BROKEN, errors_of_nest, streams_of_nest
from .process import ChildFailedError

ROOT = Path(__file__).parents[2]


async def test_request_is_answered(
    nest_server: NestServer, nest_client: NestClient
) -> None:
    """A request brings back its one value."""
    answer = await nest_client.send(nest_server.port, {"cmd": "sum"}, [1, 2, 3])
    assert answer.value == 6


def test_request_is_answered_to_a_sync_caller(
    nest_server: NestServer, nest_client: NestClient
) -> None:
    """A caller without a loop gets the same."""
    answer = nest_client.call("send", nest_server.port, pattern="echo", data="👍")
    assert answer.value == "👍"


async def test_key_order_of_an_object_pattern_is_free(
    nest_server: NestServer, nest_client: NestClient
) -> None:
    """An object pattern is found whatever the order of its keys."""
    pattern = {"a": {"c": 3, "d": 2}, "b": 1}
    answer = await nest_client.send(nest_server.port, pattern, 1)
    assert answer.value == {"deep": 1}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("null", [None]),
        ("false", [False]),
        ("zero", [0]),
        ("empty", [""]),
        ("undefined", []),
        ("nan", [None]),
        ("holes", [[None, 1]]),
        ("partial", [{"kept": 1}]),
    ],
)
async def test_constant_arrives_as_javascript_writes_it(
    nest_server: NestServer, nest_client: NestClient, name: str, values: list[Any]
) -> None:
    """An undefined result is no value, which is not null."""
    answer = await nest_client.send(nest_server.port, "constant", name)
    assert answer.values == values
    assert not answer.failed


@streams_of_nest
async def test_stream_is_collected(
    nest_server: NestServer, nest_client: NestClient, kind: str, items: list[Any]
) -> None:
    """Every item of a stream arrives, and its end."""
    data = {"kind": kind, "n": 3, "ms": 5}
    answer = await nest_client.send(nest_server.port, "stream", data)
    assert answer.values == items
    assert not answer.failed


async def test_items_before_an_error_stay(
    nest_server: NestServer, nest_client: NestClient
) -> None:
    """A stream that fails has delivered what came before."""
    data = {"kind": "failing", "n": 2}
    answer = await nest_client.send(nest_server.port, "stream", data)
    assert answer.values == [0, 1]
    assert answer.error == BROKEN


@errors_of_nest
async def test_error_is_the_peers_value(
    nest_server: NestServer, nest_client: NestClient, name: str, error: Any
) -> None:
    """A failed call carries the JSON value that came over the wire."""
    answer = await nest_client.send(nest_server.port, "fail", name)
    assert answer.failed
    assert not answer.thrown
    assert answer.error == error


async def test_guard_refuses(nest_server: NestServer, nest_client: NestClient) -> None:
    """A guard that returns false answers Nest's own sentence."""
    answer = await nest_client.send(nest_server.port, "guarded", 1)
    assert answer.error == {"status": "error", "message": "Forbidden resource"}


async def test_events_are_recorded(
    nest_server: NestServer, nest_client: NestClient
) -> None:
    """Every handler of an event runs, and a request can wait for that."""
    await nest_client.send(nest_server.port, "events.forget", 1)
    await nest_client.emit(nest_server.port, "created", {"id": 1})
    answer = await nest_client.send(nest_server.port, "events", 2)
    assert sorted(event["handler"] for event in answer.value) == ["first", "second"]
    assert answer.value[0]["data"] == {"id": 1}


async def test_200_requests_are_in_flight_at_once(
    nest_server: NestServer, nest_client: NestClient
) -> None:
    """Many calls over one connection each get their own answer."""
    answers = await nest_client.send_many(nest_server.port, "echo", list(range(200)))
    assert [answer.value for answer in answers] == list(range(200))


async def test_metadata_passes_a_gateway(
    nest_server: NestServer, nest_client: NestClient
) -> None:
    """A gateway copies the metadata of its request onwards."""
    client = {"port": nest_server.port, "metadata": {"dm-peer": "1"}}
    data = {"port": nest_server.port, "pattern": "metadata", "data": 1}
    answer = await nest_client.send(client, "gateway", data)
    assert answer.value == {"dm-peer": "1"}


async def test_options_reach_the_server(
    start_nest_server: StartNest, nest_client: NestClient
) -> None:
    """A service with a small buffer cuts the connection of a large message."""
    server = start_nest_server(maxBufferSize=1000)
    answer = await nest_client.send(server.port, "echo", "x" * 1001)
    assert answer.thrown
    assert answer.error["message"] == "Connection closed"


async def test_nest_11_understands_nest_12(
    nest_server: NestServer, nest_11_client: NestClient
) -> None:
    """The Nest before runs beside the new one."""
    answer = await nest_11_client.send(nest_server.port, {"cmd": "sum"}, [1, 2])
    assert answer.value == 3


async def test_nest_11_serves(
    start_nest_server: StartNest, nest_client: NestClient
) -> None:
    """The service runs on the Nest before, which has no metadata."""
    server = start_nest_server(NEST_11)
    client = {"port": server.port, "metadata": {"dm-peer": "1"}}
    assert (await nest_client.send(client, "metadata", 1)).value is None


async def test_tls(
    start_nest_server: StartNest,
    nest_client: NestClient,
    certificates: dict[str, str],
) -> None:
    """Both ends speak TLS, and the server sees the client's certificate."""
    server = start_nest_server(
        tlsOptions={
            "key": certificates["server_key"],
            "cert": certificates["server_cert"],
            "ca": certificates["ca"],
            "requestCert": True,
        }
    )
    tls = {
        "key": certificates["client_key"],
        "cert": certificates["client_cert"],
        "ca": certificates["ca"],
    }
    client = {"host": "localhost", "port": server.port, "tlsOptions": tls}
    answer = await nest_client.send(client, "peer", 1)
    assert answer.value == "orders"


def test_missing_node_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Node is missing, one line says so."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ServerUnavailableError, match="needs npm, which is not on PATH"):
        install(NEST)


def test_failed_start_says_why(start_nest_server: StartNest) -> None:
    """A service that cannot start raises with what it said."""
    with pytest.raises(ChildFailedError, match="readFiles"):
        start_nest_server(tlsOptions={"key": "no-such-file"})


@pytest.mark.usefixtures("nest_server")  # it is skipped where there is no Nest
def test_no_process_outlives_a_killed_parent() -> None:
    """A Nest process ends with the tests, even when they have no time to act."""
    code = (
        "import os, signal\n"
        "from tests.interop.harness import NestServer\n"
        "print(NestServer().process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert has_ended(int(done.stdout))


def has_ended(pid: int) -> bool:
    """Whether a process ends within ten seconds; its parent may not have noticed."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], 10)[0])
    finally:
        os.close(process)
