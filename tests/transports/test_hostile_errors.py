"""What an error tells a peer: row 55."""

import json
import logging
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from django.core.exceptions import FieldError, ImproperlyConfigured
from django.db import DatabaseError, IntegrityError, OperationalError
from django.test import override_settings

from django_microservices import (
    MessageTimeout,
    RemoteError,
    message_pattern,
)
from django_microservices.exceptions import InvalidMessage
from tests.endpoints.ends import serving

from .peers import Peer

# --- 55: what an error tells ---


SECRETS = ("s3cret", "/srv/app", "SELECT", "Traceback", "not a secret", ".py")


class Unprintable(Exception):
    """An exception whose text cannot be had."""

    def __str__(self) -> str:
        raise ZeroDivisionError("s3cret")


def chained(error: BaseException) -> BaseException:
    """Give an error a cause and notes."""
    error.__cause__ = ValueError("s3cret cause")
    error.add_note("s3cret note")
    return error


ERRORS: list[Callable[[], BaseException]] = [
    lambda: Exception("s3cret"),
    lambda: KeyError("s3cret"),
    lambda: FileNotFoundError(2, "No such file", "/srv/app/settings.py"),
    lambda: OperationalError("SELECT * FROM s3cret"),
    lambda: IntegrityError("SELECT s3cret"),
    lambda: DatabaseError("SELECT s3cret"),
    lambda: FieldError("Cannot resolve s3cret"),
    lambda: ImproperlyConfigured("SECRET_KEY = 'not a secret'"),
    lambda: InvalidMessage("s3cret"),
    lambda: MessageTimeout("s3cret"),
    lambda: RemoteError({"s3cret": "of another service"}),
    lambda: TimeoutError("s3cret"),
    lambda: AssertionError("s3cret"),
    lambda: RecursionError("s3cret"),
    lambda: UnicodeDecodeError("utf-8", b"s3cret", 0, 1, "s3cret"),
    lambda: ExceptionGroup("s3cret", [ValueError("s3cret")]),
    lambda: StopIteration("s3cret"),
    lambda: MemoryError("s3cret"),
    lambda: TypeError("s3cret() missing 1 required positional argument: 'SELECT'"),
    lambda: chained(RuntimeError("s3cret")),
    Unprintable,
]


def error_of(number: int) -> BaseException:
    """Make one of the errors."""
    return ERRORS[number % len(ERRORS)]()


@message_pattern("raise")
async def raise_(data: int) -> None:
    """Raise an error of the list."""
    raise error_of(data)


@message_pattern("raise-in-thread")
def raise_in_thread(data: int) -> None:
    """Raise on a thread."""
    raise error_of(data)


@message_pattern("raise-later")
async def raise_later(data: int) -> AsyncIterator[int]:
    """Raise after an item."""
    yield data
    raise error_of(data)


@message_pattern("unencodable")
async def unencodable(data: int) -> Any:
    """Answer with what cannot travel."""
    return [object(), {("s3cret",): 1}, {1j: "s3cret"}][data % 3]


RAISING = ("raise", "raise-in-thread", "raise-later", "unencodable")


@pytest.mark.parametrize("debug", [True, False])
async def test_errors_tell_nothing(port: int, debug: bool) -> None:  # noqa: FBT001
    """Of 10,000 errors none tells a text, a path, SQL or a setting, whatever DEBUG.

    Half of them come on each of the two loops.
    """
    handlers = (raise_, raise_in_thread, raise_later, unencodable)
    chance = random.Random(55)
    logging.disable(logging.CRITICAL)
    try:
        with override_settings(DEBUG=debug):
            async with serving(port, *handlers):
                peer = await Peer.connect(port)
                seen = await all_errors(peer, chance, 5_000)
                peer.close()
    finally:
        logging.disable(logging.NOTSET)
    assert seen == {"Internal server error", "The handler ran out of time."}


async def all_errors(peer: Peer, chance: random.Random, count: int) -> set[str]:
    """Have ``count`` calls fail, some with odd payloads; return the messages."""
    messages: set[str] = set()
    ended = 0
    for start in range(0, count, 100):
        for number in range(start, start + 100):
            data = chance.randrange(10_000)
            peer.request(data, str(number), pattern=chance.choice(RAISING))
        while ended < start + 100:
            packet = await peer.read()
            text = json.dumps(packet)
            assert not any(secret in text for secret in SECRETS), text
            if "err" in packet:
                ended += 1
                assert packet["err"].keys() == {"status", "message"}
                messages.add(packet["err"]["message"])
    return messages
