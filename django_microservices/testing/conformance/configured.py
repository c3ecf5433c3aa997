"""Settings: the same handlers and calls, and only ``MICROSERVICES`` differs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from django.test import override_settings

from ...concurrency.adapt import to_async
from ...conf import clients, create_microservice
from ...exceptions import RemoteError
from .bench import Bench

HANDLERS = f"{__package__}.handlers"  # imported late: a check looks at all handlers


class ConfiguredCases(Bench):
    """What a project writes, on this wire."""

    def microservices(self) -> dict[str, Any]:
        """Return the ``MICROSERVICES`` of a service that calls itself."""
        server = {"TRANSPORT": self.transport, "OPTIONS": self.server_options()}
        client = {"TRANSPORT": self.transport, "OPTIONS": self.client_options()}
        return {
            "NAME": self.name,
            "SERVERS": {"default": {**server, "HANDLERS": [HANDLERS]}},
            "CLIENTS": {"ORDERS": client},
        }

    @asynccontextmanager
    async def service(self) -> AsyncIterator[Any]:
        """Run the service of settings, and give its client."""
        with override_settings(MICROSERVICES=self.microservices()):
            microservice = create_microservice()
            async with asyncio.timeout(self.patience):
                await microservice.start()
            try:
                yield clients["ORDERS"]
                assert await microservice.drain()
            finally:
                await microservice.stop()

    async def test_same_handlers_and_calls(self) -> None:
        """One ``handlers.py`` and one set of calls run on every wire."""
        from .handlers import (
            COUNT,
            COUNT_SYNC,
            PLACE,
            PLACED,
            REFUSE,
            SUM,
            Order,
            placed,
        )

        placed.clear()
        async with self.service() as client:
            assert await client.asend(SUM, [1, 2, 3]) == 6
            assert await client.asend(PLACE, Order("tea")) == Order("TEA", 2)
            for contract in (COUNT, COUNT_SYNC):
                assert [n async for n in client.astream(contract, 3)] == [0, 1, 2]
            with pytest.raises(RemoteError) as caught:
                await client.asend(REFUSE, "no")
            assert caught.value.error == {"refused": "no"}
            await client.aemit(PLACED, Order("salt"), headers={"tenant": "acme"})
            await self.until(lambda: len(placed) == 2)
        tenant = "acme" if self.server_transport().headers else None
        assert sorted(placed, key=str) == [
            ("controller", Order("salt"), tenant),
            ("function", Order("salt"), tenant),
        ]

    async def test_same_calls_of_sync_code(self) -> None:
        """So does the sync code of a view, a task or a command."""
        from .handlers import COUNT, COUNT_SYNC, PLACE, PLACED, SUM, Order, placed

        placed.clear()

        def view(client: Any) -> tuple[Any, ...]:
            client.emit(PLACED, Order("salt"))
            return (
                client.send(SUM, [1, 2, 3]),
                client.send(PLACE, Order("tea")),
                list(client.stream(COUNT, 3)),
                list(client.stream(COUNT_SYNC, 3)),
            )

        async with self.service() as client:
            try:
                answers = await to_async(view)(client)
            finally:
                await to_async(client.close)()
            await self.until(lambda: len(placed) == 2)
        assert answers == (6, Order("TEA", 2), [0, 1, 2], [0, 1, 2])
