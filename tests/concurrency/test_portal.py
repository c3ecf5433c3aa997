"""The portal: callers of every kind, forks, and clean ends."""

import asyncio
import contextlib
import contextvars
import gc
import logging
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.exceptions import SynchronousOnlyOperation

from django_microservices.concurrency import portal as portal_module
from django_microservices.concurrency.portal import (
    Portal,
    is_throwaway,
    refuse_inside_loop,
)

LONG = 20.0
ROOT = Path(__file__).resolve().parents[2]
THREAD = "microservices-portal"
VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE")


@pytest.fixture
def portal() -> Iterator[Portal]:
    """Make a portal of the test's own."""
    portal = Portal()
    yield portal
    portal.stop()


@pytest.fixture
def interrupted() -> Iterator[threading.Event]:
    """Have the first SIGINT interrupt, and set this event, and the others do nothing.

    Python overlooks one that comes just before a thread blocks: it is to be repeated.
    """
    event = threading.Event()

    def interrupt(*_: object) -> None:
        if not event.is_set():
            event.set()
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    yield event
    signal.signal(signal.SIGINT, before)


async def double(number: int) -> int:
    """Take a turn of the loop, then answer."""
    await asyncio.sleep(0)
    return 2 * number


async def fail_over_there() -> None:
    """Raise."""
    raise ZeroDivisionError


class Forever:
    """A coroutine that runs until it is cancelled, and says so."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.cancelled = threading.Event()

    async def __call__(self) -> None:
        """Run."""
        self.started.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.cancelled.set()


class Stubborn:
    """A coroutine that takes no notice of being cancelled."""

    def __init__(self) -> None:
        self.started = threading.Event()

    async def __call__(self) -> None:
        """Run."""
        while True:
            self.started.set()
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                continue


@pytest.fixture(autouse=True, scope="module")
def _only_portals_of_this_file() -> None:
    """End the process's own portal, which tests before these may have used."""
    portal_module.portal.stop()


def join_threads() -> None:
    """Wait until no portal's thread runs."""
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join(LONG)
            assert not thread.is_alive()


# --- run ---


def test_run_gives_the_result(portal: Portal) -> None:
    """A sync caller gets what the coroutine returned on the portal's loop."""
    assert portal.run(double, 2) == 4


def test_many_threads_call_at_once(portal: Portal) -> None:
    """Threads that start at one moment share one loop, and each gets its answers."""
    threads, calls = 16, 100
    together = threading.Barrier(threads)

    def work(thread: int) -> tuple[list[int], asyncio.AbstractEventLoop]:
        together.wait(LONG)
        answers = [portal.run(double, thread * calls + n) for n in range(calls)]
        return answers, portal.loop

    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(work, range(threads)))
    answers = [answer for part, _ in results for answer in part]
    assert answers == [2 * n for n in range(threads * calls)]
    assert {loop for _, loop in results} == {portal.loop}


def test_error_keeps_its_traceback(portal: Portal) -> None:
    """What the coroutine raised is raised to the caller, who sees where."""
    with pytest.raises(ZeroDivisionError) as caught:
        portal.run(fail_over_there)
    assert caught.traceback[-1].name == "fail_over_there"


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_exit_goes_to_the_caller(portal: Portal, kind: type[BaseException]) -> None:
    """A coroutine that wants to exit does not end the portal, but its caller."""

    async def leave() -> None:
        raise kind

    loop = portal.loop
    with pytest.raises(kind):
        portal.run(leave)
    assert portal.loop is loop


def test_error_makes_no_reference_cycle(portal: Portal) -> None:
    """An error that was raised and handled is freed without the collector."""
    errors: list[weakref.ref[Exception]] = []

    class MyError(Exception):
        pass

    async def fail() -> None:
        error = MyError()
        errors.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    gc.disable()
    try:
        with contextlib.suppress(MyError):
            portal.run(fail)
        portal.run(double, 1)  # by now the other thread has left the call's frames
        assert errors[0]() is None
    finally:
        gc.enable()


def test_coroutine_runs_in_the_callers_context(portal: Portal) -> None:
    """Context variables are seen there; what is set there stays there."""

    async def change() -> str:
        before = VARIABLE.get()
        VARIABLE.set("the coroutine's")
        return before

    def call() -> tuple[str, str]:
        VARIABLE.set("the caller's")
        return portal.run(change), VARIABLE.get()

    answer = contextvars.copy_context().run(call)
    assert answer == ("the caller's", "the caller's")


def test_timeout_cancels(portal: Portal) -> None:
    """The caller gets TimeoutError in time, and the coroutine is cancelled."""
    forever = Forever()
    with pytest.raises(TimeoutError, match=r"took longer than 0\.05 s"):
        portal.run(forever, timeout=0.05)
    assert forever.cancelled.wait(LONG)


def test_timeout_before_the_start_leaves_nothing(portal: Portal) -> None:
    """A call that is given up before it began is forgotten."""
    go_on = threading.Event()
    portal.call_soon(go_on.wait, LONG)
    with pytest.raises(TimeoutError):
        portal.run(double, 1, timeout=0)
    go_on.set()
    portal.run(double, 1)
    assert portal._life is not None
    assert not portal._life.calls


def test_interrupt_cancels(portal: Portal, interrupted: threading.Event) -> None:
    """KeyboardInterrupt ends the wait and cancels the coroutine."""
    cancelled, main = threading.Event(), threading.get_ident()

    async def interrupt() -> None:
        try:
            while True:
                signal.pthread_kill(main, signal.SIGINT)
                await asyncio.sleep(0.01)
        finally:
            cancelled.set()

    with pytest.raises(KeyboardInterrupt):
        portal.run(interrupt)
    assert cancelled.wait(LONG)
    assert portal.run(double, 1) == 2


def test_cancelled_coroutine_is_no_cancelled_caller(portal: Portal) -> None:
    """A coroutine that is cancelled over there is a RuntimeError to its caller."""

    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="cancelled"):
        portal.run(cancelled)


async def test_run_is_refused_inside_a_loop(portal: Portal) -> None:
    """To block a running loop is refused, with the twin's name."""
    with pytest.raises(SynchronousOnlyOperation, match=r"await portal\.arun\(\)"):
        portal.run(double, 1)


async def test_sync_verb_is_refused_inside_a_loop() -> None:
    """The error names the verb and its twin."""
    with pytest.raises(SynchronousOnlyOperation, match=r"send\(\).*await asend\(\)"):
        refuse_inside_loop("send", "asend")


def test_sync_verb_is_allowed_outside() -> None:
    """Where no loop runs, nothing is refused."""
    refuse_inside_loop("send", "asend")


def test_call_soon_calls_on_the_loops_thread(portal: Portal) -> None:
    """A plain callback runs on the portal's thread, with its arguments."""
    called = threading.Event()
    names: list[str] = []

    def call(prefix: str) -> None:
        names.append(prefix + threading.current_thread().name)
        called.set()

    portal.call_soon(call, "on ")
    assert called.wait(LONG)
    assert names == ["on " + THREAD]


def test_is_loop(portal: Portal) -> None:
    """Asking whether a loop is the portal's does not start it."""
    other = asyncio.new_event_loop()
    other.close()
    assert not portal.is_loop(other)
    assert portal._life is None
    assert portal.is_loop(portal.loop)


# --- arun, and loops that are thrown away ---


def test_async_to_sync_callers_share_the_loop(portal: Portal) -> None:
    """Calls on several throw-away loops all run on the portal's loop."""

    async def over_there() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def here() -> tuple[bool, asyncio.AbstractEventLoop]:
        throwaway = is_throwaway(asyncio.get_running_loop())
        return throwaway, await portal.arun(over_there)

    for _ in range(3):
        assert async_to_sync(here)() == (True, portal.loop)


async def test_lasting_loop_is_not_throwaway() -> None:
    """A loop that asgiref did not make lasts, also for sync code below it."""

    @sync_to_async
    def below() -> bool:
        return async_to_sync(above)()

    async def above() -> bool:
        return is_throwaway(asyncio.get_running_loop())

    assert not await above()
    assert not await below()


async def test_unknown_asgiref(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where asgiref does not tell, each loop goes the way that is always right."""
    monkeypatch.setattr(portal_module, "_throwaway_loops", None)
    assert is_throwaway(asyncio.get_running_loop())


async def test_arun_raises_the_error(portal: Portal) -> None:
    """An async caller gets the coroutine's error."""
    with pytest.raises(ZeroDivisionError):
        await portal.arun(fail_over_there)


async def test_cancelling_arun_cancels(portal: Portal) -> None:
    """When the caller is cancelled, so is what runs for it on the portal's loop."""
    forever = Forever()
    caller = asyncio.ensure_future(portal.arun(forever))
    await asyncio.to_thread(forever.started.wait, LONG)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert await asyncio.to_thread(forever.cancelled.wait, LONG)


# --- the end ---


def test_stop_cancels_and_starts_anew(portal: Portal) -> None:
    """Stopping tells those who wait; the next use starts another loop."""
    forever, loop = Forever(), portal.loop
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(portal.run, forever)
        assert forever.started.wait(LONG)
        portal.stop()
        with pytest.raises(RuntimeError, match="the portal has stopped"):
            waiting.result(LONG)
    assert loop.is_closed()
    assert portal.run(double, 1) == 2
    assert portal.loop is not loop


def test_stop_before_use_does_nothing(portal: Portal) -> None:
    """Stopping what never started starts nothing."""
    portal.stop()
    assert portal._life is None


def test_call_that_comes_while_stopping_fails(portal: Portal) -> None:
    """A call that is put at the last moment is told so, rather than left waiting."""
    portal.run(double, 1)
    assert portal._life is not None
    portal._life.ending = True
    with pytest.raises(RuntimeError, match="the portal has stopped"):
        portal.run(double, 1)


def test_call_given_up_while_stopping(portal: Portal) -> None:
    """A call that never began, since the portal stops, may be given up as well."""
    go_on, done = threading.Event(), threading.Event()
    portal.call_soon(go_on.wait, LONG)
    assert portal._life is not None
    portal._life.ending = True
    with pytest.raises(TimeoutError):
        portal.run(double, 1, timeout=0)
    go_on.set()
    portal.call_soon(done.set)
    assert done.wait(LONG)


def test_threads_that_start_it_at_once_share_it(portal: Portal) -> None:
    """Who comes second to start the portal takes what the first has started."""
    assert portal._start() is portal._start()


def test_stop_leaves_the_stubborn(
    portal: Portal, caplog: pytest.LogCaptureFixture
) -> None:
    """A task that does not end is given up and logged, and its caller is told."""
    stubborn = Stubborn()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(portal.run, stubborn)
        assert stubborn.started.wait(LONG)
        portal.stop(grace=0.05)
        with pytest.raises(RuntimeError, match="the portal has stopped"):
            waiting.result(LONG)
    assert "Cancelled tasks did not end" in caplog.text


@pytest.mark.parametrize("ends", [True, False])
def test_stop_closes_generators(portal: Portal, *, ends: bool) -> None:
    """Async generators left open are closed, within the time that stopping has."""
    closed = threading.Event()
    kept: list[AsyncIterator[int]] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            closed.set()
            if not ends:
                await asyncio.get_running_loop().create_future()

    async def begin() -> int:
        kept.append(numbers())
        return await anext(kept[0])

    assert portal.run(begin) == 1
    portal.stop(grace=LONG if ends else 0.05)
    assert closed.is_set()


def test_stop_leaves_a_blocked_thread(
    portal: Portal, caplog: pytest.LogCaptureFixture
) -> None:
    """A callback that blocks the loop does not hold up who stops it."""
    blocked, go_on = threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        go_on.wait(LONG)

    portal.call_soon(block)
    assert blocked.wait(LONG)
    portal.stop(grace=-1)
    go_on.set()
    join_threads()
    assert "thread is blocked" in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_portal_that_ended_by_itself_starts_anew(portal: Portal) -> None:
    """A callback that exits ends the loop; clients are told, the next call works."""
    loop, dropped = portal.loop, threading.Event()
    portal.on_drop(dropped.set)
    portal.call_soon(sys.exit)
    assert dropped.wait(LONG)
    assert loop.is_closed()
    join_threads()
    assert portal.run(double, 1) == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_stop_of_what_has_ended(portal: Portal) -> None:
    """Stopping a loop that ends by itself at the same moment is no error."""
    portal.run(double, 1)
    life = portal._life
    assert life is not None
    portal.call_soon(sys.exit)
    join_threads()
    portal._life = life
    portal.stop()
    assert portal._life is None


def test_no_thread_to_be_had(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the system has no thread left, the next call tries again."""

    def refuse(*args: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(portal_module, "start_native_thread", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            portal.run(double, 1)
    assert portal.run(double, 1) == 2


def test_exit_is_for_good(portal: Portal) -> None:
    """When the interpreter exits, the portal stops and starts no more."""
    assert portal.run(double, 1) == 2
    portal.exit()
    with pytest.raises(RuntimeError, match="exiting"):
        portal.run(double, 1)


# --- on_drop and drop ---


class Client:
    """What keeps something on the portal's loop."""

    def __init__(self) -> None:
        self.links = ["link"]

    def forget(self) -> None:
        """Forget it."""
        self.links.clear()


def test_clients_forget_after_a_stop(portal: Portal) -> None:
    """A method that was registered is called when the loop is gone."""
    client = Client()
    portal.on_drop(client.forget)
    portal.run(double, 1)
    portal.stop()
    assert client.links == []


def test_clients_are_held_weakly(portal: Portal) -> None:
    """The portal keeps no client alive."""
    client = Client()
    portal.on_drop(client.forget)
    reference = weakref.ref(client)
    del client
    assert reference() is None
    assert len(portal._on_drop) == 0


def test_failing_drop_callback(
    portal: Portal, caplog: pytest.LogCaptureFixture
) -> None:
    """A callback that fails is logged and keeps no other from being called."""
    clients = [Client() for _ in range(3)]
    del clients[1].links
    for client in clients:
        portal.on_drop(client.forget)
    portal.run(double, 1)
    portal.stop()
    assert (clients[0].links, clients[2].links) == ([], [])
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_drop_forgets_without_closing(portal: Portal) -> None:
    """After a fork the old loop is left as it is, whoever held the lock."""
    client, loop = Client(), portal.loop
    portal.on_drop(client.forget)
    portal._lock.acquire()
    portal.drop()
    assert client.links == []
    assert portal.run(double, 1) == 2
    assert portal.loop is not loop
    assert not loop.is_closed()
    loop.call_soon_threadsafe(loop.stop)
    portal.stop()
    join_threads()


def test_drop_before_use_only_frees_the_lock(portal: Portal) -> None:
    """A fork before first use leaves nothing to forget."""
    portal._lock.acquire()
    portal.drop()
    assert portal.run(double, 1) == 2


# --- whole processes ---

PREAMBLE = """
import asyncio, os, sys, threading
from django_microservices.concurrency.portal import portal

async def whoami():
    await asyncio.sleep(0)
    return os.getpid()

def end(pid):
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)
"""
# Newer Pythons warn of every fork of a process with threads: that is what is tested.
STRICT = ("-X", "dev", "-W", "error", "-W", "ignore:This process:DeprecationWarning")


def run_process(script: str, *options: str) -> str:
    """Run a script in a process that must end well and without complaint."""
    code = PREAMBLE + dedent(script)
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_exit_is_clean() -> None:
    """A process that ends with calls and tasks in the portal ends without noise."""
    out = run_process(
        """
        started, tasks = threading.Semaphore(0), []

        async def forever():
            started.release()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                await asyncio.sleep(0)
                print("cancelled", flush=True)

        def wait():
            try:
                portal.run(forever)
            except RuntimeError:
                print("told", flush=True)

        assert portal.run(whoami) == os.getpid()
        portal.call_soon(lambda: tasks.append(asyncio.ensure_future(forever())))
        threading.Thread(target=wait, daemon=True).start()
        assert started.acquire(timeout=20) and started.acquire(timeout=20)
        """,
        *STRICT,
    )
    assert out.splitlines().count("cancelled") == 2


def test_children_of_a_preloading_server() -> None:
    """Parent and four children each use a loop of their own after the fork.

    No child runs, ends or closes what it inherited, not even when it exits.
    """
    out = run_process(
        """
        async def session():
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                print("closed by", os.getpid(), flush=True)

        async def hold():
            global task
            task = asyncio.ensure_future(session())
            await asyncio.sleep(0)

        class Client:
            def forget(self):
                self.forgot = os.getpid()

        client, parent = Client(), os.getpid()
        portal.on_drop(client.forget)
        portal.run(hold)
        inherited = portal.loop
        children = []
        for _ in range(4):
            pid = os.fork()
            if not pid:
                assert client.forgot == os.getpid()
                assert portal.loop is not inherited
                for _ in range(50):
                    assert portal.run(whoami, timeout=20) == os.getpid()
                del task
                sys.exit(7)
            children.append(pid)
        for _ in range(50):
            assert portal.run(whoami, timeout=20) == parent
        assert portal.loop is inherited
        assert [end(pid) for pid in children] == [7] * 4
        print("parent is", parent, flush=True)
        """,
        *STRICT,
    )
    parent, closed = (line.split()[-1] for line in out.splitlines())
    assert closed == parent


def test_fork_while_another_thread_starts_the_portal() -> None:
    """A lock that was held at the fork, by a thread that is gone, holds up no child."""
    run_process(
        """
        held, release = threading.Event(), threading.Event()

        def hold():
            with portal._lock:
                held.set()
                release.wait(20)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(20)
        pid = os.fork()
        if not pid:
            assert portal.run(whoami, timeout=20) == os.getpid()
            os._exit(0)
        assert end(pid) == 0
        release.set()
        thread.join()
        assert portal.run(whoami, timeout=20) == os.getpid()
        """,
        *STRICT,
    )


GEVENT = """
import gevent.monkey
gevent.monkey.patch_all()
import gevent
"""


def test_greenlets_wait_together() -> None:
    """Twenty greenlets wait at one time: each ends only when all have begun.

    The loop's thread is a native one; errors and timeouts are as in threads.
    """
    run_process(
        GEVENT
        + PREAMBLE
        + """
get_ident = gevent.monkey.get_original("_thread", "get_ident")
waiting = []

async def meet(number):
    waiting.append(asyncio.get_running_loop().create_future())
    if len(waiting) == 20:
        for future in waiting:
            future.set_result(None)
    await waiting[number]
    return number, get_ident()

async def fail():
    raise ZeroDivisionError

async def forever():
    await asyncio.get_running_loop().create_future()

def call(number):
    return portal.run(meet, number, timeout=20)

calls = [gevent.spawn(call, number) for number in range(20)]
gevent.joinall(calls, raise_error=True)
assert sorted(call.value[0] for call in calls) == list(range(20))
(loop_thread,) = {call.value[1] for call in calls}
assert loop_thread != get_ident()
for function, error in ((fail, ZeroDivisionError), (forever, TimeoutError)):
    try:
        portal.run(function, timeout=0.01)
    except error:
        continue
    raise AssertionError(function)
with gevent.Timeout(0.01, False):
    portal.run(forever)
pid = os.fork()
if not pid:
    assert portal.run(whoami, timeout=20) == os.getpid()
    sys.exit(7)
assert end(pid) == 7
assert portal.run(whoami, timeout=20) == os.getpid()
"""
    )


def test_gevent_without_uvloop() -> None:
    """Under gevent a portal without uvloop says what to install."""
    run_process(
        GEVENT
        + """
import importlib.util
from django_microservices.concurrency import handover
from django_microservices.concurrency.portal import portal
handover._uvloop = None
try:
    portal.loop
except RuntimeError as error:
    assert "uvloop" in str(error)
else:
    raise AssertionError
"""
    )
