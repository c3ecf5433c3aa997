"""The portal in whole processes: exits, forks and greenlets."""

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).resolve().parents[2]


PREAMBLE = """
import asyncio, contextlib, os, sys, threading
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
            with contextlib.suppress(RuntimeError):  # it may not print: all ends
                portal.run(forever)

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
