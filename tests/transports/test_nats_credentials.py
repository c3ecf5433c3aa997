"""Who a client of NATS is: passwords, tokens, and keys that sign."""

import base64
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nkeys
import pytest

from django_microservices import TransportRefused
from django_microservices.transports.nats import NATSTransport
from django_microservices.transports.nats.credentials import Credentials
from tests.brokers.nats import NATS, NATSProcess

NONCE = {"nonce": "xyz"}
NOBODY = urlsplit("nats://nats")
StartServer = Callable[..., NATS]


def answer(url: str = "nats://nats", **options: Any) -> dict[str, str]:
    """Return what is said of the user, to a server that wants no signature."""
    return Credentials(**options).answer({}, urlsplit(url))


async def enter(**options: Any) -> None:
    """Connect and leave."""
    async with NATSTransport(**options).servers.connected() as connection:
        assert await connection.ping()


class Key:
    """A key of an operator, an account or a user, as ``nsc`` makes them."""

    def __init__(self, kind: int) -> None:
        seed = nkeys.encode_seed(bytes(range(kind, kind + 32)), kind)
        self.seed: str = bytes(seed).decode()
        self.pair = nkeys.from_seed(bytearray(self.seed.encode()))
        self.public: str = self.pair.public_key.decode()

    def claim(self, subject: "Key", name: str, **claims: Any) -> str:
        """Sign a JWT about another key, or about oneself."""
        head = {"typ": "JWT", "alg": "ed25519-nkey"}
        body = {
            "jti": name,
            "iat": int(time.time()),
            "iss": self.public,
            "name": name,
            "sub": subject.public,
            "nats": {"version": 2, **claims},
        }
        signed = ".".join(_encoded(json.dumps(part).encode()) for part in (head, body))
        return f"{signed}.{_encoded(self.pair.sign(signed.encode()))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


OPERATOR = Key(nkeys.PREFIX_BYTE_OPERATOR)
ACCOUNT = Key(nkeys.PREFIX_BYTE_ACCOUNT)
USER = Key(nkeys.PREFIX_BYTE_USER)

MAY: dict[str, Any] = {"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1}
CREDENTIALS = f"""\
-----BEGIN NATS USER JWT-----
{ACCOUNT.claim(USER, "orders", type="user", **MAY)}
------END NATS USER JWT------

************************* IMPORTANT *************************

-----BEGIN USER NKEY SEED-----
{USER.seed}
------END USER NKEY SEED------
"""


class WithKey(NATSProcess):
    """A server that knows one user by its key."""

    def _security(self) -> dict[str, Any]:
        return {"authorization": {"users": [{"nkey": USER.public}]}}


class WithJWT(NATSProcess):
    """A server that trusts an operator."""

    def prepare(self) -> None:
        """Name the operator and the account; JetStream needs a system account."""
        super().prepare()
        limits = {"subs": -1, "data": -1, "payload": -1, "conn": -1, "leaf": -1}
        account = OPERATOR.claim(ACCOUNT, "shop", type="account", limits=limits)
        config = {
            "host": "127.0.0.1",
            "port": self.port,
            "operator": OPERATOR.claim(OPERATOR, "operator", type="operator"),
            "resolver": "MEMORY",
            "resolver_preload": {ACCOUNT.public: account},
        }
        self.write("nats.conf", json.dumps(config))


class KeyNATS(NATS):
    """The first."""

    kind = WithKey


class JWTNATS(NATS):
    """The second."""

    kind = WithJWT


# --- passwords and tokens ---------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, {}),
        ({"user": "me", "password": "p"}, {"user": "me", "pass": "p"}),
        ({"user": "me"}, {"user": "me", "pass": ""}),
        ({"token": "t"}, {"auth_token": "t"}),
        ({"url": "nats://me:p%40ss@nats"}, {"user": "me", "pass": "p@ss"}),
        ({"url": "nats://t%2Fk@nats"}, {"auth_token": "t/k"}),
        ({"url": "nats://me:p@nats", "token": "t"}, {"auth_token": "t"}),
        ({"url": "nats://a:b@nats", "user": "me"}, {"user": "me", "pass": ""}),
        ({"nkey_seed": USER.seed}, {}),  # nothing is to be signed
    ],
)
def test_what_is_said(options: dict[str, str], said: dict[str, str]) -> None:
    """Options count more than what stands in the URL."""
    assert answer(**options) == said


async def test_password(start_server: StartServer) -> None:
    """The right password opens, a wrong one is refused for good."""
    server = start_server(NATS, password="secret")
    await enter(url=server.url)
    plain = server.url.replace("tests:secret@", "")
    await enter(url=plain, user="tests", password="secret")
    for options in ({}, {"user": "tests", "password": "wrong"}, {"token": "x"}):
        with pytest.raises(TransportRefused, match="Authorization Violation") as caught:
            await enter(url=plain, **options)
        assert "wrong" not in str(caught.value)


# --- keys -------------------------------------------------------------------------


async def test_key(start_server: StartServer, tmp_path: Path) -> None:
    """A seed signs what the server asks, be it a text or in a file."""
    server = start_server(KeyNATS)
    path = tmp_path / "user.nk"
    path.write_text(USER.seed + "\n")
    for seed in (USER.seed, str(path)):
        await enter(url=server.url, nkey_seed=seed)
    with pytest.raises(TransportRefused):
        await enter(url=server.url)


async def test_credentials_file(start_server: StartServer, tmp_path: Path) -> None:
    """So does the file that ``nsc`` writes."""
    server = start_server(JWTNATS)
    path = tmp_path / "user.creds"
    path.write_text(CREDENTIALS)
    for credentials in (CREDENTIALS, str(path)):
        await enter(url=server.url, user_credentials=credentials)
    with pytest.raises(TransportRefused):
        await enter(url=server.url, nkey_seed=USER.seed)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"nkey_seed": "/nowhere.nk"}, "nkey_seed: the file cannot be read: No such"),
        ({"nkey_seed": "SU" + "1" * 56}, "seed of the user's NKEY cannot be used"),
        ({"nkey_seed": "nul\0.nk"}, "nkey_seed: the file cannot be read"),
        ({"user_credentials": "/nowhere.creds"}, "user_credentials: the file"),
        ({"user_credentials": "-----BEGIN NATS USER JWT-----"}, "no JWT"),
    ],
)
def test_key_that_cannot_be_used(options: dict[str, str], why: str) -> None:
    """No retry mends that; the seed is not shown."""
    with pytest.raises(TransportRefused, match=why) as caught:
        Credentials(**options).answer(NONCE, NOBODY)
    assert "1111" not in str(caught.value)


def test_keys_without_their_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "nkeys", None)
    with pytest.raises(TransportRefused, match="pip install"):
        Credentials(nkey_seed=USER.seed).answer(NONCE, NOBODY)
