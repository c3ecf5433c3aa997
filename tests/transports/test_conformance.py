"""Every wire of ours passes the public conformance suite."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from django_microservices import MicroserviceError, Transport, transports
from django_microservices.concurrency.portal import portal
from django_microservices.testing.conformance import TransportConformance
from django_microservices.transports import MemoryTransport, TCPTransport
from tests.docs.blocks import blocks_of


@pytest.fixture(scope="module", autouse=True)
def _portal_ends() -> Iterator[None]:
    """Stop the portal that sync callers used, so that no thread of it is left."""
    yield
    portal.stop()


class TestMemory(TransportConformance):
    """The memory transport."""

    transport = MemoryTransport

    def options(self) -> dict[str, Any]:
        """Meet only the ends of this test."""
        return {"name": self.name}


class TestTCP(TransportConformance):
    """The TCP transport."""

    transport = TCPTransport

    @pytest.fixture(autouse=True)
    def _port(self, free_port: Callable[[], int]) -> None:
        self.port = free_port()

    def options(self) -> dict[str, Any]:
        """Have a port of one's own."""
        return {"port": self.port}

    async def send_raw(self, pattern: str, body: bytes) -> None:
        """Send one frame on a connection of its own."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"%d#%b" % (len(body), body))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def break_links(self) -> None:
        """Reset the connections of the clients."""
        for client in self.clients:
            client.unwrap().abort()


# --- the suite itself ---------------------------------------------------------------

LIES = {
    "acknowledges": "test_nack_brings_it_back",
    "delays": "test_event_can_be_delayed",
    "durable": "test_event_waits_for_its_server",
    "shares_work": "test_two_servers_share_the_work",
    "stream_links": "test_slow_reader_holds_its_sender_back",
    "wildcards": "test_request_goes_to_the_most_specific_pattern",
}
FAILURES = (AssertionError, AttributeError, MicroserviceError, TimeoutError)


def suite_of(**claims: bool) -> Any:
    """Return the suite for a memory transport that claims something."""
    wire = type("Claiming", (MemoryTransport,), claims)
    body = {"transport": wire, "patience": 0.2, "__test__": False}
    return type("Suite", (TestMemory,), body)()


@pytest.mark.parametrize(("flag", "case"), LIES.items())
async def test_claim_that_is_not_met_fails(flag: str, case: str) -> None:
    """What a flag claims and the wire does not do is a failure, never a skip."""
    with pytest.raises(FAILURES):
        await getattr(suite_of(**{flag: True}), case)()


@pytest.mark.parametrize(("flag", "case"), LIES.items())
async def test_what_is_not_claimed_is_skipped(flag: str, case: str) -> None:
    """What a flag does not claim is skipped, with a line that names the flag."""
    with pytest.raises(pytest.skip.Exception, match=rf"says {flag} = False"):
        await getattr(suite_of(), case)()


async def test_hook_that_is_not_given_is_skipped() -> None:
    """So is what needs a hook; and the line names the hook."""
    with pytest.raises(pytest.skip.Exception, match=r"has no break_links\(\)"):
        await suite_of().test_both_ends_come_back()


def test_every_wire_is_tested() -> None:
    """No wire of the package is left out."""
    here = Path(__file__).parent
    for path in here.rglob("test_*conformance.py"):
        parts = path.relative_to(here).with_suffix("").parts
        import_module(".".join((__package__, *parts)))
    wires = {getattr(transports, name) for name in transports.__all__}
    assert wires - {Transport} == {*wires_under(TransportConformance)} & wires


def wires_under(cls: type[TransportConformance]) -> Iterator[Any]:
    """Yield the transports of the suite's classes."""
    for one in cls.__subclasses__():
        yield getattr(one, "transport", None)
        yield from wires_under(one)


GUIDE = Path(__file__).resolve().parents[2] / "docs/howto/transport.md"
PYTEST = """
[pytest]
asyncio_mode = strict
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""
SETTINGS = """
SECRET_KEY = "not a secret"
INSTALLED_APPS = ["django_microservices"]
USE_TZ = True
"""


def test_transport_of_the_guide_passes(tmp_path: Path) -> None:
    """So does the one that the documentation shows, where pytest-asyncio is strict."""
    package = tmp_path / "mysite"
    package.mkdir()
    (package / "settings.py").write_text(SETTINGS)
    (tmp_path / "pytest.ini").write_text(PYTEST)
    for block in blocks_of(GUIDE):
        if block.file in {"mysite/unix.py", "mysite/test_unix.py"}:
            (tmp_path / block.file).write_text(block.text)
    command = [sys.executable, "-m", "pytest", "--quiet", "mysite/test_unix.py"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "mysite.settings"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
