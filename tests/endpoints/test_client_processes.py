"""The end that asks, in processes that fork, and under gevent."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from django_microservices import message_pattern
from tests.endpoints.ends import serving_elsewhere
from tests.endpoints.scripts import run_script


@message_pattern("echo")
async def echo(data: Any) -> Any:
    """Return what came."""
    return data


@message_pattern("hang")
async def hang(data: Any) -> None:
    """Answer never."""
    await asyncio.Event().wait()


@message_pattern("acount")
async def acount(data: int) -> AsyncIterator[int]:
    """Stream numbers."""
    for number in range(data):
        yield number


@pytest.fixture
def served(free_port: Callable[[], int]) -> Iterator[int]:
    """Serve on another thread's loop; give the port."""
    port = free_port()
    with serving_elsewhere(port, echo, hang, acount):
        yield port


def test_fork_after_use(served: int) -> None:
    """A child makes a connection of its own; the parent's goes on working."""
    printed = run_script(
        served,
        """
        client = create_client(port=port)
        def address():
            return client.unwrap().get_extra_info("sockname")
        assert client.send("echo", "parent") == "parent"
        before = address()
        child = os.fork()
        if child == 0:
            assert client.status == "disconnected"
            assert [client.send("echo", n) for n in range(50)] == [*range(50)]
            assert address() != before
            os._exit(0)
        assert [client.send("echo", n) for n in range(50)] == [*range(50)]
        assert os.waitpid(child, 0)[1] == 0
        assert address() == before
        print("both")
        """,
    )
    assert printed == "both\n"


def test_callable_entry_after_a_fork(served: int) -> None:
    """A child calls a callable entry again, also where the parent used no thread."""
    printed = run_script(
        served,
        """
        import asyncio
        from django.test import override_settings
        from django_microservices import clients
        pids = []
        def entry():
            pids.append(os.getpid())
            return {"OPTIONS": {"port": port}}
        client = clients["MATH"]
        with override_settings(MICROSERVICES={"CLIENTS": {"MATH": entry}}):
            asyncio.run(client.asend("echo"))
            asyncio.run(client.asend("echo"))
            child = os.fork()
            if child == 0:
                client.send("echo")
                assert pids == [os.getppid(), os.getpid()], pids
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            assert pids == [os.getpid()]
        print("once each")
        """,
    )
    assert printed == "once each\n"


def test_prefork_workers(served: int) -> None:
    """Four workers forked after import, as with gunicorn --preload, mix nothing up."""
    printed = run_script(
        served,
        """
        client = create_client(port=port)
        client.send("echo", "master")
        children = []
        for worker in range(4):
            if (child := os.fork()) == 0:
                from concurrent.futures import ThreadPoolExecutor
                with ThreadPoolExecutor(4) as pool:
                    sent = [[worker, n] for n in range(250)]
                    ok = list(pool.map(lambda v: client.send("echo", v), sent)) == sent
                os._exit(0 if ok else 1)
            children.append(child)
        print([os.waitpid(child, 0)[1] for child in children])
        """,
    )
    assert printed == "[0, 0, 0, 0]\n"


def test_gevent(served: int) -> None:
    """Under gevent a call lets other greenlets run, and many wait at once."""
    pytest.importorskip("gevent")
    printed = run_script(
        served,
        """
        import gevent
        client = create_client(port=port)
        calls = [gevent.spawn(client.send, "echo", n) for n in range(50)]
        hanging = gevent.spawn(client.send, "hang", timeout=0.3)
        gevent.joinall(calls)
        assert [call.value for call in calls] == [*range(50)]
        assert not hanging.ready()
        try:
            hanging.get()
        except TimeoutError as error:
            print(type(error).__name__, list(client.stream("acount", 3)))
        """,
        before="import gevent.monkey; gevent.monkey.patch_all()",
    )
    assert printed == "MessageTimeout [0, 1, 2]\n"


def test_exit_with_an_open_stream(served: int) -> None:
    """A stream left open at the interpreter's exit makes no noise."""
    printed = run_script(
        served,
        """
        client = create_client(port=port)
        items = client.stream("acount", 10**9)
        print(next(items))
        """,
    )
    assert printed == "0\n"
