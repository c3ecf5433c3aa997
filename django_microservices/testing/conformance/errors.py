"""Errors: a request always ends, and its caller learns what he may know."""

import asyncio
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied, ValidationError

from ...dispatch.decorators import message_pattern
from ...exceptions import (
    MessageTimeout,
    MicroserviceError,
    NoHandler,
    RemoteError,
    RpcException,
)
from .bench import SILENCE, Bench
from .requests import Point, echo

INTERNAL = {"status": "error", "message": "Internal server error"}

ERRORS: list[tuple[BaseException, Any]] = [
    (RpcException("full"), {"status": "error", "message": "full"}),
    (RpcException({"code": 7}), {"code": 7}),
    (RpcException([1, None]), [1, None]),
    (PermissionDenied(), {"status": "error", "message": "Forbidden resource"}),
    (ZeroDivisionError("a secret"), INTERNAL),
    (SystemExit("a secret"), INTERNAL),
]

UNSENDABLE = ["", " ", "a b", "a\r\nPUB b 0", "nul\x00", "x" * 70_000, "🚀", "\ud83d"]


class ErrorCases(Bench):
    """Errors."""

    @pytest.mark.parametrize(("error", "value"), ERRORS, ids=lambda x: repr(x)[:30])
    async def test_error_travels(self, error: BaseException, value: Any) -> None:
        """An error that is meant for the caller travels; any other is a fixed text."""

        @message_pattern(self.pattern("fail"))
        async def fail(_: Any) -> None:
            raise type(error)(*error.args)  # one that was raised keeps its frames

        async with self.talking(fail) as client:
            with pytest.raises(RemoteError) as caught:
                await client.asend(self.pattern("fail"))
        assert caught.value.error == value

    async def test_validation_error_names_its_fields(self) -> None:
        """A ``ValidationError`` of Django reaches the caller with its fields."""

        @message_pattern(self.pattern("fail"))
        def fail(_: Any) -> None:
            raise ValidationError({"sku": ["taken"]})

        async with self.talking(fail) as client:
            with pytest.raises(RemoteError) as caught:
                await client.asend(self.pattern("fail"))
        assert caught.value.error["errors"] == [{"path": "sku", "message": "taken"}]

    async def test_wrong_payload_is_refused(self) -> None:
        """A payload that is not of the handler's type is refused by its path."""

        @message_pattern(self.pattern("typed"))
        def typed(data: Point) -> int:
            return data.x

        async with self.talking(typed) as client:
            with pytest.raises(RemoteError) as caught:
                await client.asend(self.pattern("typed"), {"x": "one"})
            assert await client.asend(self.pattern("typed"), {"x": 1}) == 1
        assert [error["path"] for error in caught.value.error["errors"]] == ["x"]

    async def test_unknown_pattern_ends(self) -> None:
        """A request that nobody handles ends: at once where the wire can tell."""
        wire = self.server_transport()
        tells = wire.answers_unknown or wire.no_listener
        timeout, error = (
            (self.patience, NoHandler) if tells else (SILENCE, MessageTimeout)
        )
        async with self.talking(echo(self.pattern("known"))) as client:
            with pytest.raises(error):
                await client.asend(self.pattern("unknown"), timeout=timeout)
            assert await client.asend(self.pattern("known"), 1) == 1

    async def test_missing_server_ends(self) -> None:
        """So does one for which no server listens: at once where the wire can tell."""
        wire = self.client_transport()
        tells = wire.no_listener or wire.listens or wire.in_process
        timeout = self.patience if tells else SILENCE
        async with self.calling() as client:
            with pytest.raises(MicroserviceError) as caught:
                await client.asend(self.pattern("nobody"), timeout=timeout)
        assert not (tells and isinstance(caught.value, MessageTimeout))

    async def test_handler_runs_out_of_time(self) -> None:
        """A handler's own ``timeout=`` ends the request, not the server."""

        @message_pattern(self.pattern("hang"), timeout=0.05)
        async def hang(_: Any) -> None:
            await asyncio.Event().wait()

        async with self.talking(hang, echo(self.pattern("echo"))) as client:
            with pytest.raises(MessageTimeout):
                await client.asend(self.pattern("hang"), timeout=self.patience)
            assert await client.asend(self.pattern("echo"), 1) == 1

    async def test_caller_runs_out_of_time(self) -> None:
        """The caller's own timeout ends the call; a late answer disturbs nobody."""
        gate = asyncio.Event()

        @message_pattern(self.pattern("late"))
        async def late(data: int) -> int:
            await gate.wait()
            return data

        async with self.talking(late) as client:
            with pytest.raises(MessageTimeout):
                await client.asend(self.pattern("late"), 1, timeout=0.1)
            gate.set()
            assert await client.asend(self.pattern("late"), 2) == 2

    async def test_caller_gives_up(self) -> None:
        """A call that is cancelled leaves its client usable."""
        entered = asyncio.Event()

        @message_pattern(self.pattern("hang"))
        async def hang(_: Any) -> None:
            entered.set()
            await asyncio.Event().wait()

        async with self.talking(hang, echo(self.pattern("echo"))) as client:
            call = asyncio.ensure_future(client.asend(self.pattern("hang")))
            await self.until(entered.is_set)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await client.asend(self.pattern("echo"), 1) == 1

    @pytest.mark.parametrize("name", UNSENDABLE, ids=lambda x: ascii(x)[:20])
    async def test_strange_pattern_harms_nobody(self, name: str) -> None:
        """A name that the wire cannot carry is an error of its caller alone."""
        async with self.talking(echo(self.pattern("echo"))) as client:
            with pytest.raises((ValueError, MicroserviceError)):
                await client.asend(f"{self.name}{name}", timeout=SILENCE)
            assert await client.asend(self.pattern("echo"), 1) == 1
