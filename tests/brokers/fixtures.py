"""A pytest plugin: real servers as fixtures, started at the first use of each."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest
from django.db import connections
from pytest_django import DjangoDbBlocker

from .postgres import Postgres, open_postgres
from .process import ServerUnavailableError


def give_up(reason: str) -> NoReturn:
    """Skip with one line; under CI nothing may be missing, so fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@contextlib.contextmanager
def django_database(alias: str, settings: dict[str, Any]) -> Iterator[str]:
    """Have a Django database under ``alias`` inside the block."""
    entries = connections.configure_settings({"default": {}, alias: settings})
    connections.settings[alias] = entries[alias]
    try:
        yield alias
    finally:
        for connection in connections.all(initialized_only=True):
            if connection.alias == alias:
                connection.close()
                del connections[alias]
        del connections.settings[alias]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Start a real PostgreSQL server, or use the environment's."""
    try:
        server = open_postgres()
    except ServerUnavailableError as error:
        give_up(str(error))
    yield server
    server.close()


@pytest.fixture
def private_postgres(postgres: Postgres) -> Iterator[Postgres]:
    """Give a PostgreSQL that the test may stop; it runs again afterwards."""
    if postgres.process is None:
        give_up("TEST_POSTGRES_URL names a server that the tests may not stop.")
    yield postgres
    postgres.restart()


@pytest.fixture
def postgres_alias(
    postgres: Postgres, django_db_blocker: DjangoDbBlocker
) -> Iterator[str]:
    """Give the alias of a Django database there, without a test transaction."""
    with (
        django_db_blocker.unblock(),
        django_database("postgres", postgres.settings) as alias,
    ):
        yield alias
