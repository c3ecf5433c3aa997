"""The memory transport in a user's tests: settings at once, one transaction."""

import threading
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connection
from django.test import SimpleTestCase, TestCase, override_settings
from django.utils import translation

from django_microservices import (
    UNSET,
    EncodingError,
    InvalidReply,
    NoHandler,
    RemoteError,
    clients,
)

users = clients["USERS"]  # kept at module level, made before any settings

MEMORY = "django_microservices.transports.MemoryTransport"
SETTINGS: dict[str, Any] = {
    "SERVERS": {
        "default": {"TRANSPORT": MEMORY, "HANDLERS": ["tests.testing.handlers"]}
    },
    "CLIENTS": {"USERS": {"TRANSPORT": MEMORY}},
}
OTHER: dict[str, Any] = {
    **SETTINGS,
    "SERVERS": {"default": {"TRANSPORT": MEMORY, "HANDLERS": ["tests.handlers_app"]}},
}
NAMES = ["Ada", "Ada again"]


@override_settings(MICROSERVICES=SETTINGS)
class SyncTests(TestCase):
    """Sync tests, as most projects have them."""

    def test_handler_is_in_the_transaction(self) -> None:
        """A handler sees what the test did, and the test what the handler did."""
        User.objects.create(username="Ada")
        pk = users.send("users.create", "Bob")
        assert users.send("users.names") == ["Ada", "Bob"]
        assert User.objects.get(pk=pk).username == "Bob"
        assert connection.in_atomic_block

    def test_transaction_of_the_last_test_is_gone(self) -> None:
        """What another test's handlers wrote is rolled back with that test."""
        assert users.send("users.names") == []

    def test_async_handler_is_in_the_transaction(self) -> None:
        """An async handler's ORM calls are, too."""
        User.objects.create(username="Ada")
        assert users.send("users.anames") == ["Ada"]

    def test_atomic_handler(self) -> None:
        """A handler's own transaction is a savepoint in the test's."""
        with pytest.raises(RemoteError, match="taken back"):
            users.send("users.create.atomic", "Ada")
        assert not User.objects.exists()

    def test_emit(self) -> None:
        """An event's handlers are done when it is emitted."""
        users.emit("users.joined", "Ada")
        assert sorted(users.send("users.names")) == NAMES

    def test_emit_on_commit(self) -> None:
        """An event that waits for the transaction is sent by its commit."""
        with self.captureOnCommitCallbacks(execute=True):
            users.emit("users.joined", "Ada", on_commit=True)
            assert not User.objects.exists()
        assert sorted(users.send("users.names")) == NAMES

    def test_stream(self) -> None:
        """A stream's items come from the same transaction."""
        User.objects.create(username="Ada")
        assert list(users.stream("users.stream")) == ["Ada"]

    def test_long_stream(self) -> None:
        """A stream that never pauses does not run away from its reader."""
        assert sum(1 for _ in users.stream("count", 5000)) == 5000

    def test_items_before_an_error(self) -> None:
        """What a stream yielded before it failed is read first."""
        items = users.stream("break", 1)
        assert next(items) == 1
        with pytest.raises(RemoteError, match="broken"):
            next(items)

    def test_caller_is_on_the_same_thread(self) -> None:
        """A sync handler runs on the caller's thread, in the caller's language."""
        with translation.override("de"):
            answer = users.send("place", headers={"x": "y"})
        assert answer == [threading.current_thread().name, "de", "y"]

    def test_error(self) -> None:
        """An error travels as ever: no text of an exception leaves the handler."""
        with (
            pytest.raises(RemoteError) as caught,
            self.assertLogs("django_microservices"),
        ):
            users.send("fail")
        expected = {"status": "error", "message": "Internal server error"}
        assert caught.value.error == expected

    def test_no_handler(self) -> None:
        """A pattern that nobody has is told."""
        with pytest.raises(NoHandler), self.assertLogs("django_microservices"):
            users.send("nobody")

    def test_codec(self) -> None:
        """What cannot travel does not, and a type that is asked for is checked."""
        with pytest.raises(EncodingError):
            users.send("users.names", object())
        with pytest.raises(InvalidReply):
            users.send("users.names", returns=int)

    def test_settings_follow_at_once(self) -> None:
        """A client that is kept at module level follows the settings, and back."""
        assert users.send("users.names") == []
        with override_settings(MICROSERVICES=OTHER):
            assert users.send("greet", "you") == "Hello you"
            with pytest.raises(NoHandler), self.assertLogs("django_microservices"):
                users.send("users.names")
        assert users.send("users.names") == []

    def test_connect(self) -> None:
        """Connecting and closing do no harm."""
        users.connect()
        users.close()
        assert users.send("users.names") == []


@override_settings(MICROSERVICES=SETTINGS)
class AsyncTests(TestCase):
    """Async tests."""

    async def test_handler_is_in_the_transaction(self) -> None:
        """Sync and async handlers see what the test did."""
        await User.objects.acreate(username="Ada")
        assert await users.asend("users.names") == ["Ada"]
        assert await users.asend("users.anames") == ["Ada"]

    async def test_emit(self) -> None:
        """An event's handlers are done when it is emitted."""
        await users.aemit("users.joined", "Ada")
        assert sorted(await users.asend("users.names")) == NAMES

    async def test_stream(self) -> None:
        """Streams work, sync and async, however long."""
        await User.objects.acreate(username="Ada")
        assert [name async for name in users.astream("users.stream")] == ["Ada"]
        assert [n async for n in users.astream("count", 5000)] == list(range(5000))

    async def test_items_before_an_error(self) -> None:
        """What a stream yielded before it failed is read first."""
        items = users.astream("break", 1)
        assert await anext(items) == 1
        with pytest.raises(RemoteError, match="broken"):
            await anext(items)

    async def test_sync_verb_is_refused(self) -> None:
        """A sync verb in a running loop names its twin, as in production."""
        with pytest.raises(SynchronousOnlyOperation, match="asend"):
            users.send("users.names")

    async def test_connect(self) -> None:
        """Connecting and closing do no harm."""
        await users.aconnect()
        await users.aclose()
        assert await users.asend("users.names") == []


@override_settings(MICROSERVICES=SETTINGS)
class WithoutDatabase(SimpleTestCase):
    """Tests without a database."""

    def test_answer_without_a_value(self) -> None:
        """Nothing at all is not null."""
        assert users.send("count", 0) is UNSET


@pytest.mark.django_db
def test_pytest(settings: Any) -> None:
    """A pytest function has the same, with pytest-django's fixtures."""
    settings.MICROSERVICES = SETTINGS
    users.send("users.create", "Ada")
    assert User.objects.get().username == "Ada"


@pytest.mark.django_db(transaction=True)
async def test_async_pytest(settings: Any) -> None:
    """An async pytest function, too."""
    settings.MICROSERVICES = SETTINGS
    await users.asend("users.create", "Ada")
    assert (await User.objects.aget()).username == "Ada"


def test_settings_are_back(settings: Any) -> None:
    """After the tests above the client knows nothing of their settings."""
    settings.MICROSERVICES = {"CLIENTS": {}}
    with pytest.raises(Exception, match="USERS"):
        users.send("users.names")
