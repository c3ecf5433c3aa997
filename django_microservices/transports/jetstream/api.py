"""JetStream's API: questions and answers in JSON, on subjects of their own.

Source: https://docs.nats.io/reference/reference-protocols/nats_api_reference. Times are
in nanoseconds there.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ...exceptions import InvalidMessage, MicroserviceError, NotConnected
from ...wire.codecs import decode, encode
from ...wire.text import shown
from ..nats.protocol import Packet, is_unheard

if TYPE_CHECKING:
    from ..nats.inbox import Inbox

NOT_FOUND = 404
_ITS_OWN_FAULT = 500
# Some of these are ours for all that: a consumer or a stream that cannot be made so.
# Source: server/errors.json of nats-server.
_OURS = frozenset((10012, 10049, 10052, 10074))
_NANO = 1_000_000_000
_SCHEDULES_SINCE = (2, 12)


class JetStreamError(MicroserviceError):
    """JetStream said no; ``code`` is HTTP's number for the kind of the reason."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"JetStream: {text}")
        self.code = code


class API:
    """Asks JetStream on one connection.

    ``schedules`` says that the server can hold a message back until its time.
    """

    def __init__(self, inbox: "Inbox", domain: str | None) -> None:
        self.inbox = inbox
        version = str(inbox.connection.info.get("version", ""))
        self.schedules = _numbers(version) >= _SCHEDULES_SINCE
        self.prefix = "$JS.API" if domain is None else f"$JS.{domain}.API"

    async def ask(
        self, name: str, question: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the answer.

        Raises :class:`JetStreamError` for a refusal, and :class:`NotConnected` while
        there is no JetStream, or none that can answer.
        """
        body = b"" if question is None else encode(question)
        return answer_in(await self.inbox.ask(self.subject(name), body))

    def subject(self, name: str) -> bytes:
        """Return where a question of this name goes."""
        return f"{self.prefix}.{name}".encode()


def answer_in(packet: Packet) -> dict[str, Any]:
    """Read an answer; raise what it says."""
    if is_unheard(packet.headers):
        message = "JetStream does not answer: it is not enabled, or not ready."
        raise NotConnected(message)
    answer: Any = None
    with suppress(InvalidMessage):
        answer = decode(packet.body)
    if not isinstance(answer, dict):
        message = f"JetStream answered {shown(packet.body)}."
        raise NotConnected(message)
    refusal = answer.get("error")
    if refusal is not None:
        raise _refused(refusal)
    return answer


def _refused(refusal: Mapping[str, Any]) -> MicroserviceError:
    code, text = int(refusal.get("code", 0)), shown(refusal.get("description", ""))
    if code >= _ITS_OWN_FAULT and refusal.get("err_code") not in _OURS:
        return NotConnected(f"JetStream: {text}")
    return JetStreamError(code, text)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", version)[:2])


def nanoseconds(seconds: float) -> int:
    """Return a time as JetStream counts it."""
    return int(seconds * _NANO)
