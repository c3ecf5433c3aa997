"""Running until a signal: what the exit code says, and what a signal does."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from django_microservices import Microservice, NotConnected, TransportRefused
from django_microservices.runtime import loop as loop_module
from django_microservices.runtime.loop import FAILED, KILLED, OK, REFUSED, run
from tests.endpoints.ends import FakeListener, server_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _stdlib_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run on asyncio's loop, whose debug mode is on."""
    monkeypatch.setattr(loop_module, "new_event_loop", asyncio.new_event_loop)


def microservice_of(*listeners: FakeListener, **more: Any) -> Microservice:
    """Make one whose servers have these wires."""
    return Microservice([server_of(listener) for listener in listeners], **more)


def signal_now(_: Any = None) -> None:
    """Send this process a signal."""
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal(number: signal.Signals) -> None:
    """After a signal it drains, stops and says that all is well."""
    listener = FakeListener()
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    code = run(microservice_of(listener), lambda _: os.kill(os.getpid(), number))
    assert code == OK
    assert (listener.intake.paused, listener.intake.left) == (True, True)
    assert handlers == [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]


def test_refused(caplog: pytest.LogCaptureFixture) -> None:
    """A server that cannot start is said, and is a code of its own."""
    listener = FakeListener(TransportRefused("port taken"))
    with caplog.at_level(logging.CRITICAL):
        assert run(microservice_of(listener), signal_now) == REFUSED
    assert "Cannot start: port taken" in caplog.text


def test_server_gave_up() -> None:
    """When a server gives up the others are drained, and it has failed."""
    well, ill = FakeListener(), FakeListener(retry_attempts=0)

    def ready(_: Microservice) -> None:
        ill.intake.closed.set_result(NotConnected("broker gone"))

    assert run(microservice_of(well, ill), ready) == FAILED
    assert well.intake.paused


def test_not_drained() -> None:
    """What could not be drained in time is a failure."""
    listener = FakeListener()

    def ready(_: Microservice) -> None:
        listener.intake.pause = asyncio.Event().wait  # type: ignore[assignment, method-assign]
        signal_now()

    assert run(microservice_of(listener, drain_timeout=0.01), ready) == FAILED
    assert listener.intake.left


def test_signal_while_starting() -> None:
    """A signal while a server still connects gives that up."""

    class Signalling(FakeListener):
        """Sends the signal while it connects."""

        def serve(self, *args: Any, **options: Any) -> Any:
            signal_now()
            return super().serve(*args, **options)

    listener = Signalling(asyncio.Event())
    assert run(microservice_of(listener), signal_now) == OK
    assert listener.intakes == []


def test_failing_report() -> None:
    """When the report of being ready fails, everything is stopped."""
    listener = FakeListener()

    def ready(_: Microservice) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run(microservice_of(listener), ready)
    assert listener.intake.left


def test_second_signal(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The second signal ends the process at once, also where the loop is blocked."""
    ends: list[int] = []
    monkeypatch.setattr(loop_module, "end_process", ends.append)
    listener = FakeListener()

    def ready(_: Microservice) -> None:  # the loop's thread is here all the time
        signal_now()
        signal_now()

    run(microservice_of(listener), ready)
    assert ends == [KILLED]
    assert "Stopped at once." in caplog.text


def test_elsewhere_than_on_the_main_thread() -> None:
    """On another thread no signal is taken; a server that gives up ends it."""
    listener = FakeListener(retry_attempts=0)

    def ready(_: Microservice) -> None:
        assert threading.current_thread() is not threading.main_thread()
        listener.intake.closed.set_result(None)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run, microservice_of(listener), ready).result(10) == FAILED


def test_stop_is_begun_once() -> None:
    """Being told to stop twice is being told once."""

    async def twice() -> None:
        stop = loop_module.Stop()
        stop.receive()
        stop.receive()
        assert stop.first.done()

    asyncio.run(twice())


SCRIPT = """
    import asyncio, os, signal, sys, time
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django
    django.setup()
    from django_microservices import Microservice, message_pattern
    from django_microservices.runtime.loop import end_process, run
    from tests.endpoints.ends import FakeListener, server_of
"""


def script(source: str) -> subprocess.CompletedProcess[str]:
    """Run a process to its end."""
    return subprocess.run(
        [sys.executable, "-c", dedent(SCRIPT) + dedent(source)],
        cwd=ROOT,
        capture_output=True,
        timeout=30,
        text=True,
        check=False,
    )


def test_end_process_flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It flushes what was written, as far as that can be, and exits."""
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)
    monkeypatch.setattr(sys, "stdout", None)
    loop_module.end_process(7)
    assert exits == [7]


def test_end_process() -> None:
    """Ending at once writes what was printed, and runs nothing else."""
    done = script(
        """
        import atexit
        atexit.register(print, "never")
        print("said", end="")
        end_process(7)
        """
    )
    assert (done.returncode, done.stdout) == (7, "said")


def test_end_process_in_the_midst_of_writing() -> None:
    """It ends also where what was printed cannot be written."""
    done = script("sys.stdout.close(); end_process(7)")
    assert done.returncode == 7


def test_signals_of_forked_children() -> None:
    """A process that a handler forks ends by them, as a Pool ends its workers."""
    done = script(
        """
        def ready(microservice):
            begun, begins = os.pipe()
            child = os.fork()
            if not child:
                os.write(begins, b".")
                time.sleep(60)
            os.read(begun, 1)
            os.kill(child, signal.SIGTERM)
            _, status = os.waitpid(child, 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            os.kill(os.getpid(), signal.SIGTERM)

        sys.exit(run(Microservice([server_of(FakeListener())]), ready))
        """
    )
    assert (done.returncode, done.stdout) == (OK, f"-{signal.SIGTERM:d}\n")


def test_blocked_loop() -> None:
    """Two signals end a process whose loop is blocked by a handler."""
    done = script(
        """
        import threading

        def ready(microservice):
            def signal_twice():
                for _ in range(2):
                    os.kill(os.getpid(), signal.SIGTERM)
                    time.sleep(0.2)
            threading.Thread(target=signal_twice).start()
            time.sleep(60)

        run(Microservice([server_of(FakeListener())]), ready)
        """
    )
    assert done.returncode == KILLED
    assert "Stopped at once." in done.stderr


def test_loops_of_all_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """On uvloop, where that is installed, a signal is heard as well."""
    uvloop = pytest.importorskip("uvloop")
    make: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    monkeypatch.setattr(loop_module, "new_event_loop", make)

    def ready(_: Microservice) -> None:
        asyncio.get_running_loop().call_later(0.05, signal_now)

    assert run(microservice_of(FakeListener()), ready) == OK
