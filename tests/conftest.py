"""What every test has: ports, a database that threads can share, and a leak check."""

import gc
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from asgiref.sync import SyncToAsync
from django.conf import settings

from tests.brokers.ports import test_port

pytest_plugins = ["tests.brokers.fixtures"]

# The machine is shared: how long one example took says nothing.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")

THREAD_GRACE = 5.0


def pytest_configure(config: pytest.Config) -> None:
    """Turn asyncio's debug mode on for every loop, and Ctrl-C in the background.

    The debug mode is what notices a call from the wrong thread. Other loops than
    pytest-asyncio's, the portal's first of all, read the variable when they are made; a
    test that measures memory in a process of its own hands it an empty value.

    A shell has what it runs in the background ignore Ctrl-C, and so would the processes
    that the tests end by it.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getini("asyncio_debug"):
        os.environ["PYTHONASYNCIODEBUG"] = "1"


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Return a function that gives another free port at each call."""
    return test_port


class Figures:
    """What a test measured, for the report of ``python -m tests.benchmarks``."""

    def __init__(self, properties: list[tuple[str, object]]) -> None:
        self._properties = properties

    def __call__(self, name: str, value: float, wanted: float, unit: str = "s") -> None:
        """Take note of a value, and of the most that it should be.

        Ten times that is an error: the machine is shared, and a wait that never ends
        costs more.
        """
        self._properties.append(("figure", json.dumps([name, value, wanted, unit])))
        assert value <= 10 * wanted, f"{name}: {value} {unit}"


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figures:
    """Return what takes note of figures."""
    return Figures(request.node.user_properties)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the test database in a file of this run, which pytest removes."""
    folder: Path = tmp_path_factory.mktemp("database")
    settings.DATABASES["default"]["TEST"]["NAME"] = str(folder / "test.sqlite3")


@pytest.fixture(scope="session", autouse=True)
def _at_rest() -> Iterator[None]:
    """Start what lives as long as the process, so that no test seems to leak it."""
    SyncToAsync.single_thread_executor.submit(int).result()
    yield
    gc.unfreeze()
    gc.collect()


@pytest.fixture(autouse=True)
def _no_leaks(_at_rest: None) -> Iterator[None]:
    """Fail a test that leaves a thread running or something unclosed.

    What is unclosed warns when it is collected, and a warning is an error: pytest
    raises it in the teardown of the test that is just ending. What was there before
    the test, such as pytest's reports of all others, is not looked at: with thousands
    of tests that would take longer than most of them.
    """
    gc.collect()
    gc.freeze()
    before = set(threading.enumerate())
    yield
    gc.collect()  # asgiref's threads end with what holds them
    leaked = [thread for thread in threading.enumerate() if outlives(thread, before)]
    assert not leaked, f"The test left these threads running: {leaked}"


def outlives(thread: threading.Thread, before: set[threading.Thread]) -> bool:
    """Whether a thread was started by the test and does not end with it."""
    if thread in before or thread.daemon:
        return False
    thread.join(THREAD_GRACE)
    return thread.is_alive()
