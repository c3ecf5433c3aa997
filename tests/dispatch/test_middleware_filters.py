"""Exception filters, around answers and around streams."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from django_microservices import (
    Controller,
    RpcException,
    message_pattern,
    use_filters,
    use_guards,
)

from .composing import Composed, handler_of
from .pieces import (
    Recorder,
    async_stream,
    deny,
    fail,
    raise_again,
    sync_handler,
    sync_stream,
)


async def test_first_filter_answers(composed: Composed) -> None:
    """What a filter returns is the answer; those outside hear of nothing."""
    recorder = Recorder()

    class Filtered(Controller):
        filters = (recorder.part("outer", raise_again),)

        @use_filters(lambda error, context: f"{error} {context.data}")
        @message_pattern("a")
        def method(self, data: int) -> None:
            fail()

    assert await composed.answer(handler_of(Filtered.method, Filtered), 1) == "failed 1"
    assert recorder.notes == []


async def test_filter_raises_another_error(composed: Composed) -> None:
    """What a filter raises is the error."""

    def translate(error: Exception, context: Any) -> Any:
        raise RpcException({"code": 1}) from error

    def failing(data: Any) -> Any:
        fail()

    handler = handler_of(use_filters(translate)(message_pattern("a")(failing)))
    with pytest.raises(RpcException) as caught:
        await composed.answer(handler, 1)
    assert caught.value.error == {"code": 1}


async def test_filter_hears_of_guards(composed: Composed) -> None:
    """Filters stand outside of the guards."""
    told = use_filters(lambda error, context: type(error).__name__)
    handler = handler_of(told(use_guards(deny)(sync_handler())))
    assert await composed.answer(handler, 1) == "PermissionDenied"


def breaking_stream() -> Any:
    """Make a stream that fails after an item."""

    @message_pattern("a")
    def handler(data: int) -> Iterator[Any]:
        yield data
        fail()

    return handler


def async_breaking_stream() -> Any:
    """Make the same as an async generator."""

    @message_pattern("a")
    async def handler(data: int) -> AsyncIterator[Any]:
        yield data
        fail()

    return handler


def tell(error: Exception, context: Any) -> str:
    """Answer with the error's text."""
    return str(error)


async def atell(error: Exception, context: Any) -> str:
    """Answer with the error's text."""
    return str(error)


@pytest.mark.parametrize("filter_", [tell, atell])
@pytest.mark.parametrize("make", [breaking_stream, async_breaking_stream])
async def test_filter_of_a_stream(composed: Composed, make: Any, filter_: Any) -> None:
    """What a stream raises on its way reaches the filters: the last item is theirs."""
    handler = handler_of(use_filters(filter_)(make()))
    assert await composed.answer(handler, 1) == [1, "failed"]


@pytest.mark.parametrize("filter_", [tell, atell])
@pytest.mark.parametrize("make", [sync_stream, async_stream])
async def test_filter_of_a_stream_that_never_begins(
    composed: Composed, make: Any, filter_: Any
) -> None:
    """An error before the first item reaches them as well."""
    handler = handler_of(use_filters(filter_)(use_guards(fail)(make())))
    assert await composed.answer(handler, 1) == ["failed"]
