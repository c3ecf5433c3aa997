"""A handler that waits a turn of the loop inside a timeout, as one that calls does."""

import asyncio

from django_microservices import message_pattern


@message_pattern({"cmd": "sum"})
async def accumulate(data: list[int]) -> int:
    """Add up, a turn later."""
    async with asyncio.timeout(5):
        await asyncio.sleep(0)
    return sum(data)
