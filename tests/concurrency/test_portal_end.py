"""The portal's end, by a stop or a fork, and who hears of it."""

import logging
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from django_microservices.concurrency.portal import Portal

from .visits import LONG, Forever, double, join_threads

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
    assert portal._thread is None


def test_threads_that_start_it_at_once_share_it(portal: Portal) -> None:
    """Who comes second to start the portal takes what the first has started."""
    assert portal._start() is portal._start()


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
