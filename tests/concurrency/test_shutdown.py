"""The interpreter's exit, for a loop on another thread than the main one."""

import asyncio
import subprocess
import sys

from django_microservices.concurrency.shutdown import holding_up_exit, is_exiting

PROGRAM = """
import asyncio, sys, threading
from django_microservices.concurrency.shutdown import before_exit

entered = threading.Event()

async def work():
    stop = asyncio.Event()
    with before_exit(stop.set):
        entered.set()
        await stop.wait()
        print("draining", flush=True)
        for _ in range(100):
            await asyncio.sleep(0)
        print("drained", flush=True)

threading.Thread(target=lambda: asyncio.run(work()), daemon=True).start()
entered.wait()
sys.exit(3)
"""

HELD_UP = """
import sys, threading
from django_microservices.concurrency.shutdown import holding_up_exit, is_exiting

entered = threading.Event()

def work():
    with holding_up_exit():
        print(is_exiting(), flush=True)
        entered.set()
        while not is_exiting():
            pass
        print(is_exiting(), flush=True)

threading.Thread(target=work, daemon=True).start()
entered.wait()
sys.exit(3)
"""

LEFT = """
import asyncio
from django_microservices.concurrency.shutdown import before_exit

async def work():
    with before_exit(lambda: print("stopped")):
        pass

asyncio.run(work())
"""

CLOSED = """
import asyncio
from django_microservices.concurrency.shutdown import before_exit

async def work():
    block = before_exit(lambda: print("stopped"))
    block.__enter__()
    return block

block = asyncio.run(work())
"""


TOO_LATE = """
import asyncio, sys, threading
from django_microservices.concurrency.shutdown import (
    before_exit, holding_up_exit, is_exiting
)

entered = threading.Event()

async def work():
    stop = asyncio.Event()
    with before_exit(stop.set):
        await stop.wait()
        print("stopped", flush=True)

def begin():
    with holding_up_exit():
        entered.set()
        while not is_exiting():
            pass
        asyncio.run(work())

threading.Thread(target=begin, daemon=True).start()
entered.wait()
sys.exit(3)
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
    )


def test_exit_waits() -> None:
    """The exit tells the loop to stop, and waits until it left the block."""
    ended = run(PROGRAM)
    assert ended.stdout == "draining\ndrained\n"
    assert (ended.returncode, ended.stderr) == (3, "")


def test_exit_that_has_begun() -> None:
    """Who enters the block when the exit has begun is told at once."""
    ended = run(TOO_LATE)
    assert ended.stdout == "stopped\n"
    assert (ended.returncode, ended.stderr) == (3, "")


def test_exit_after_the_block() -> None:
    """Whoever has left the block is not asked any more."""
    ended = run(LEFT)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_exit_with_a_closed_loop() -> None:
    """A loop that is closed is not waited for."""
    ended = run(CLOSED)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


async def test_block_inside_a_loop() -> None:
    """The block is for a running loop, and may be left at once."""
    from django_microservices.concurrency.shutdown import before_exit

    stop = asyncio.Event()
    with before_exit(stop.set):
        pass
    assert not stop.is_set()


def test_exit_is_held_up() -> None:
    """A daemon thread that holds up the exit goes on to the end of its block."""
    ended = run(HELD_UP)
    assert ended.stdout == "False\nTrue\n"
    assert (ended.returncode, ended.stderr) == (3, "")


def test_exit_is_held_up_no_longer() -> None:
    """What has left the block holds up nothing; nor does an exit show meanwhile."""
    with holding_up_exit():
        assert not is_exiting()
    assert not is_exiting()
