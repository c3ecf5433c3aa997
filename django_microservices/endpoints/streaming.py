"""What becomes of one message whose handler answers with a stream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from django.core.exceptions import SynchronousOnlyOperation

from ..concurrency.tasks import start_task
from ..wire.context import current
from ..wire.messages import UNSET, Reply
from .delivery import TRAVELS, Delivery
from .observing import announce

TURN = 32  # items of a stream before the loop may do something else


class StreamDelivery(Delivery, eq=False):
    """One message with one handler that streams.

    A sync handler's stream takes no place: the number of stream threads bounds those.
    """

    is_stream: bool = True

    def start(self) -> None:
        """Begin to read the handler's items, which have no timeout but their own."""
        self.server.in_flight.add(self)
        if self.server.observed:
            self.started = announce(self)
        timeout = self.message.timeout
        if timeout is not None and timeout <= 0 and self.respond is not None:
            self.expire()  # its caller gave up while it waited for room
            return
        self.takes_place = self.route.is_async
        self.task = start_task(self.server.loop, self._stream())

    async def _stream(self) -> None:
        current.set(self.context)
        try:
            async with aclosing(await self._items()) as items:
                await self._send_items(items)
            self.reply = Reply(self.message.id)
        except BaseException as error:
            self._fail_on_loop(error)
            if isinstance(error, TRAVELS):
                raise
        else:
            self._end(self._own_outcome())

    async def _items(self) -> Any:
        route, context = self.route, self.context
        streams = self.server.streams
        if not route.is_async:
            return streams.stream(lambda: iter(route.call(context)))
        items = await route.call(context)
        if hasattr(items, "__aiter__"):
            return items if hasattr(items, "aclose") else _generator(items)
        return streams.stream(lambda: iter(items))

    async def _send_items(self, items: Any) -> None:
        id_, respond, timeout = self.message.id, self.respond, self.route.timeout
        encode_item, timers = self.route.encode, self.server.timers
        sent = 0
        while True:
            # No asyncio.timeout(): it would wait for a thread that hangs to end.
            if timeout is not None:
                self.bucket = timers.add(self, timeout)
            try:
                item = await anext(items)
            except StopAsyncIteration:
                break
            if self.bucket is not None:
                self.bucket.pop(self, None)
            if self.outcome is not None:
                break
            if respond is None:
                continue
            try:
                data = None if item is UNSET else encode_item(item)
            except SynchronousOnlyOperation:
                data = await self._encode_on_a_thread(item)
            waiting = respond(Reply(id_, data, None, last=False))
            sent += 1
            if waiting is not None:
                await waiting
            elif not sent % TURN:
                await asyncio.sleep(0)  # items that are all there hold up no other


async def _generator(items: Any) -> AsyncIterator[Any]:
    async for item in items:
        yield item
