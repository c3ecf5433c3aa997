"""Who a client is: what CONNECT says of it, signed where the server asks for that.

Sources: https://docs.nats.io/running-a-nats-service/configuration/securing_nats and
the ``CONNECT`` message of the client protocol.
"""

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote

from ...exceptions import TransportRefused

_JWT = re.compile(r"-+BEGIN NATS USER JWT-+\s+(\S+)\s+-+END")
_SEED = re.compile(r"-+BEGIN USER NKEY SEED-+\s+(\S+)\s+-+END")


class Credentials:
    """What options say of the user; files are read at each connect, as they change.

    ``user_credentials`` and ``nkey_seed`` are a path or the text itself.
    """

    def __init__(
        self,
        *,
        user: str | None = None,
        password: str | None = None,
        token: str | None = None,
        user_credentials: str | None = None,
        nkey_seed: str | None = None,
    ) -> None:
        self.user = user
        self.password = password
        self.token = token
        self.user_credentials = user_credentials
        self.nkey_seed = nkey_seed

    def answer(self, info: Mapping[str, Any], server: SplitResult) -> dict[str, str]:
        """Return the members of CONNECT that say who we are.

        Raises :class:`TransportRefused` for a file that cannot be used.
        """
        found = self._signed(str(info.get("nonce", "")))
        if self.token is not None:
            found["auth_token"] = self.token
        if self.user is not None:
            found |= {"user": self.user, "pass": self.password or ""}
        elif server.username and not found:
            found = _of_url(server)
        return found

    def _signed(self, nonce: str) -> dict[str, str]:
        """Sign the server's nonce, where it asks for that and we have a key."""
        if not nonce:
            return {}
        if self.user_credentials is not None:
            text = _text("user_credentials", self.user_credentials)
            seed = _found(_SEED, text)
            return {"jwt": _found(_JWT, text), **_signature(seed, nonce)}
        if self.nkey_seed is not None:
            return _signature(_text("nkey_seed", self.nkey_seed).strip(), nonce)
        return {}


def _of_url(server: SplitResult) -> dict[str, str]:
    user = unquote(server.username or "")
    if server.password is None:
        return {"auth_token": user}
    return {"user": user, "pass": unquote(server.password)}


def _text(option: str, given: str) -> str:
    """Return the text that an option is, or that stands in the file it names."""
    if given.startswith(("-----BEGIN", "SU")):
        return given
    try:
        return Path(given).read_text()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        message = f"{option}: the file cannot be read: {reason}"
        raise TransportRefused(message) from None


def _found(kind: re.Pattern[str], text: str) -> str:
    match = kind.search(text)
    if match is None:
        message = "user_credentials: no JWT with its seed, as nsc writes them."
        raise TransportRefused(message)
    return match[1]


def _signature(seed: str, nonce: str) -> dict[str, str]:
    try:
        import nkeys
    except ModuleNotFoundError:
        message = "NKEYs need nkeys: pip install 'django-microservices-kit[nats]'."
        raise TransportRefused(message) from None
    try:
        pair = nkeys.from_seed(bytearray(seed.encode()))
        signature = pair.sign(nonce.encode())
        key = pair.public_key.decode()
    except Exception:  # noqa: BLE001 - whatever it says may show the seed
        message = "The seed of the user's NKEY cannot be used."
        raise TransportRefused(message) from None
    return {"nkey": key, "sig": base64.b64encode(signature).decode()}
