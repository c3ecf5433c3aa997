"""A pytest plugin: real servers as fixtures, started at the first use of each."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import pytest
import trustme
from django.db import connections
from pytest_django import DjangoDbBlocker

from .mosquitto import Mosquitto
from .nats import NATS
from .postgres import Postgres
from .process import ServerUnavailableError
from .rabbitmq import RabbitMQ
from .redis import Redis
from .server import Server

Kind = TypeVar("Kind", bound=Server[Any])


def give_up(reason: str) -> NoReturn:
    """Skip with one line; under CI nothing may be missing, so fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@contextlib.contextmanager
def running(start: Callable[[], Kind]) -> Iterator[Kind]:
    """Have a server inside the block; give up where there is none."""
    try:
        server = start()
    except ServerUnavailableError as error:
        give_up(str(error))
    try:
        yield server
    finally:
        server.close()


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
    with running(Postgres.open) as server:
        yield server


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


# --- message brokers --------------------------------------------------------------


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """Give a Redis, the environment's or ours."""
    with running(Redis.open) as server:
        yield server


@pytest.fixture(scope="session")
def nats_server() -> Iterator[NATS]:
    """Give a NATS with JetStream, the environment's or ours."""
    with running(NATS.open) as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitMQ]:
    """Give a RabbitMQ, the environment's or ours."""
    with running(RabbitMQ.open) as server:
        yield server


@pytest.fixture(scope="session")
def mqtt_server() -> Iterator[Mosquitto]:
    """Give an MQTT server, the environment's or ours."""
    with running(Mosquitto.open) as server:
        yield server


@pytest.fixture
def private_redis() -> Iterator[Redis]:
    """Give a fresh Redis, which the test may stop, kill and freeze."""
    with running(Redis.private) as server:
        yield server


@pytest.fixture
def private_nats() -> Iterator[NATS]:
    """Give a fresh NATS, which the test may stop, kill and freeze."""
    with running(NATS.private) as server:
        yield server


@pytest.fixture
def private_mqtt() -> Iterator[Mosquitto]:
    """Give a fresh MQTT server, which the test may stop, kill and freeze."""
    with running(Mosquitto.private) as server:
        yield server


@pytest.fixture(scope="session")
def _own_rabbitmq() -> Iterator[RabbitMQ]:
    with running(RabbitMQ.private) as server:
        yield server


@pytest.fixture
def private_rabbitmq(_own_rabbitmq: RabbitMQ) -> Iterator[RabbitMQ]:
    """Give a RabbitMQ which the test may stop, kill and freeze.

    It starts slowly, so that all tests get the same one, running, with what the tests
    before left in it.
    """
    _own_rabbitmq.recover()
    yield _own_rabbitmq
    _own_rabbitmq.recover()


@pytest.fixture(scope="session")
def start_server() -> Iterator[Callable[..., Any]]:
    """Return a function that starts servers with options, which end with the run.

    As ``start_server(Redis, password="secret", tls=certificates, mutual=True)``.
    """
    with contextlib.ExitStack() as stack:

        def start(kind: type[Kind], **options: Any) -> Kind:
            return stack.enter_context(running(lambda: kind.private(**options)))

        yield start


# --- certificates -----------------------------------------------------------------


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Paths of PEM files: ``ca``, and key and cert of a server and of a client.

    The server is `localhost` and 127.0.0.1, the client is `orders`.
    """
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    issued = {
        "server": authority.issue_cert("localhost", "127.0.0.1"),
        "client": authority.issue_cert("orders", common_name="orders"),
    }
    paths = {"ca": str(folder / "ca.pem")}
    authority.cert_pem.write_to_path(paths["ca"])
    for name, leaf in issued.items():
        key, cert = str(folder / f"{name}.key"), str(folder / f"{name}.pem")
        leaf.private_key_pem.write_to_path(key)
        leaf.cert_chain_pems[0].write_to_path(cert)
        paths |= {f"{name}_key": key, f"{name}_cert": cert}
    return paths
