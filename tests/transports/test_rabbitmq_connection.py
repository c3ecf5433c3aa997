"""RabbitMQ's connection: opening, living and ending, by a scripted broker."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pamqp import commands, heartbeat

from django_microservices.exceptions import (
    ConnectionLost,
    NotConnected,
    TransportRefused,
)
from django_microservices.transports.rabbitmq import (
    RabbitMQTransport,
    connection,
)
from django_microservices.transports.rabbitmq.channel import Channel

from .rabbitmq_ends import REQUESTS, Header, Publish, calling
from .scripted_broker import ScriptedBroker, eventually


@pytest.fixture
async def broker(free_port: Callable[[], int]) -> AsyncIterator[ScriptedBroker]:
    """Give a broker that listens."""
    async with ScriptedBroker(free_port()).running() as broker:
        yield broker


# --- opening ---


async def test_what_is_said_first(broker: ScriptedBroker) -> None:
    """A client declares its queue as Nest does, and consumes before it publishes."""
    async with calling(broker, queue="orders") as calls:
        client = await broker.client()
        declared = await client.hears(commands.Queue.Declare)
        consumed = await client.hears(commands.Basic.Consume)
        calls.request()
        published = await client.hears(Publish)
    assert (declared.queue, declared.durable, declared.arguments) == (
        "orders",
        True,
        {},
    )
    assert (declared.exclusive, declared.auto_delete) == (False, False)
    assert (consumed.queue, consumed.no_ack) == ("amq.rabbitmq.reply-to", True)
    channels = {channel for channel, value in client.told if value is consumed}
    assert channels == {c for c, value in client.told if value is published}
    assert calls.link.driver is calls.link.connection


async def test_exchange_of_ones_own(broker: ScriptedBroker) -> None:
    """An exchange that is named is declared, durable; the broker's own is not."""
    async with calling(broker, exchange="shop", exchange_type="fanout"):
        client = await broker.client()
        declared = await client.hears(commands.Exchange.Declare)
    assert (declared.exchange, declared.exchange_type) == ("shop", "fanout")
    assert declared.durable
    async with calling(broker):
        other = await broker.client(1)
        await other.hears(commands.Confirm.Select)
    assert other.heard(commands.Exchange.Declare) == []


async def test_reply_queue_of_ones_own(broker: ScriptedBroker) -> None:
    """Answers may come to a queue that the broker names for us."""
    async with calling(broker, reply_queue="") as calls:
        client = await broker.client()
        declared = await client.hears(commands.Queue.Declare)
        calls.request()
        sent = await client.hears(Header)
    assert (declared.queue, declared.exclusive) == ("", True)
    assert sent.properties.reply_to == "amq.gen-q"


async def test_client_without_destination(broker: ScriptedBroker) -> None:
    """Without exchange and queue a client could reach nobody."""
    with pytest.raises(TransportRefused, match="needs the name of a queue"):
        async with calling(broker, exchange=""):
            pass


async def test_refused_credentials(broker: ScriptedBroker) -> None:
    """What the broker refuses for good says its words."""
    refusal = commands.Connection.Close(403, "ACCESS_REFUSED - who?", 0, 0)
    broker.answers[commands.Connection.StartOk] = refusal
    with pytest.raises(TransportRefused, match=r"127\.0\.0\.1.*ACCESS_REFUSED - who"):
        async with calling(broker):
            pass


async def test_refused_queue(broker: ScriptedBroker) -> None:
    """Unequal arguments are refused for good."""
    refusal = commands.Channel.Close(406, "PRECONDITION_FAILED - inequivalent", 50, 10)
    broker.answers[commands.Queue.Declare] = refusal
    with pytest.raises(TransportRefused, match="inequivalent"):
        async with calling(broker, queue="orders"):
            pass


@pytest.mark.parametrize(
    ("first", "text"),
    [
        (b"AMQP\0\1\0\0", "is this a broker"),
        (commands.Channel.OpenOk(), "middle of the handshake"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is this a broker"),
    ],
)
async def test_no_broker(broker: ScriptedBroker, first: Any, text: str) -> None:
    """Another protocol on the port is said to be one."""
    broker.first = first
    with pytest.raises(NotConnected, match=text):
        async with calling(broker):
            pass


async def test_mute_broker(broker: ScriptedBroker) -> None:
    """A broker that says nothing is given up in time."""
    broker.first = None
    with pytest.raises(NotConnected, match="did not answer in time"):
        async with calling(broker, connect_timeout=0.05):
            pass


async def test_broker_that_hangs_up(broker: ScriptedBroker) -> None:
    """A broker that goes in the middle of the handshake is no refusal."""
    broker.answers[commands.Connection.StartOk] = None

    async def hang_up() -> None:
        (await broker.client()).writer.close()

    task = asyncio.ensure_future(hang_up())
    with pytest.raises(NotConnected, match="middle of the handshake"):
        async with calling(broker):
            pass
    await task


async def test_nobody_listens(free_port: Callable[[], int]) -> None:
    """A port that nobody listens on is no refusal: somebody may come."""
    with pytest.raises(NotConnected, match="Connection refused"):
        async with calling(ScriptedBroker(free_port())):
            pass


async def test_unknown_host() -> None:
    """Nor is a name that nobody knows."""
    transport = RabbitMQTransport(url="amqp://no-such-host.invalid")
    with pytest.raises(NotConnected, match=r"no-such-host\.invalid"):
        async with transport.connect(print, print):
            pass


async def test_urls_are_tried_in_order(
    broker: ScriptedBroker, free_port: Callable[[], int]
) -> None:
    """The first broker that lets us in is taken; if none does, all are named."""
    dead = f"amqp://127.0.0.1:{free_port()}"
    transport = RabbitMQTransport(urls=[dead, broker.url])
    async with transport.connect(print, print) as link:
        assert str(link.driver.address) == broker.url
    transport = RabbitMQTransport(urls=[dead, dead])
    with pytest.raises(NotConnected, match="refused; amqp"):
        async with transport.connect(print, print):
            pass


# --- the connection ---


@pytest.fixture
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look after the broker more often."""
    monkeypatch.setattr(connection, "CHECK", 0.02)


@pytest.mark.usefixtures("_hasty")
async def test_heartbeats(broker: ScriptedBroker) -> None:
    """We say that we live, and a broker that does not is gone."""
    broker.answers[commands.Connection.StartOk] = commands.Connection.Tune(0, 0, 1)
    async with calling(broker) as calls:
        client = await broker.client()
        await client.hears(heartbeat.Heartbeat)
        async with asyncio.timeout(10):
            reason = await calls.link.closed
    assert isinstance(reason, ConnectionLost)
    assert "silent for" in str(reason)


@pytest.mark.usefixtures("_hasty")
async def test_heartbeats_of_the_broker(broker: ScriptedBroker) -> None:
    """A broker that beats is alive, also while we do not read."""
    broker.answers[commands.Connection.StartOk] = commands.Connection.Tune(0, 0, 1)
    async with calling(broker) as calls:
        client = await broker.client()
        for number in range(1, 4):
            await client.hears(heartbeat.Heartbeat, number)
            client.say(heartbeat.Heartbeat())
        calls.link.connection.pause_reading()
        count = len(client.heard(heartbeat.Heartbeat))
        await client.hears(heartbeat.Heartbeat, count + 4)
        assert not calls.link.closed.done()
        calls.link.connection.resume_reading()


async def test_no_heartbeats(broker: ScriptedBroker) -> None:
    """Without heartbeats on either side nobody is missed."""
    broker.answers[commands.Connection.StartOk] = commands.Connection.Tune(0, 0, 0)
    options: Any = {"socket_options": {"heartbeat_interval_in_seconds": 0}}
    async with calling(broker, **options) as calls:
        calls.link.connection._watch()
        assert not calls.link.closed.done()


async def test_broker_closes(broker: ScriptedBroker) -> None:
    """The code and the text of a close are the reason of the end."""
    async with calling(broker) as calls:
        client = await broker.client()
        confirmed = calls.confirmed()
        await client.hears(Publish)
        client.say(commands.Connection.Close(320, "CONNECTION_FORCED - bye", 0, 0))
        reason: Any = await calls.link.closed
        assert (reason.code, str(reason)) == (320, "CONNECTION_FORCED - bye")
        await client.hears(commands.Connection.CloseOk)
        with pytest.raises(ConnectionLost, match="CONNECTION_FORCED"):
            await confirmed
        with pytest.raises(ConnectionLost, match="CONNECTION_FORCED"):
            calls.event()


async def test_broker_sends_garbage(broker: ScriptedBroker) -> None:
    """What is no AMQP ends the connection, and the broker is told why."""
    async with calling(broker) as calls:
        client = await broker.client()
        client.writer.write(b"\x01\0\0\xff\xff\xff\xff.")
        reason = await calls.link.closed
        assert "a frame of" in str(reason)
        close = await client.hears(commands.Connection.Close)
    assert close.reply_code == 501


async def test_words_without_a_question(broker: ScriptedBroker) -> None:
    """What nobody asked for, or no channel is there for, is passed over."""
    async with calling(broker) as calls:
        client = await broker.client()
        client.say(commands.Channel.OpenOk(), REQUESTS)
        client.say(commands.Channel.OpenOk(), 9)
        client.say(commands.Basic.Ack(1), REQUESTS)
        client.say(commands.Channel.OpenOk(), 0)
        calls.request("a1")
        client.deliver(b'{"isDisposed":true}', correlation_id="a1")
        await eventually(lambda: calls.replies)


async def test_after_the_end(broker: ScriptedBroker) -> None:
    """A connection that is lost takes nothing, and says so."""
    async with calling(broker) as calls:
        link = calls.link
        link.closed.cancel()
    with pytest.raises(ConnectionLost, match="connection was closed"):
        await link.requests.call(commands.Channel.Open())
    with pytest.raises(ConnectionLost, match="connection was closed"):
        await Channel(link.connection).open()
    await link.requests.close()
    link.connection.write(b"x")
    link.connection.pause_reading()
    assert not link.connection.deaf


@pytest.mark.usefixtures("_hasty")
async def test_host_that_has_vanished(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that owes acknowledgements and is silent is gone."""
    async with calling(broker) as calls:
        monkeypatch.setattr(connection, "has_vanished", lambda _: True)
        assert "host has vanished" in str(await calls.link.closed)


async def test_giving_up_while_connecting(broker: ScriptedBroker) -> None:
    """Who does not want to wait leaves nothing behind."""
    broker.first = None
    transport = RabbitMQTransport(url=broker.url)
    entering = asyncio.ensure_future(transport.connect(print, print).__aenter__())
    client = await broker.client()
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    await eventually(lambda: client.hung_up)


async def test_leaving_says_goodbye(broker: ScriptedBroker) -> None:
    """Leaving the block closes the connection in good order."""
    async with calling(broker):
        client = await broker.client()
    await client.hears(commands.Connection.Close)
    await eventually(lambda: client.hung_up)


async def test_leaving_a_broker_that_hangs(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leaving never waits for a broker that does not answer."""
    monkeypatch.setattr(connection, "LINGER", 0.02)
    broker.answers[commands.Connection.Close] = None
    async with calling(broker) as calls:
        pass
    assert calls.link.connection.lost
    assert "Connection to amqp://" in repr(calls.link.connection)
