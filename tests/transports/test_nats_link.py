"""The client's half of the NATS wire, and services that are not ours."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from nats.aio.msg import Msg

from django_microservices import ConnectionLost, MessageTooLarge, NotConnected
from django_microservices.exceptions import InvalidMessage
from django_microservices.transports.nats import link as link_module
from django_microservices.wire.codecs import decode
from django_microservices.wire.messages import UNSET, Reply
from tests.brokers.nats import NATS

from .nats_ends import linked
from .nats_peer import Peer


class Stranger:
    """Answers every message to one subject, and keeps them."""

    def __init__(self) -> None:
        self.messages: list[Msg] = []
        self.came = asyncio.Event()

    async def wait(self, count: int = 1) -> list[Msg]:
        """Wait for messages."""
        async with asyncio.timeout(10):
            while len(self.messages) < count:
                self.came.clear()
                await self.came.wait()
        return self.messages


Answer = Callable[[dict[str, Any], Msg], Awaitable[None]]


async def ignore(packet: dict[str, Any], message: Msg) -> None:
    """Answer nothing."""


def answering(*bodies: bytes) -> Answer:
    """Answer with these bodies; ``%ID%`` in them is the request's id."""

    async def answer(packet: dict[str, Any], message: Msg) -> None:
        for body in bodies:
            await message.respond(body.replace(b"%ID%", packet["id"].encode()))

    return answer


@asynccontextmanager
async def stranger(
    url: str, subject: str, answer: Answer = ignore
) -> AsyncIterator[Stranger]:
    """Have a service by nats-py listen to a subject."""
    found = Stranger()

    async def came(message: Msg) -> None:
        found.messages.append(message)
        found.came.set()
        message.headers = None  # nats-py would send them back
        await answer(json.loads(message.data), message)

    async with Peer(url) as peer:
        await peer.client.subscribe(subject, cb=came)
        await peer.settled()
        yield found


async def answered(url: str, *bodies: bytes) -> list[Reply]:
    """Return what a client takes from the answers of a stranger to one request."""
    async with stranger(url, "asked", answering(*bodies)), linked(url) as calls:
        calls.send("asked", id_="7")
        return list(await calls.came(1))


def shape(reply: Reply) -> tuple[Any, Any, bool, bool]:
    """Return what can be compared."""
    data = None if reply.data is None else bytes(reply.data)
    return data, reply.error, reply.last, reply.missing


# --- what goes out ----------------------------------------------------------------


async def test_request_is_nests(nats_server: NATS) -> None:
    """The subject is the route, the body Nest's packet, the reply subject an inbox."""
    pattern = {"b": 1, "a": "x"}
    async with (
        stranger(nats_server.url, "*") as found,
        linked(nats_server.url) as calls,
    ):
        calls.send(pattern, b"[1,2]", "42", timeout=2.5)
        message = (await found.wait())[0]
    assert message.subject == '{"a":"x","b":1}'
    assert message.data == b'{"pattern":{"b":1,"a":"x"},"data":[1,2],"id":"42"}'
    assert message.reply.startswith("_INBOX.")


async def test_headers_of_a_request(nats_server: NATS) -> None:
    """Ours say that we ask and how long we wait; a message's own count most."""
    async with Peer(nats_server.url) as peer:
        subscription = await peer.client.subscribe("asked")
        await peer.settled()
        options: dict[str, Any] = {"headers": {"app": "shop", "tenant": "none"}}
        async with linked(nats_server.url, **options) as calls:
            calls.send("asked", timeout=2.5)
            calls.send("asked", timeout=None)
            calls.send("asked", headers={"tenant": "acme"})
            calls.send("asked", id_=UNSET)
            calls.send("asked", id_=UNSET, options={"message_id": 7, "priority": 1})
            messages = [await subscription.next_msg(timeout=10) for _ in range(5)]
    base = {"app": "shop", "tenant": "none"}
    assert [message.headers for message in messages] == [
        {**base, "dm-peer": "1", "dm-timeout": "2500"},
        {**base, "dm-peer": "1"},
        {**base, "tenant": "acme", "dm-peer": "1"},
        base,
        {**base, "Nats-Msg-Id": "7"},
    ]


async def test_event_is_nests(nats_server: NATS) -> None:
    """An event has no id and no reply subject; without data there is no member."""
    url = nats_server.url
    async with stranger(url, "noted") as found, linked(url) as calls:
        calls.send("noted", b"1", UNSET)
        calls.send("noted", UNSET, UNSET)  # type: ignore[arg-type]
        first, second = await found.wait(2)
    assert first.data == b'{"pattern":"noted","data":1}'
    assert second.data == b'{"pattern":"noted"}'
    assert first.reply == ""
    assert first.headers is None


async def test_inbox_prefix(nats_server: NATS) -> None:
    """Answers may come to inboxes of one's own."""
    async with (
        stranger(nats_server.url, "asked", answering(b"1")) as found,
        linked(nats_server.url, inbox_prefix="_INBOX_shop") as calls,
    ):
        calls.send("asked")
        calls.send("asked", stream=True)
        await calls.came(2)
    assert all(one.reply.startswith("_INBOX_shop.") for one in found.messages)


async def test_kinds_of_headers_are_bounded(
    nats_server: NATS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many timeouts there are, few blocks are kept."""
    monkeypatch.setattr(link_module, "_MOST_HEADERS", 3)
    async with linked(nats_server.url) as calls:
        for number in range(1, 10):
            calls.send("nobody", id_=str(number), timeout=float(number))
        await calls.came(9)
        assert len(calls.link._blocks) <= 4  # type: ignore[attr-defined]


@pytest.mark.parametrize("pattern", ["", "a b", "a..b", "a.*", "$SYS.x", "_INBOX.a"])
async def test_pattern_that_is_no_subject(nats_server: NATS, pattern: str) -> None:
    """Nothing is sent, and the error names the pattern."""
    async with linked(nats_server.url) as calls:
        with pytest.raises(ValueError, match="is no subject of NATS"):
            calls.send(pattern)


async def test_message_that_is_too_large(nats_server: NATS) -> None:
    """A message over the server's limit is refused before it is sent."""
    async with linked(nats_server.url) as calls:
        with pytest.raises(MessageTooLarge):
            calls.send("asked", b'"%b"' % (b"x" * 8 * 1024 * 1024))


async def test_slow_server_holds_the_publisher_up(nats_server: NATS) -> None:
    """Where it does not keep up, there is something to wait for."""
    async with linked(nats_server.url) as calls:
        calls.link.driver.pause_writing()
        waiting: Any = calls.send("nobody", id_=UNSET)
        calls.link.driver.resume_writing()
        await waiting
        assert calls.send("nobody", id_=UNSET) is None


async def test_lost_link(nats_server: NATS) -> None:
    """The end of the connection is told, and nothing can be sent any more."""
    async with linked(nats_server.url) as calls:
        calls.link.driver.abort("cut")
        reason = await asyncio.wait_for(asyncio.shield(calls.link.closed), 10)
        assert isinstance(reason, ConnectionLost)
        with pytest.raises(NotConnected, match="cut"):
            calls.send("asked")


# --- what comes in ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"response":6,"isDisposed":true,"id":"%ID%"}', (b"6", None, True, False)),
        (b'{"response":6,"id":"%ID%"}', (b"6", None, False, False)),
        (b'{"isDisposed":true,"id":"%ID%"}', (None, None, True, False)),
        (b'{"err":"x","isDisposed":true,"id":"%ID%"}', (None, b'"x"', True, False)),
        (b'{"err":"x","isDisposed":true}', (None, b'"x"', True, False)),
        (b'{"response":6,"isDisposed":true}', (b"6", None, True, False)),
        (b'{"sum":6}', (b'{"sum":6}', None, True, False)),
        (b"[1,2]", (b"[1,2]", None, True, False)),
        (b"7", (b"7", None, True, False)),
        (b"null", (b"null", None, True, False)),
        (b"", (None, None, True, False)),
    ],
)
async def test_answer(
    nats_server: NATS, body: bytes, expected: tuple[Any, ...]
) -> None:
    """Nest's packets are read as such; what is none is the value itself."""
    replies = await answered(nats_server.url, body)
    assert [shape(reply) for reply in replies] == [expected]
    assert replies[0].id == "7"


async def test_answer_that_is_no_json(nats_server: NATS) -> None:
    """It ends its call, whose value cannot be read."""
    (reply,) = await answered(nats_server.url, b"no json at all")
    with pytest.raises(Exception, match="Not readable as JSON"):
        decode(reply.data or b"")


async def test_answer_that_nests_too_deeply(nats_server: NATS) -> None:
    """So does one that no decoder should be given."""
    deep = b"[" * 100 + b"]" * 100
    body = b'{"response":%b,"isDisposed":true,"id":"%%ID%%"}' % deep
    (reply,) = await answered(nats_server.url, body)
    with pytest.raises(InvalidMessage, match="Nested deeper than 64 levels"):
        decode(reply.data or b"")


async def test_answer_to_another_request(nats_server: NATS) -> None:
    """What comes to an inbox answers its own request only."""
    wrong = b'{"response":"stolen","isDisposed":true,"id":"8"}'
    right = b'{"response":"mine","isDisposed":true,"id":"%ID%"}'
    url = nats_server.url
    async with stranger(url, "asked", answering(wrong, right)), linked(url) as calls:
        calls.send("asked", id_="7")
        (reply,) = await calls.came(1)
        assert bytes(reply.data or b"") == b'"mine"'
        assert calls.link.ignored == 1


async def test_nobody_listens(nats_server: NATS) -> None:
    """NATS says so at once, of streams too."""
    async with linked(nats_server.url) as calls:
        calls.send("nobody")
        calls.send("nobody", stream=True)
        assert all(reply.missing for reply in await calls.came(2))


async def test_stream_has_an_inbox_of_its_own(nats_server: NATS) -> None:
    """Its items come in order, and after it is forgotten nothing comes any more."""
    items = [b'{"response":%d,"id":"%%ID%%"}' % number for number in range(3)]
    url = nats_server.url
    async with stranger(url, "asked", answering(*items)) as found, linked(url) as calls:
        calls.send("asked", stream=True)
        replies = await calls.came(3)
        assert [bytes(reply.data or b"") for reply in replies] == [b"0", b"1", b"2"]
        calls.link.forget("7", answered=False)
        calls.link.forget("7", answered=False)
        async with Peer(url) as peer:
            reply_to = found.messages[0].reply
            await peer.publish(reply_to, items[0].replace(b"%ID%", b"7"))
        assert await calls.link.driver.ping()
        assert len(calls) == 3


async def test_answer_to_nonsense(nats_server: NATS) -> None:
    """An answer below our inbox whose name is no text is ignored."""
    url = nats_server.url
    async with linked(url) as calls, stranger(url, "asked", answering(b"1")):
        link: Any = calls.link
        nonsense = link._inbox + b"\xff"
        link.driver.publish(nonsense, b'{"response":1,"id":"7"}')
        assert await link.driver.ping()
        calls.send("asked", id_="7")
        assert [reply.id for reply in await calls.came(1)] == ["7"]
        assert link.ignored == 1
