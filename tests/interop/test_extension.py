"""Our extension of the wire (``reference/nest-wire.md`` A.10): no Nest peer sees it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from django_microservices import Client, MessageTimeout, RemoteError, create_client
from django_microservices.transports.tcp import link
from tests.management.process import closed

from .harness import Answer, NestClient, NestServer
from .ours import OurServer
from .tap import Tap, tap_on

TCP = "django_microservices.transports.TCPTransport"
COPIED = {"dm-peer": "1", "dm-timeout": "5000"}
"""The metadata of a request of ours, as a gateway passes it on."""


def copying(tap: Tap) -> dict[str, Any]:
    """Name a Nest client that sends with its own calls what came with ours."""
    return {"port": tap.port, "metadata": COPIED}


@pytest.fixture
async def our_tap(our_server: OurServer) -> AsyncIterator[Tap]:
    """Stand before our service."""
    async with tap_on(our_server.port) as tap:
        yield tap


@pytest.fixture
async def nest_tap(either_nest_server: NestServer) -> AsyncIterator[Tap]:
    """Stand before a service of either Nest."""
    async with tap_on(either_nest_server.port) as tap:
        yield tap


@pytest.fixture
async def our_client(our_tap: Tap) -> AsyncIterator[Client]:
    """Give a client of ours before our service."""
    client = create_client(TCP, port=our_tap.port)
    yield client
    await client.aclose()


@pytest.fixture
async def client_of_nest(nest_tap: Tap) -> AsyncIterator[Client]:
    """Give a client of ours before a service of either Nest."""
    client = create_client(TCP, port=nest_tap.port)
    yield client
    await client.aclose()


@pytest.fixture
def short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have our clients ask after a twentieth of a second."""
    monkeypatch.setattr(link, "SILENCE", 0.05)


# --- hello ------------------------------------------------------------------------


async def test_hello_is_no_answer(our_tap: Tap, either_nest_client: NestClient) -> None:
    """A Nest client that is taken for ours gets its answers, and nothing else."""
    client = copying(our_tap)
    assert await either_nest_client.send(client, "echo", "👍") == Answer(["👍"])
    assert b"dm-hello" in our_tap.answered
    assert await either_nest_client.send(client, "constant", "undefined") == Answer()


async def test_hello_disturbs_no_stream(
    our_tap: Tap, either_nest_client: NestClient
) -> None:
    """Nor is it an item, also when the first call is a stream."""
    answer = await either_nest_client.send(copying(our_tap), "stream.paused", 5)
    assert answer == Answer([*range(5)])
    assert b"dm-hello" in our_tap.answered


async def test_hello_leaves_the_connection(
    our_tap: Tap, either_nest_client: NestClient
) -> None:
    """All calls go over the one connection, which stays."""
    client = copying(our_tap)
    answers = await either_nest_client.send_many(client, "echo", [*range(50)])
    assert [answer.value for answer in answers] == [*range(50)]
    statuses = await either_nest_client.acall("statuses", client)
    assert statuses.values == ["connected"]
    assert our_tap.answered.count(b"dm-hello") == 1


async def test_nest_client_is_told_nothing(
    our_tap: Tap, either_nest_client: NestClient
) -> None:
    """A client that did not say that it is ours reads Nest's own packets only."""
    client = {"port": our_tap.port}
    assert (await either_nest_client.send(client, "echo", 1)).value == 1
    assert b"dm-" not in our_tap.answered


# --- ping -------------------------------------------------------------------------


@pytest.mark.usefixtures("short_silence")
async def test_silent_service_of_ours_is_asked(
    our_tap: Tap, our_client: Client
) -> None:
    """After some silence our client asks whether our service lives."""
    await our_client.asend("echo", 1)
    await our_tap.said(b"dm-ping")
    assert await our_client.asend("echo", 2) == 2


@pytest.mark.usefixtures("short_silence")
async def test_silent_nest_is_not_asked(nest_tap: Tap, client_of_nest: Client) -> None:
    """Nest may be silent as long as it likes."""
    assert await client_of_nest.asend("slow", 400) == 400
    assert b"dm-ping" not in nest_tap.asked


# --- cancel -----------------------------------------------------------------------


async def test_service_of_ours_hears_of_a_cancelled_call(
    our_tap: Tap, our_client: Client
) -> None:
    """Our client tells our service that nobody waits any more."""
    await our_client.asend("echo", 1)
    with pytest.raises(MessageTimeout):
        await our_client.asend("hold", 1, timeout=0.1)
    await our_tap.said(b"dm-cancel")


async def test_nest_hears_nothing_of_a_cancelled_call(
    nest_tap: Tap, client_of_nest: Client
) -> None:
    """Our client keeps it from Nest, which would log an unknown event."""
    await client_of_nest.asend("echo", 1)
    with pytest.raises(MessageTimeout):
        await client_of_nest.asend("slow", 300, timeout=0.05)
    assert await client_of_nest.asend("slow", 350) == 350
    assert b"dm-cancel" not in nest_tap.asked


async def test_our_words_from_a_stranger_mean_nothing(
    our_tap: Tap, either_nest_client: NestClient
) -> None:
    """Who was not greeted can neither cancel nor ping."""
    client = {"port": our_tap.port}
    held = asyncio.ensure_future(either_nest_client.send(client, "slow.echo", 1))
    await our_tap.said(b"slow.echo")
    await either_nest_client.emit(client, "dm-cancel", _id_of(our_tap.asked))
    ping = await either_nest_client.send(client, "dm-ping", 0)
    assert "no matching message handler" in ping.error
    assert (await held).value == 1


def _id_of(asked: bytearray) -> str:
    """Return the id of the last request that was read."""
    return asked.rpartition(b'"id":"')[2].partition(b'"')[0].decode()


# --- bye, and draining ------------------------------------------------------------


@pytest.mark.parametrize("metadata", [None, COPIED], ids=["plain", "copying"])
async def test_drain_loses_no_request(
    private_server: OurServer,
    either_nest_client: NestClient,
    metadata: dict[str, str] | None,
) -> None:
    """While our service drains, what Nest clients asked and still ask is answered."""
    send_many = either_nest_client.send_many
    async with tap_on(private_server.port) as tap:
        client = {"port": tap.port, "metadata": metadata}
        held = asyncio.ensure_future(send_many(client, "hold", [*range(50)]))
        await either_nest_client.send(client, "events", 50)
        private_server.drain()
        await closed(private_server.port)
        late = await send_many(client, "echo", [*range(200)])
        assert [answer.value for answer in late] == [*range(200)]
        assert not (await either_nest_client.send(client, "release", 1)).failed
        assert [answer.value for answer in await held] == ["held"] * 50
        assert (b"dm-bye" in tap.answered) is (metadata is not None)
    assert await asyncio.to_thread(private_server.ended) == 0


# --- a gateway between ours and ours ----------------------------------------------


async def test_gateway_may_copy_our_metadata(
    our_server: OurServer, nest_server: NestServer
) -> None:
    """A Nest service between two of ours passes everything on, and no harm is done."""
    async with tap_on(our_server.port) as behind, tap_on(nest_server.port) as before:
        client = create_client(TCP, port=before.port)
        call = {"port": behind.port, "pattern": "metadata", "data": 1}
        await client.aconnect()
        calls = [client.asend("gateway", call) for _ in range(20)]
        assert await asyncio.gather(*calls) == [COPIED] * 20
        await client.aclose()
        assert behind.answered.count(b"dm-hello") == 20
        assert b"dm-" not in before.answered.replace(b"dm-peer", b"").replace(
            b"dm-timeout", b""
        )


async def test_request_id_passes_a_gateway(
    our_server: OurServer, nest_server: NestServer
) -> None:
    """The id that follows a request is the same before and behind Nest."""
    client = create_client(TCP, port=nest_server.port)
    call = {"port": our_server.port, "pattern": "metadata", "data": 1}
    headers = {"dm-request-id": "r-1"}
    await client.aconnect()
    answer = await client.asend("gateway", call, headers=headers)
    await client.aclose()
    assert answer == {**COPIED, **headers}


async def test_gateway_passes_our_errors_on(
    our_server: OurServer, nest_server: NestServer
) -> None:
    """Nor does what it copies change what it is told."""
    client = create_client(TCP, port=nest_server.port)
    call = {"port": our_server.port, "pattern": "fail", "data": "object"}
    with pytest.raises(RemoteError) as raised:
        await client.asend("gateway", call)
    await client.aclose()
    assert raised.value.error == {"code": 42, "reason": "broken"}
