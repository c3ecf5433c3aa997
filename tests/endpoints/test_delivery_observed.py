"""Who observes a message on the server: signals and the log."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from django_microservices import RpcException
from django_microservices.signals import (
    message_failed,
    message_handled,
    message_received,
)
from tests.endpoints.peer import BOTH, Start, async_handler, raising


@pytest.fixture
def observed() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Keep what the signals send."""
    seen: list[tuple[str, dict[str, Any]]] = []

    def keep(name: str) -> Any:
        def receiver(sender: Any, **values: Any) -> None:
            seen.append((name, values))

        return receiver

    signals = {
        "received": message_received,
        "handled": message_handled,
        "failed": message_failed,
    }
    receivers = {name: keep(name) for name in signals}
    for name, signal in signals.items():
        signal.connect(receivers[name])
    yield seen
    for name, signal in signals.items():
        signal.disconnect(receivers[name])


@BOTH
async def test_signals(start: Start, observed: Any, handler: Any) -> None:
    """Receiving and handling a message is told, with the seconds it took."""
    await (await start(handler)).ask()
    assert [name for name, _ in observed] == ["received", "handled"]
    assert all(values["context"].pattern == "it" for _, values in observed)
    assert 0 <= observed[1][1]["seconds"] < 10


async def test_signal_of_a_failure(start: Start, observed: Any) -> None:
    """A failure is told with its exception."""
    error = ZeroDivisionError()
    await (await start(raising(error, is_async=True))).ask()
    assert [name for name, _ in observed] == ["received", "failed"]
    assert observed[1][1]["exception"] is error


async def test_receiver_that_fails(start: Start) -> None:
    """A receiver that fails does not keep a message from being answered."""

    def fail(sender: Any, **_: Any) -> None:
        raise ZeroDivisionError

    signals = (message_received, message_handled)
    for signal in signals:
        signal.connect(fail)
    try:
        assert await (await start(async_handler)).ask() == 1
    finally:
        for signal in signals:
            signal.disconnect(fail)


async def test_only_some_are_observed(start: Start) -> None:
    """A signal without receivers costs nothing."""
    seen: list[Any] = []

    def keep(sender: Any, **values: Any) -> None:
        seen.append(values)

    message_handled.connect(keep)
    try:
        await (await start(async_handler)).ask()
    finally:
        message_handled.disconnect(keep)
    assert len(seen) == 1


async def test_log_of_messages(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """With ``log_messages`` each message is a line, with how it ended."""
    with caplog.at_level(logging.INFO):
        await (await start(async_handler, log_messages=True)).ask()
        fail = raising(RpcException("no"), is_async=True)
        await (await start(fail, log_messages=True)).ask()
    lines = [record.message for record in caplog.records]
    assert [line.rsplit(" ", 2)[0] for line in lines] == [
        "request it ok",
        "request it RpcException",
    ]
