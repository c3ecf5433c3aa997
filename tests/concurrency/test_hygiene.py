"""What a pool thread keeps and clears away: contexts, and connections by hand."""

import logging
from contextvars import copy_context
from types import SimpleNamespace
from typing import Any, cast

import asgiref.sync
import pytest
from django.core.cache import caches
from django.db import OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import translation
from pytest_django import DjangoDbBlocker

from django_microservices.concurrency import hygiene
from django_microservices.concurrency.hygiene import (
    Databases,
    Isolation,
    restore_context,
    run_in_context,
)
from tests.brokers.fixtures import django_database

from .work import on_thread, select, tenant

# --- contexts ---------------------------------------------------------------------


def test_messages_see_nothing_of_each_other() -> None:
    """A context variable that one message sets is unset for the next."""

    def two_messages() -> str:
        isolation = Isolation()
        isolation.run(lambda: tenant.set("acme"))
        seen: list[str] = []
        isolation.run(lambda: seen.append(tenant.get()))
        return seen[0]

    assert on_thread(two_messages) == "nobody"


def test_caches_stay_on_the_thread() -> None:
    """Cache objects are made once for each thread."""

    def two_messages() -> list[Any]:
        isolation = Isolation()
        seen: list[Any] = []
        for _ in range(2):
            isolation.run(lambda: seen.append(caches["default"]))
        return seen

    first, second = on_thread(two_messages)
    assert first is second
    assert on_thread(two_messages)[0] is not first


def test_caches_stay_after_a_failure() -> None:
    """Cache objects of a message that raised are kept too."""

    def fail(seen: list[Any]) -> None:
        seen.append(caches["default"])
        message = "after all"
        raise ValueError(message)

    def two_messages() -> list[Any]:
        isolation = Isolation()
        seen: list[Any] = []
        with pytest.raises(ValueError, match="after all"):
            isolation.run(lambda: fail(seen))
        isolation.run(lambda: seen.append(caches["default"]))
        return seen

    first, second = on_thread(two_messages)
    assert first is second


def test_unused_caches_are_not_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that made no cache connection has none to close."""
    closed: list[int] = []
    monkeypatch.setattr(caches, "close_all", lambda: closed.append(1))
    on_thread(lambda: Isolation().close())
    assert closed == []


def test_cache_that_cannot_be_closed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error at the end of a thread is logged."""

    def fail() -> None:
        message = "server away"
        raise OSError(message)

    def message_and_end() -> None:
        isolation = Isolation()
        isolation.run(lambda: caches["default"])
        monkeypatch.setattr(caches, "close_all", fail)
        isolation.close()

    on_thread(message_and_end)
    assert "A cache connection could not be closed" in caplog.text


def test_callers_context_moves_to_the_thread() -> None:
    """What asgiref tags with a thread, the language, is seen on another one."""
    seen: list[str | None] = []
    with translation.override("de"):
        context = copy_context()
    on_thread(
        lambda: run_in_context(context, lambda: seen.append(translation.get_language()))
    )
    assert seen == ["de"]


def test_asgiref_has_the_private_names() -> None:
    """The names on which speed and languages rest are where this file looks."""
    assert restore_context is asgiref.sync._restore_context
    assert hygiene._storage(caches)._data is hygiene._caches_variable()
    assert hygiene._own_connections() is not None


def test_without_the_private_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where asgiref renames its storage, each message makes its own cache objects."""
    monkeypatch.setattr(hygiene, "_storage", lambda handler: None)

    def two_messages() -> list[Any]:
        isolation = Isolation()
        seen: list[Any] = []
        for _ in range(2):
            isolation.run(lambda: seen.append(caches["default"]))
        isolation.close()
        return seen

    first, second = on_thread(two_messages)
    assert first is not second


def test_variables_move_without_the_private_helper() -> None:
    """Where asgiref renames its helper, context variables still travel."""
    tenant.set("acme")
    context = copy_context()
    tenant.set("nobody")
    hygiene._copy_variables(context)
    assert tenant.get() == "acme"


# --- databases: by hand -----------------------------------------------------------


def test_thread_without_a_database_has_nothing_to_do() -> None:
    """``opened`` is false until the thread has used a database."""
    assert on_thread(lambda: len(Databases(60.0).opened)) == 0


def test_memory_is_asked_to_close_once(django_db_blocker: DjangoDbBlocker) -> None:
    """SQLite in memory, which ignores close(), does not keep a thread awake."""

    def expire() -> tuple[float, float]:
        databases = Databases(0.0)
        select("memory")
        databases.after()
        before = databases.expires_in()
        databases.expire()
        after = databases.expires_in()
        connections["memory"].connection.close()
        return before, after

    settings = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    with django_db_blocker.unblock(), django_database("memory", settings):
        assert on_thread(expire) == (0.0, -1.0)


class Fake:
    """A connection of a driver that is none of ours."""

    vendor = "mysql"
    alias = "fake"
    allow_thread_sharing = False
    in_atomic_block = False

    def __init__(self, **options: Any) -> None:
        self.connection: Any = SimpleNamespace()
        self.settings_dict = {"AUTOCOMMIT": True, "CONN_MAX_AGE": 0, "OPTIONS": options}
        self.queries_log: list[Any] = []
        self.close_at: float | None = 0.0

    def get_autocommit(self) -> bool:
        """Stand outside of a transaction."""
        return True

    def close_if_unusable_or_obsolete(self) -> None:
        """Stay open."""

    def is_usable(self) -> bool:
        """Be dead."""
        return False

    def close(self) -> None:
        """Fail, as the connection is gone, but be closed."""
        self.connection = None
        message = "gone"
        raise OperationalError(message)


def tidied(fake: Fake, max_age: float = 60.0) -> Fake:
    """Tidy a connection up after a message."""
    Databases(max_age)._tidy(cast("BaseDatabaseWrapper", fake))
    return fake


def test_pooled_connection_goes_back() -> None:
    """A connection from the driver's pool is not kept by the thread."""
    assert tidied(Fake(pool=True)).settings_dict["CONN_MAX_AGE"] == 0


def test_unknown_driver_is_asked_for_nothing() -> None:
    """A driver that tells nothing of its transactions is believed to have none."""
    assert tidied(Fake()).connection is not None


def test_connection_without_an_end_needs_none() -> None:
    """A connection that was never opened has no age to prolong."""
    fake = Fake()
    fake.close_at = None
    assert tidied(fake).close_at is None


def test_dead_connection_that_cannot_be_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Closing a dead connection may fail: it is closed all the same."""
    caplog.set_level(logging.INFO)
    fake = Fake()
    hygiene._check(cast("BaseDatabaseWrapper", fake))
    assert fake.connection is None
    assert "Database 'fake': a dead connection is replaced" in caplog.text


def test_failing_hygiene_drops_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    """A connection that cannot be tidied is logged and dropped."""
    fake = Fake()
    hygiene._guarded(
        cast("BaseDatabaseWrapper", fake), lambda connection: connection.close()
    )
    assert fake.connection is None
    assert "Database 'fake': connection dropped" in caplog.text
