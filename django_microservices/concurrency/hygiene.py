"""What a pool thread keeps from message to message, and what it clears away.

Private names of asgiref and Django stand in this file only. Where one is gone, messages
become slower (new cache connections, longer look-ups) or lose the caller's language.
"""

import contextlib
import logging
import os
import threading
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable, Collection, Iterable
from contextvars import Context, ContextVar
from typing import Any

import asgiref.sync
from django.core.cache import caches
from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper

logger = logging.getLogger(__name__)

IDLE_BEFORE_CHECK = 1.0  # seconds without a query, then a connection is tried first


def adopt_loop(loop: AbstractEventLoop) -> None:
    """Let ``async_to_sync`` on this thread run its coroutines on ``loop``.

    Without this asgiref makes a thread and a loop for every call (8 ms, not 0.9).
    """
    local = asgiref.sync.SyncToAsync.threadlocal
    local.main_event_loop = loop
    local.main_event_loop_pid = os.getpid()


def _storage(handler: object) -> Any:
    """Find where asgiref keeps the objects of ``caches`` or ``connections``."""
    return getattr(getattr(handler, "_connections", None), "_storage", None)


# --- contexts ---------------------------------------------------------------------


def _copy_variables(context: Context) -> None:
    for variable, value in context.items():
        variable.set(value)


# Sets this context's variables to another's; what asgiref tags with a thread (language,
# time zone, caches) is moved to this one.
restore_context: Callable[[Context], None] = getattr(
    asgiref.sync, "_restore_context", _copy_variables
)


def _caches_variable() -> ContextVar[Any]:
    """Find the variable that holds a context's cache objects, or one that holds none.

    Looked up each time, because ``override_settings(CACHES=...)`` replaces it.
    """
    variable = getattr(_storage(caches), "_data", None)
    return variable if isinstance(variable, ContextVar) else ContextVar("no_caches")


def _own_caches() -> None:
    """Give this context an empty set of cache objects that belongs to this thread."""
    nothing: Any = None
    caches["unused"] = nothing
    del caches["unused"]


class Isolation:
    """Runs every message of one thread in a context of its own.

    Language, time zone and context variables end with the message; the thread's cache
    objects, and so their connections, stay. Made on the thread itself.
    """

    def __init__(self) -> None:
        self._variable = _caches_variable()
        self._base = Context()
        self._base.run(_own_caches)
        self._first = self._caches = self._base.get(self._variable)

    def run(self, function: Callable[[], object]) -> None:
        """Run ``function`` in a fresh context."""
        context = self._base.copy()
        try:
            context.run(function)
        finally:
            kept = context.get(self._variable)
            if kept is not self._caches:
                self._keep(kept)

    def _keep(self, storage: Any) -> None:
        self._caches = storage
        self._base.run(self._variable.set, storage)

    def close(self) -> None:
        """Close the thread's cache connections."""
        if self._caches is self._first:
            return
        try:
            self.run(caches.close_all)
        except Exception:
            logger.exception("A cache connection could not be closed.")


def run_in_context(context: Context, function: Callable[[], object]) -> None:
    """Run ``function`` on this thread in a context that another thread copied.

    Language, time zone and context variables are the caller's, the cache objects this
    thread's. Afterwards ``context`` holds what ``function`` changed.
    """
    variable = _caches_variable()
    storage = variable.get(None)
    variable.set(context.run(_run_rehomed, context, variable, storage, function))


def _run_rehomed(
    context: Context,
    variable: ContextVar[Any],
    storage: Any,
    function: Callable[[], object],
) -> Any:
    restore_context(context)
    token = variable.set(storage)
    try:
        function()
    finally:
        storage = variable.get()
        variable.reset(token)
    return storage


# --- databases --------------------------------------------------------------------


class Databases:
    """The database connections of one pool thread, made on that thread.

    ``opened`` is empty until the thread has used a database: then nothing here needs to
    be called. ``max_age`` (seconds) stands in for a CONN_MAX_AGE of 0; ``None`` is for
    ever, whatever that is.
    """

    def __init__(self, max_age: float | None) -> None:
        self._max_age = max_age
        self._used_at = 0.0
        self._own = _own_connections()
        self.opened: Collection[Any] = ("unknown",) if self._own is None else self._own

    def _connections(self) -> list[BaseDatabaseWrapper]:
        # A connection that a test shares between threads is in the test's transaction.
        return [
            connection
            for connection in self._initialized()
            if isinstance(connection, BaseDatabaseWrapper)
            and not connection.allow_thread_sharing
        ]

    def _initialized(self) -> Iterable[Any]:
        if self._own is None:
            return connections.all(initialized_only=True)
        return tuple(self._own.values())

    def before(self, now: float) -> None:
        """Try connections that were idle for a while, and close those that are dead."""
        if now - self._used_at > IDLE_BEFORE_CHECK:
            for connection in self._connections():
                _guarded(connection, _check)

    def after(self) -> None:
        """Leave nothing of this message behind: transactions, errors, query logs."""
        for connection in self._connections():
            _guarded(connection, self._tidy)
        self._used_at = time.monotonic()

    def _tidy(self, connection: BaseDatabaseWrapper) -> None:
        connection.queries_log.clear()
        if _is_in_transaction(connection):
            _abandon(connection)
        if self._max_age is None:
            connection.close_at = None
        elif connection.settings_dict["CONN_MAX_AGE"] == 0:
            self._prolong(connection, self._max_age)
        connection.close_if_unusable_or_obsolete()

    def _prolong(self, connection: BaseDatabaseWrapper, age: float) -> None:
        # A pool of the driver's gets its connection back after every message.
        if "pool" in connection.settings_dict["OPTIONS"]:
            return
        settings = {**connection.settings_dict, "CONN_MAX_AGE": age}
        connection.settings_dict = settings
        if connection.close_at is not None:
            connection.close_at += age

    def expire(self) -> None:
        """Close connections that are past their age."""
        for connection in self._connections():
            _guarded(connection, _expire)

    def expires_in(self) -> float:
        """Seconds until :meth:`expire` has something to do, -1 for never."""
        due = [
            connection.close_at
            for connection in self._connections()
            if connection.connection is not None and connection.close_at is not None
        ]
        return max(0.0, min(due) - time.monotonic()) if due else -1.0

    def close(self) -> None:
        """Close every connection of this thread."""
        for connection in self._connections():
            _guarded(connection, BaseDatabaseWrapper.close)


def _own_connections() -> dict[str, Any] | None:
    """Find the very dict that holds this thread's database connections."""
    storage = _storage(connections)
    return storage.__dict__ if isinstance(storage, threading.local) else None


def _guarded(
    connection: BaseDatabaseWrapper, step: Callable[[BaseDatabaseWrapper], object]
) -> None:
    try:
        step(connection)
    except Exception:
        logger.exception("Database %r: connection dropped.", connection.alias)
        connection.connection = None


def _check(connection: BaseDatabaseWrapper) -> None:
    connection.close_if_unusable_or_obsolete()
    if connection.connection is not None and not connection.is_usable():
        logger.info("Database %r: a dead connection is replaced.", connection.alias)
        with contextlib.suppress(Error):
            connection.close()


def _expire(connection: BaseDatabaseWrapper) -> None:
    connection.close_if_unusable_or_obsolete()
    if connection.connection is not None and _is_due(connection):
        connection.close_at = None  # SQLite in memory ignores close(): ask only once


def _is_due(connection: BaseDatabaseWrapper) -> bool:
    return connection.close_at is not None and connection.close_at <= time.monotonic()


def _is_in_transaction(connection: BaseDatabaseWrapper) -> bool:
    if connection.in_atomic_block:
        return True
    if connection.connection is None:
        return False
    autocommit = connection.settings_dict["AUTOCOMMIT"]
    return connection.get_autocommit() != autocommit or _has_begun(connection)


def _has_begun(connection: BaseDatabaseWrapper) -> bool:
    """Whether the driver knows of a transaction that Django does not (a raw BEGIN)."""
    raw = connection.connection
    if connection.vendor == "postgresql":
        status = getattr(getattr(raw, "info", None), "transaction_status", 0)
        return status in _POSTGRESQL_OPEN
    return bool(getattr(raw, "in_transaction", False))


_POSTGRESQL_OPEN = (1, 2, 3)  # libpq's PQTRANS_ACTIVE, _INTRANS, _INERROR


def _abandon(connection: BaseDatabaseWrapper) -> None:
    logger.warning(
        "Database %r: a handler left a transaction open; it is rolled back.",
        connection.alias,
    )
    # In an atomic block Django refuses to roll back, and close() only marks it.
    connection.in_atomic_block = False
    connection.closed_in_transaction = False
    connection.atomic_blocks.clear()
    connection.savepoint_ids.clear()
    with contextlib.suppress(Error):
        connection.rollback()
        connection.set_autocommit(connection.settings_dict["AUTOCOMMIT"])
    with contextlib.suppress(Error):
        connection.close()
