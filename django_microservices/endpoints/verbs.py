"""What one calls on a client: each verb once for sync callers, and once as a twin."""

import logging
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar, Unpack, overload

from django.db import transaction

from ..concurrency.adapt import to_async
from ..concurrency.once import Once
from ..concurrency.portal import refuse_inside_loop
from ..wire.contracts import AnyPattern, Event, Request
from ..wire.messages import UNSET, new_id
from ..wire.text import shown
from .arguments import DEFAULT, EmitOptions, Options, Timeout
from .calls import Call, StreamCall
from .exchange import Exchange, as_it_arrives
from .layers import Layers

logger = logging.getLogger(__name__)

In = TypeVar("In")
Out = TypeVar("Out")


class Verbs:
    """The verbs of a :class:`Client`, as type checkers read them."""

    _exchange: Exchange | Layers | None
    _once: Once[Exchange | Layers]

    def _call(self, *args: Any, **kwargs: Any) -> Call:
        raise NotImplementedError

    # --- verbs that wait for an answer ---

    @overload
    def send(
        self, pattern: Request[In, Out], data: In, **options: Unpack[Options]
    ) -> Out: ...
    @overload
    def send(
        self,
        pattern: AnyPattern | Request[Any, Any],
        data: Any = ...,
        *,
        returns: type[Out],
        **options: Unpack[Options],
    ) -> Out: ...
    @overload
    def send(
        self,
        pattern: AnyPattern,
        data: Any = ...,
        *,
        returns: Any = ...,
        **options: Unpack[Options],
    ) -> Any: ...
    def send(
        self,
        pattern: Any,
        data: Any = None,
        *,
        returns: Any = None,
        timeout: Timeout = DEFAULT,
        headers: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        """Send a request and return its answer; of a stream, the last item."""
        refuse_inside_loop("send", "asend")
        exchange = self._exchange or self._once.get()
        return exchange.run(
            self._call(
                Call, new_id(), pattern, data, returns, timeout, headers, options
            )
        )

    @overload
    async def asend(
        self, pattern: Request[In, Out], data: In, **options: Unpack[Options]
    ) -> Out: ...
    @overload
    async def asend(
        self,
        pattern: AnyPattern | Request[Any, Any],
        data: Any = ...,
        *,
        returns: type[Out],
        **options: Unpack[Options],
    ) -> Out: ...
    @overload
    async def asend(
        self,
        pattern: AnyPattern,
        data: Any = ...,
        *,
        returns: Any = ...,
        **options: Unpack[Options],
    ) -> Any: ...
    async def asend(
        self,
        pattern: Any,
        data: Any = None,
        *,
        returns: Any = None,
        timeout: Timeout = DEFAULT,  # noqa: ASYNC109 - travels with the call
        headers: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        """Send a request and return its answer; of a stream, the last item."""
        exchange = self._exchange or await self._once.aget()
        return await exchange.arun(
            self._call(
                Call, new_id(), pattern, data, returns, timeout, headers, options
            )
        )

    @overload
    def stream(
        self, pattern: Request[In, Out], data: In, **options: Unpack[Options]
    ) -> Iterator[Out]: ...
    @overload
    def stream(
        self,
        pattern: AnyPattern | Request[Any, Any],
        data: Any = ...,
        *,
        returns: type[Out],
        **options: Unpack[Options],
    ) -> Iterator[Out]: ...
    @overload
    def stream(
        self,
        pattern: AnyPattern,
        data: Any = ...,
        *,
        returns: Any = ...,
        **options: Unpack[Options],
    ) -> Iterator[Any]: ...
    def stream(
        self,
        pattern: Any,
        data: Any = None,
        *,
        returns: Any = None,
        timeout: Timeout = DEFAULT,
        headers: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Iterator[Any]:
        """Send a request and iterate its answers; ``timeout`` bounds each wait.

        Closing the iterator cancels the stream on the other side.
        """
        refuse_inside_loop("stream", "astream")
        exchange = self._exchange or self._once.get()
        call = self._call(
            StreamCall, new_id(), pattern, data, returns, timeout, headers, options
        )
        items: Iterator[Any] = exchange.run(call)
        return items

    @overload
    def astream(
        self, pattern: Request[In, Out], data: In, **options: Unpack[Options]
    ) -> AsyncGenerator[Out, None]: ...
    @overload
    def astream(
        self,
        pattern: AnyPattern | Request[Any, Any],
        data: Any = ...,
        *,
        returns: type[Out],
        **options: Unpack[Options],
    ) -> AsyncGenerator[Out, None]: ...
    @overload
    def astream(
        self,
        pattern: AnyPattern,
        data: Any = ...,
        *,
        returns: Any = ...,
        **options: Unpack[Options],
    ) -> AsyncGenerator[Any, None]: ...
    async def astream(
        self,
        pattern: Any,
        data: Any = None,
        *,
        returns: Any = None,
        timeout: Timeout = DEFAULT,  # noqa: ASYNC109 - travels with the call
        headers: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[Any, None]:
        """Send a request and iterate its answers; ``timeout`` bounds each wait."""
        exchange = self._exchange or await self._once.aget()
        call = self._call(
            StreamCall, new_id(), pattern, data, returns, timeout, headers, options
        )
        async with aclosing(await exchange.arun(call)) as items:
            async for item in items:
                yield item

    # --- verbs that do not wait ---

    @overload
    def emit(
        self,
        pattern: Event[In] | Request[In, Any],
        data: In,
        **options: Unpack[EmitOptions],
    ) -> None: ...
    @overload
    def emit(
        self, pattern: AnyPattern, data: Any = ..., **options: Unpack[EmitOptions]
    ) -> None: ...
    def emit(
        self,
        pattern: Any,
        data: Any = None,
        *,
        on_commit: bool = False,
        using: str | None = None,
        timeout: Timeout = DEFAULT,
        headers: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Send an event; return once the wire has it.

        ``on_commit=True`` sends it, as it is now, after the transaction of database
        ``using``. Where it then cannot be sent that is logged, and not raised: the
        transaction is committed. For events that must not be lost there is the outbox.
        """
        refuse_inside_loop("emit", "aemit")
        exchange = self._exchange or self._once.get()
        call = self._call(Call, UNSET, pattern, data, None, timeout, headers, options)
        if on_commit:
            call.data = as_it_arrives(call)
            transaction.on_commit(partial(_run_committed, exchange, call), using=using)
        else:
            exchange.run(call)

    @overload
    async def aemit(
        self,
        pattern: Event[In] | Request[In, Any],
        data: In,
        **options: Unpack[EmitOptions],
    ) -> None: ...
    @overload
    async def aemit(
        self, pattern: AnyPattern, data: Any = ..., **options: Unpack[EmitOptions]
    ) -> None: ...
    async def aemit(
        self,
        pattern: Any,
        data: Any = None,
        *,
        on_commit: bool = False,
        using: str | None = None,
        timeout: Timeout = DEFAULT,  # noqa: ASYNC109 - travels with the call
        headers: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Send an event; return once the wire has it."""
        exchange = self._exchange or await self._once.aget()
        call = self._call(Call, UNSET, pattern, data, None, timeout, headers, options)
        if on_commit:
            call.data = as_it_arrives(call)
            later = to_async(transaction.on_commit)
            await later(partial(_run_committed, exchange, call), using=using)
        else:
            await exchange.arun(call)


def _run_committed(exchange: Exchange | Layers, call: Call) -> None:
    """Send an event of a transaction that is committed.

    An error would tell whoever committed that all of it failed, and a handler's caller
    to try again.
    """
    try:
        exchange.run(call)
    except Exception:
        pattern = shown(call.pattern.route)
        logger.exception("Client %r: %s was not sent on commit.", call.client, pattern)
