"""A message whose handler, or answer, uses the database."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.db import transaction

from tests.endpoints.peer import INTERNAL, Start


@pytest.mark.usefixtures("database")
async def test_atomic_stream(start: Start) -> None:
    """A stream with ``atomic`` runs whole in one transaction."""

    def stream(data: Any) -> Iterator[bool]:
        for _ in range(3):
            yield transaction.get_connection().in_atomic_block

    peer = await start(stream, options={"atomic": True})
    await peer.ask()
    assert peer.items == [True, True, True]


@pytest.mark.usefixtures("database")
async def test_atomic(start: Start) -> None:
    """So does a request's handler."""

    def inside(data: Any) -> bool:
        return bool(transaction.get_connection().in_atomic_block)

    assert await (await start(inside, options={"atomic": True})).ask() is True


class TypeOut(msgspec.Struct):
    """What an answer shows of a content type."""

    model: str


class PermissionOut(msgspec.Struct):
    """What an answer shows of a permission, with the row that it points to."""

    codename: str
    content_type: TypeOut


ROWS = pytest.mark.django_db(transaction=True)


@pytest.fixture
def type_id(transactional_db: None) -> int:
    """Give the key of a row."""
    return ContentType.objects.get(app_label="auth", model="user").pk


@ROWS
async def test_async_handler_that_answers_with_rows(start: Start, type_id: int) -> None:
    """Rows that ``response=`` has yet to fetch are fetched on a thread."""

    async def rows(data: Any) -> Any:
        return ContentType.objects.filter(pk=type_id)

    peer = await start(rows, options={"response": list[TypeOut]})
    assert await peer.ask() == [{"model": "user"}]


@ROWS
async def test_stream_of_rows(start: Start, type_id: int) -> None:
    """And so are those to which an item points."""

    async def stream(data: Any) -> AsyncIterator[Any]:
        yield Permission(codename="fly", content_type_id=type_id)

    peer = await start(stream, options={"response": PermissionOut})
    await peer.ask()
    assert peer.items == [{"codename": "fly", "content_type": {"model": "user"}}]


@ROWS
async def test_rows_without_a_shape(
    start: Start, type_id: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler's own query on the loop is its defect, as everywhere in Django."""

    async def rows(data: Any) -> Any:
        return list(ContentType.objects.filter(pk=type_id))

    assert await (await start(rows)).ask() == INTERNAL
    assert "SynchronousOnlyOperation" in caplog.text
