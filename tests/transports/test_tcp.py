"""The TCP wire over real sockets: options, limits, and our own extension."""

import asyncio
import errno
import json
import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_microservices import transports
from django_microservices.exceptions import (
    ConnectionLost,
    InvalidMessage,
    MessageTooLarge,
    NotConnected,
    TransportRefused,
)
from django_microservices.transports import TCPTransport
from django_microservices.transports.tcp import connection, link, peer, sockets
from django_microservices.transports.tcp.protocol import JsonSocket, frame
from django_microservices.wire.codecs import decode
from django_microservices.wire.messages import UNSET, Reply
from django_microservices.wire.status import Status

from .peers import RESET, Delivery, Peer, Serve, Service, eventually, linked

PEER = {"metadata": {"dm-peer": "1"}}
HELLO = {"response": {"v": 1}, "isDisposed": True, "id": "dm-hello"}
BYE = {"response": None, "isDisposed": True, "id": "dm-bye"}


def answer(data: Any = 1, id_: Any = "7") -> dict[str, Any]:
    """Make the packet that answers a request."""
    return {"response": data, "isDisposed": True, "id": id_}


def hold(_: Delivery) -> None:
    """Answer nothing."""


# --- options ---


def test_defaults_are_loopback() -> None:
    """Nobody outside is served unless the settings say so."""
    transport = TCPTransport()
    assert (transport.host, transport.port) == ("127.0.0.1", 3000)
    assert (transport.max_frame_size, transport.no_delay) == (1024 * 1024, True)


@pytest.mark.parametrize(
    ("url", "address"),
    [("tcp://math:3000", ("math", 3000)), ("tcp://[::1]:42", ("::1", 42))],
)
def test_url(url: str, address: tuple[str, int]) -> None:
    """A URL stands for host and port."""
    transport = TCPTransport(url=url)
    assert (transport.host, transport.port) == address


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("port", 65536, "port: 65536 is not 0 to 65535"),
        ("max_frame_size", 0, "max_frame_size: 0 is not at least 1"),
        ("max_connections", 0, "max_connections: 0 is not"),
        ("max_connections_per_address", -1, "max_connections_per_address: -1 is not"),
    ],
)
def test_values_out_of_range(option: str, value: int, says: str) -> None:
    """A number that could never work is refused, and the option is named."""
    with pytest.raises(ValueError, match=says):
        TCPTransport(**{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["http://a:1", "tcp://a", "tcp://:1", "a:1", ""])
def test_wrong_url(url: str) -> None:
    """Any other URL is an error that shows the form."""
    with pytest.raises(ImproperlyConfigured, match=r"url: .*tcp://host:port"):
        TCPTransport(url=url)


def test_wrong_url_keeps_its_secret() -> None:
    """What stands in front of the host is not shown."""
    with pytest.raises(ImproperlyConfigured) as caught:
        TCPTransport(url="http://user:s3cret@a:1")
    assert "s3cret" not in str(caught.value)


def test_listener_is_opened_again_as_told() -> None:
    """How often and when is for the Server to read."""
    transport = TCPTransport(retry_attempts=3, retry_delay=0.5)
    assert (transport.retry_attempts, transport.retry_delay) == (3, 0.5)


async def test_address(serve: Serve) -> None:
    """A server says where it listens, and then that it does not."""
    async with serve() as server:
        intake = server.intake
        assert intake.address == f"tcp://127.0.0.1:{server.port}"
        assert intake.driver.sockets
    assert intake.address == "closed"
    assert intake.closed.result() is None


async def test_taken_port(serve: Serve) -> None:
    """A port that is taken will not become free by trying again."""
    async with serve() as server:
        other = TCPTransport(port=server.port)
        with pytest.raises(TransportRefused, match=f"127.0.0.1:{server.port}"):
            await other.serve([], Service(), print, limit=1).__aenter__()


async def test_unknown_host() -> None:
    """Nor will a name that nobody knows."""
    transport = TCPTransport(host="no-such-host.invalid")
    with pytest.raises(TransportRefused, match="no-such-host"):
        await transport.serve([], Service(), print, limit=1).__aenter__()


async def test_listening_fails_for_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other error is one that may pass."""

    async def create_server(*args: Any, **options: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    loop: Any = asyncio.get_running_loop()
    kind = type(loop)
    if kind.__module__.startswith("uvloop"):
        stand_in = type("Loop", (), {"create_server": staticmethod(create_server)})()
        monkeypatch.setattr(asyncio, "get_running_loop", lambda: stand_in)
    else:
        monkeypatch.setattr(loop, "create_server", create_server)
    block = TCPTransport().serve([], Service(), print, limit=1)
    monkeypatch.setattr(
        "django_microservices.transports.tcp.transport.Intake", lambda *_: _Nothing()
    )
    with pytest.raises(NotConnected, match="Too many open files"):
        await block.__aenter__()


class _Nothing:
    """An intake of a loop that is none."""

    accept = None


@pytest.mark.parametrize("no_delay", [True, False])
async def test_no_delay(serve: Serve, no_delay: bool) -> None:  # noqa: FBT001
    """NODELAY is set on both ends, or on none."""
    async with (
        serve(no_delay=no_delay) as server,
        server.link(no_delay=no_delay) as calls,
    ):
        calls.send("a")
        await calls.came(1)
        (theirs,) = server.intake.connections
        for end in (theirs, calls.link):
            sock = end.transport.get_extra_info("socket")
            option = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert bool(option) is no_delay
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


async def test_closed_window_is_no_fault(serve: Serve) -> None:
    """A peer that reads slowly, yet lives, is not ended by the kernel."""
    async with serve() as server, server.link() as calls:
        sock = calls.link.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0


async def test_backlog(serve: Serve) -> None:
    """The kernel keeps so many connections that were not accepted yet."""
    async with serve(backlog=17) as server:
        (sock,) = server.intake.driver.sockets
        # Of a listening socket Linux tells the backlog as tcpi_sacked.
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 60)
        assert int.from_bytes(info[28:32], "little") == 17


async def test_refused_connection(free_port: Callable[[], int]) -> None:
    """Where nobody listens, the error names the address."""
    port = free_port()
    with pytest.raises(NotConnected, match=f"127.0.0.1:{port}: .*refused"):
        await linked(port).__aenter__()


async def test_connect_timeout(free_port: Callable[[], int]) -> None:
    """Connecting takes so long at most, TLS's greeting included."""
    with socket.create_server(("127.0.0.1", free_port())) as silent:
        port = silent.getsockname()[1]
        options: Any = {"connect_timeout": 0.01, "tls_options": {}}
        with pytest.raises(NotConnected, match=f"127.0.0.1:{port} did not answer"):
            await linked(port, **options).__aenter__()


# --- what is exchanged ---


@pytest.mark.parametrize("data", [1, 0, False, "", None, [], {"a": [1.5]}])
async def test_request(serve: Serve, data: Any) -> None:
    """A request is answered in one packet."""
    async with serve() as server:
        peer = await server.peer()
        peer.request(data)
        assert await peer.read() == answer(data)


async def test_undefined(serve: Serve) -> None:
    """No payload is none, and no answer has no member."""
    async with serve() as server:
        peer = await server.peer()
        peer.send({"pattern": "a", "id": 1})
        assert await peer.read() == {"isDisposed": True, "id": 1}
        assert server.service.deliveries[0].data is UNSET


async def test_event(serve: Serve) -> None:
    """An event is delivered, and nothing comes back."""
    async with serve() as server:
        peer = await server.peer()
        peer.send({"pattern": "a", "data": 1})
        peer.request()
        assert await peer.read() == answer()
        event, _ = server.service.deliveries
        assert event.message.id is UNSET
        assert event.message.pattern.route == "a"


async def test_packet_without_a_pattern(serve: Serve) -> None:
    """A packet with data alone has the pattern that Nest gives it."""
    async with serve() as server:
        peer = await server.peer()
        peer.send({"data": 1, "id": "7"})
        await peer.read()
        assert server.service.deliveries[0].message.pattern.route == "undefined"


async def test_stream(serve: Serve) -> None:
    """Items come in order, and then the end."""

    def count(delivery: Delivery) -> None:
        for number in range(3):
            delivery.respond(Reply(delivery.message.id, b"%d" % number, last=False))
        delivery.answer(last=True)

    async with serve(Service(count)) as server, server.link() as calls:
        calls.send("count")
        await calls.came(4)
        assert [(r.data and bytes(r.data), r.last) for r in calls] == [
            (b"0", False),
            (b"1", False),
            (b"2", False),
            (None, True),
        ]


@pytest.mark.parametrize(
    "id_", [None, 0, 7, 1.5, "", "é😀", [], [1], {}, {"a": 1}, True, 2**70, "\ud83d"]
)
async def test_any_id(serve: Serve, id_: Any) -> None:
    """An id is echoed with its type, and takes no place for ever."""
    async with serve(limit=1) as server:
        peer = await server.peer()
        for _ in range(3):
            peer.request(1, id_)
            assert await peer.read() == answer(1, id_)
        assert server.intake.outstanding == 0
        assert not next(iter(server.intake.connections)).deliveries


async def test_id_twice(serve: Serve) -> None:
    """Two requests of the same id are two requests."""
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        peer.request(1)
        peer.request(2)
        first, second = await server.service.came(2)
        first.answer()
        assert await peer.read() == answer(1)
        peer.close()
        await asyncio.wait_for(second.cancelled.wait(), 10)


async def test_answers_in_any_order(serve: Serve) -> None:
    """Who is done first is answered first."""
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        for number in range(3):
            peer.request(number, str(number))
        for delivery in reversed(await server.service.came(3)):
            delivery.answer()
        assert [(await peer.read())["id"] for _ in range(3)] == ["2", "1", "0"]


async def test_text_beyond_the_basic_plane(serve: Serve) -> None:
    """Emoji, alone and in numbers, come back as they went."""
    text = json.dumps("é€😀" * 1000, ensure_ascii=False).encode()
    async with serve() as server, server.link() as calls:
        calls.send("a", text)
        await calls.came(1)
        assert calls[0].data is not None
        assert bytes(calls[0].data) == text


async def test_event_of_a_client_names_the_route(serve: Serve) -> None:
    """As Nest's, our client sends a request's pattern as given, an event's as text."""
    async with serve() as server, server.link() as calls:
        calls.send({"b": 1, "a": 2}, id_=UNSET)
        calls.send({"b": 1, "a": 2})
        event, request = await server.service.came(2)
        assert event.message.pattern.json == b'"{\\"a\\":2,\\"b\\":1}"'
        assert request.message.pattern.json == b'{"b":1,"a":2}'
        assert event.message.headers is None


async def test_lost_peer_cancels(serve: Serve) -> None:
    """When a peer is gone its requests are cancelled, whatever their id, not events."""
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        for id_ in ("a", 1, None, [1]):
            peer.request(1, id_)
        peer.send({"pattern": "a"})
        *requests, event = await server.service.came(5)
        peer.close()
        for request in requests:
            await asyncio.wait_for(request.cancelled.wait(), 10)
        assert event.outcome is None
        event.end()
        assert server.intake.outstanding == 0


async def test_wire(serve: Serve) -> None:
    """The context's wire knows the peer, also when it has gone."""
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        peer.request()
        peer.request()
        first, second = await server.service.came(2)
        wire = first.message.wire
        assert wire is second.message.wire
        assert (wire.peer, wire.identity) == (peer.address, None)
        assert not wire.socket.is_closing()
        peer.close()
        await asyncio.wait_for(first.cancelled.wait(), 10)
        assert (wire.peer, wire.identity) == (peer.address, None)


# --- sizes ---


async def test_frame_over_the_limit(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """A larger frame ends the connection, with one line that says why."""
    async with serve(max_frame_size=100) as server:
        peer = await server.peer()
        peer.request("x" * 100)
        assert await peer.ended() == b""
    (record,) = caplog.records
    assert record.getMessage().startswith(
        f"Closed the connection with {peer.address}: a frame of "
    )


async def test_max_buffer_size(serve: Serve) -> None:
    """Nest's name sets what may be received, more or less than is sent."""
    async with serve(max_frame_size=100, max_buffer_size=1000) as server:
        peer = await server.peer()
        peer.request("x" * 500)
        (delivery,) = await server.service.came(1)
        assert delivery.data == "x" * 500
    assert TCPTransport(max_buffer_size=10).new_socket().max_frame_size == 10


async def test_answer_over_the_limit(serve: Serve) -> None:
    """An answer that the peer would refuse is an error on this side."""
    async with serve(Service(hold), max_frame_size=200) as server:
        peer = await server.peer()
        peer.request()
        (delivery,) = await server.service.came(1)
        with pytest.raises(
            MessageTooLarge, match=r"over max_frame_size \(200\): raise"
        ):
            delivery.respond(Reply("7", b'"' + b"x" * 200 + b'"'))
        delivery.answer()
        assert await peer.read() == answer()


async def test_request_over_the_limit(serve: Serve) -> None:
    """A request that the server would refuse is never sent."""
    async with serve() as server, server.link(max_frame_size=200) as calls:
        with pytest.raises(MessageTooLarge, match="max_frame_size"):
            calls.send("a", b'"' + b"x" * 200 + b'"')
        calls.send("a")
        await calls.came(1)


async def test_limit_counts_units(serve: Serve) -> None:
    """Both ways count as the wire does, not in bytes."""
    text = json.dumps("€" * 900, ensure_ascii=False).encode()
    async with (
        serve(max_frame_size=1000) as server,
        server.link(max_frame_size=1000) as calls,
    ):
        calls.send("a", text)
        assert bytes((await calls.came(1))[0].data or b"") == text


# --- a part of a frame ---


async def test_partial_frame(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A frame that is not finished in time ends the connection."""
    async with serve(incomplete_message_timeout=0.05) as server:
        peer = await server.peer()
        peer.writer.write(b"100#{")
        assert await peer.ended() == b""
    assert "a frame took more than 0.05 s" in caplog.text


async def test_partial_frame_in_drops(serve: Serve) -> None:
    """The time is that of the whole frame: a byte does not begin it anew."""
    async with serve(incomplete_message_timeout=0.1) as server:
        peer = await server.peer()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        peer.writer.write(b"10000#")
        (theirs,) = await connections(server)
        while not theirs.lost:
            size = len(theirs.socket._buffer or b"")
            peer.writer.write(b"x")
            await eventually(
                lambda: theirs.lost or len(theirs.socket._buffer or b"") > size  # noqa: B023
            )
        assert loop.time() - begun < 1


async def connections(server: Any) -> Any:
    """Wait for the server's side of a connection."""
    await eventually(lambda: server.intake.connections)
    return server.intake.connections


async def test_next_frame_has_its_own_time(serve: Serve) -> None:
    """A peer that is always within a frame, but finishes each, is not cut."""
    async with serve(incomplete_message_timeout=0.2) as server:
        peer = await server.peer()
        loop = asyncio.get_running_loop()
        text = frame(b'{"pattern":"a","data":1,"id":"7"}')
        until = loop.time() + 0.6
        peer.writer.write(text[:5])
        while loop.time() < until:
            peer.writer.write(text[5:] + text[:5])
            assert await peer.read() == answer()
        (theirs,) = server.intake.connections
        assert theirs.socket.partial


async def test_timer_forgets_a_finished_frame(serve: Serve) -> None:
    """A frame that was finished costs nothing when its time is over."""
    async with serve(incomplete_message_timeout=0.05) as server:
        peer = await server.peer()
        text = frame(b'{"pattern":"a","data":1,"id":"7"}')
        peer.writer.write(text[:5])
        (theirs,) = await connections(server)
        await eventually(lambda: theirs._frame_timer is not None)
        peer.writer.write(text[5:])
        assert await peer.read() == answer()
        await eventually(lambda: theirs._frame_timer is None)
        assert not theirs.lost


async def test_no_limit_for_a_frame(serve: Serve) -> None:
    """0 turns the limit off."""
    async with serve(incomplete_message_timeout=0) as server:
        peer = await server.peer()
        peer.writer.write(b"100#{")
        (theirs,) = await connections(server)
        await eventually(lambda: theirs.socket.partial)
        assert theirs._frame_timer is None


async def test_waiting_server_is_not_the_peers_fault(serve: Serve) -> None:
    """While the server does not read, a frame's time does not pass."""
    async with serve(Service(hold), limit=1, incomplete_message_timeout=0.05) as server:
        peer = await server.peer()
        text = frame(b'{"pattern":"a","data":1,"id":"7"}')
        peer.writer.write(text + text + text[:5])
        (first,) = await server.service.came(1)
        (theirs,) = server.intake.connections
        timer = theirs._frame_timer
        await eventually(lambda: theirs._frame_timer is not timer)
        assert not theirs.lost
        first.answer()
        (_, second) = await server.service.came(2)
        second.answer()
        peer.writer.write(text[5:])
        await server.service.came(3)


# --- how many ---


@pytest.mark.parametrize("option", ["max_connections", "max_connections_per_address"])
async def test_too_many_connections(
    serve: Serve, caplog: pytest.LogCaptureFixture, option: str
) -> None:
    """Who comes when it is full is refused; the others are served; room returns."""
    async with serve(**{option: 2}) as server:
        first, second = await server.peer(), await server.peer()
        await eventually(lambda: len(server.intake.connections) == 2)
        third = await server.peer()
        third.request()
        assert await third.ended() == b""
        assert f"more than {option}=2" in caplog.text
        second.request()
        assert await second.read() == answer()
        first.close()
        await eventually(lambda: len(server.intake.connections) == 1)
        fourth = await server.peer()
        fourth.request()
        assert await fourth.read() == answer()
    assert not server.intake.per_address


async def test_at_most_so_many_at_once(serve: Serve) -> None:
    """Over the limit messages wait in order, and the peer is not read."""
    async with serve(Service(hold), limit=3) as server:
        peer = await server.peer()
        for number in range(10):
            peer.request(number, str(number))
        deliveries = await server.service.came(3)
        (theirs,) = server.intake.connections
        assert (len(deliveries), theirs.deaf) == (3, True)
        for number in range(10):
            (await server.service.came(number + 1))[number].answer()
            assert await peer.read() == answer(number, str(number))
        assert (theirs.deaf, theirs.backlog) == (False, None)


async def test_room_is_shared(serve: Serve) -> None:
    """Who waits is served in turn, and a peer that leaves waits no more."""
    async with serve(Service(hold), limit=1) as server:
        peers = [await server.peer() for _ in range(3)]
        for number, one in enumerate(peers):
            one.request(number)
            await eventually(lambda: server.intake.outstanding or server.intake.waiting)
        await eventually(lambda: len(server.intake.waiting) == 2)
        (first,) = server.service.deliveries
        peers[1].close()
        await eventually(lambda: len(server.intake.connections) == 2 or True)
        first.answer()
        assert await peers[0].read() == answer(0)
        deliveries = await server.service.came(2)
        if deliveries[1].data == 1:  # it was delivered before the end was seen
            deliveries[1].end()
            deliveries = await server.service.came(3)
        deliveries[-1].answer()
        assert await peers[2].read() == answer(2)


async def test_lost_while_waiting(serve: Serve) -> None:
    """What a lost peer had waiting is dropped."""
    async with serve(Service(hold), limit=1) as server:
        peer = await server.peer()
        peer.request(1)
        peer.request(2)
        (first,) = await server.service.came(1)
        (theirs,) = server.intake.connections
        await eventually(lambda: server.intake.waiting)
        theirs.abort("test")
        await asyncio.wait_for(first.cancelled.wait(), 10)
        assert not server.intake.waiting
        assert (server.intake.outstanding, len(server.service.deliveries)) == (0, 1)


async def test_very_many_tiny_frames(serve: Serve) -> None:
    """100,000 requests at once are all answered, in order and in small parts."""
    service = Service(at_once=True)
    async with serve(service, max_send_buffer_size=0) as server:
        peer = await server.peer()
        text = frame(b'{"pattern":"a","id":1}')
        reading = asyncio.ensure_future(
            peer.reader.readexactly(100_000 * len(b'25#{"isDisposed":true,"id":1}'))
        )
        peer.writer.write(text * 100_000)
        async with asyncio.timeout(60):
            data = await reading
        assert data.count(b'"id":1}') == 100_000


async def test_parts_are_small(serve: Serve) -> None:
    """However much one read brought, a tick delivers a bounded part of it."""
    service = Service(at_once=True)
    ticks: list[int] = []
    async with serve(service) as server:
        peer = await server.peer()
        loop = asyncio.get_running_loop()
        before = 0

        def tick() -> None:
            nonlocal before
            ticks.append(len(service.deliveries) - before)
            before += ticks[-1]
            if before < 8000:
                loop.call_soon(tick)

        tick()
        peer.writer.write(frame(b'{"pattern":"a"}') * 8000)
        await service.came(8000)
        await eventually(lambda: before == 8000)
    assert max(ticks) <= 2 * connection.AT_ONCE


async def test_no_recursion(serve: Serve) -> None:
    """Many peers that wait for room, each done at once, are no deeper than one."""
    first_come = True

    def answer_at_once(delivery: Delivery) -> None:
        nonlocal first_come
        if first_come:
            first_come = False
        else:
            delivery.answer()

    service = Service(answer_at_once, at_once=True)
    async with serve(service, limit=1, max_connections_per_address=1000) as server:
        holder = await server.peer()
        holder.request()
        await service.came(1)
        peers = [await server.peer() for _ in range(300)]
        for one in peers:
            one.request()
        await eventually(lambda: len(server.intake.waiting) == 300)
        service.deliveries[0].answer()
        for one in peers:
            assert await one.read() == answer()
        assert server.intake.outstanding == 0


async def test_failing_service_stops_nobody(serve: Serve) -> None:
    """A bug behind the transport costs its connection, and no room."""

    def fail(delivery: Delivery) -> None:
        if delivery.data == "fail":
            raise ZeroDivisionError
        delivery.answer()

    loop = asyncio.get_running_loop()
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    service = Service(fail, at_once=True)
    async with serve(service, limit=1) as server:
        for _ in range(3):
            peer = await server.peer()
            peer.request("fail")
            assert await peer.ended() == b""
        peer = await server.peer()
        peer.request()
        assert await peer.read() == answer()
        assert server.intake.outstanding == 0
    assert len(errors) == 3


# --- a peer that does not read ---


CAP = 1024 * 1024
LARGE = b'"' + b"x" * 60_000 + b'"'


async def test_unread_output_pauses_reading(serve: Serve) -> None:
    """Of a peer that leaves half the cap unread nothing more is read or begun."""
    service = Service(lambda delivery: delivery.answer(LARGE))
    async with serve(service, limit=10, max_send_buffer_size=4 * CAP) as server:
        peer = await server.peer(receive=4096, limit=1024)
        for _ in range(200):
            peer.request()
        (theirs,) = await connections(server)
        await eventually(lambda: theirs.clogged and not server.intake.outstanding)
        assert theirs.deaf
        assert theirs.transport.get_write_buffer_size() < 3 * CAP
        count = len(service.deliveries)
        assert count < 200
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(service.deliveries) == count
        for _ in range(200):
            await peer.read()
        assert len(service.deliveries) == 200


async def test_unread_output_is_capped(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """What one peer leaves unread stays under twice the cap, and it is cut."""
    service = Service(hold)
    async with serve(service, limit=1000, max_send_buffer_size=CAP) as server:
        peer = await server.peer(receive=4096, limit=1024)
        peer.request()
        (delivery,) = await service.came(1)
        (theirs,) = server.intake.connections
        most = 0
        while not theirs.lost:
            delivery.say(LARGE, last=False)
            theirs.flush()
            most = max(most, theirs.transport.get_write_buffer_size())
        assert most < 2 * CAP
        await asyncio.wait_for(delivery.cancelled.wait(), 10)
        for _ in range(20):
            delivery.say(LARGE, last=False)
    assert "the peer left more than 1048576 bytes unread" in caplog.text
    assert "socket.send() raised" not in caplog.text


async def test_sender_waits_for_the_reader(serve: Serve) -> None:
    """A stream is held back until its peer reads on."""
    async with serve(Service(hold)) as server:
        peer = await server.peer(receive=4096, limit=1024)
        peer.request()
        (delivery,) = await server.service.came(1)
        waiting = None
        count = 0
        while waiting is None:
            waiting = delivery.respond(Reply("7", LARGE, last=False))
            count += 1
        held = asyncio.ensure_future(waiting)
        also = asyncio.ensure_future(delivery.respond(Reply("7", LARGE, last=False)))
        await asyncio.sleep(0)
        assert not held.done()
        for _ in range(count + 1):
            await peer.read()
        await asyncio.wait_for(asyncio.gather(held, also), 10)
        delivery.answer()


async def test_sender_of_a_lost_reader(serve: Serve) -> None:
    """Who waits for a peer that is lost gets an error."""
    async with serve(Service(hold)) as server:
        peer = await server.peer(receive=4096, limit=1024)
        peer.request()
        (delivery,) = await server.service.came(1)
        waiting = None
        while waiting is None:
            waiting = delivery.respond(Reply("7", LARGE, last=False))
        peer.close()
        with pytest.raises(ConnectionLost):
            await asyncio.wait_for(waiting, 10)


async def test_sender_of_a_vanished_host(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for a host that acknowledges nothing is not kept for ever."""
    monkeypatch.setattr(connection, "CHECK", 0.01)
    gone = iter((False, True))
    monkeypatch.setattr(connection, "has_vanished", lambda _: next(gone))
    async with serve(Service(hold)) as server:
        peer = await server.peer(receive=4096, limit=1024)
        peer.request()
        (delivery,) = await server.service.came(1)
        waiting = None
        while waiting is None:
            waiting = delivery.respond(Reply("7", LARGE, last=False))
        with pytest.raises(ConnectionLost, match="host has vanished"):
            await asyncio.wait_for(waiting, 10)


async def test_refused_peer_does_not_linger(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that is refused and reads nothing is gone after a moment."""
    monkeypatch.setattr(connection, "LINGER", 0.05)
    async with serve(Service(hold)) as server:
        peer = await server.peer(receive=4096, limit=1024)
        peer.request()
        (delivery,) = await server.service.came(1)
        (theirs,) = server.intake.connections
        while not theirs.paused:
            delivery.say(LARGE, last=False)
        theirs.refuse("test")
        await asyncio.wait_for(delivery.cancelled.wait(), 10)


async def test_client_is_held_back(serve: Serve) -> None:
    """A client whose server does not read waits, and then goes on."""
    async with serve(Service(hold), limit=1) as server, server.link() as calls:
        waiting = None
        while waiting is None:
            waiting = calls.send("a", LARGE, UNSET)
        await server.service.came(1)
        server.limit = server.intake.limit = 10**6
        server.service.deliveries[0].end()
        await asyncio.wait_for(waiting, 10)


# --- half a connection ---


async def test_half_closed_peer_is_answered(serve: Serve) -> None:
    """A stranger that ended its side gets every answer, and then our end."""
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        peer.request(1, "1")
        peer.request(2, "2")
        peer.writer.write_eof()
        first, second = await server.service.came(2)
        (theirs,) = server.intake.connections
        await eventually(lambda: theirs.peer_ended)
        first.answer()
        assert await peer.read() == answer(1, "1")
        second.answer()
        assert await peer.read() == answer(2, "2")
        assert await peer.ended() == b""


async def test_half_closed_peer_that_waits(serve: Serve) -> None:
    """What waited for room is answered as well."""
    async with serve(limit=1) as server:
        peer = await server.peer()
        for number in range(600):
            peer.request(number, str(number))
        peer.writer.write_eof()
        for number in range(600):
            assert await peer.read() == answer(number, str(number))
        assert await peer.ended() == b""


async def test_half_closed_peer_with_nothing_asked(serve: Serve) -> None:
    """A peer that awaits nothing is closed at once."""
    async with serve() as server:
        peer = await server.peer()
        peer.send({"pattern": "event"})
        peer.writer.write_eof()
        assert await peer.ended() == b""
        await server.service.came(1)


async def test_half_closed_peer_is_not_kept_for_ever(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has ended its side cannot hold a stream open without end."""
    monkeypatch.setattr(peer, "HALF_OPEN", 0.05)
    async with serve(Service(hold)) as server:
        raw = await server.peer()
        raw.request()
        raw.writer.write_eof()
        (delivery,) = await server.service.came(1)
        assert await raw.ended() == b""
        await asyncio.wait_for(delivery.cancelled.wait(), 10)


async def test_half_closed_peer_that_reads_slowly(serve: Serve) -> None:
    """The end is seen once, also where reading was paused and goes on."""
    async with serve(Service(hold)) as server:
        raw = await server.peer(receive=4096, limit=1024)
        raw.request()
        (delivery,) = await server.service.came(1)
        (theirs,) = server.intake.connections
        raw.writer.write_eof()
        await eventually(lambda: theirs.peer_ended)
        count = 0
        while not theirs.paused:
            delivery.say(LARGE, last=False)
            count += 1
        for _ in range(count):
            await raw.read()
        delivery.answer()
        assert await raw.read() == answer()
        assert await raw.ended() == b""


async def test_end_of_our_own_peer_cancels(serve: Serve) -> None:
    """A client of ours that ends is gone: its end cancels a stream at once."""
    async with serve(Service(hold)) as server, server.link() as calls:
        calls.send("stream")
        (delivery,) = await server.service.came(1)
        await calls.link.close()
        await asyncio.wait_for(delivery.cancelled.wait(), 10)


async def test_server_that_ends(serve: Serve) -> None:
    """A client whose server ends is told so, and can send no more."""
    async with serve() as server, server.link() as calls:
        calls.send("a")
        await calls.came(1)
        (theirs,) = server.intake.connections
        theirs.transport.write_eof()
        reason = await asyncio.wait_for(calls.link.closed, 10)
        assert str(reason) == "the server closed the connection"
        with pytest.raises(ConnectionLost, match="ended"):
            calls.send("a")
        calls.link.write(b"{}")


async def test_end_that_nobody_awaits(serve: Serve) -> None:
    """Who gave up waiting for the end does not disturb it."""
    async with serve() as server, server.link() as calls:
        calls.link.closed.cancel()
        calls.send("a")
        await calls.came(1)
        (theirs,) = server.intake.connections
        theirs.transport.abort()
        await eventually(lambda: calls.link.lost)


async def test_reset(serve: Serve) -> None:
    """A reset is told with the system's reason."""
    async with serve() as server, server.link() as calls:
        calls.send("a")
        await calls.came(1)
        (theirs,) = server.intake.connections
        sock = theirs.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        theirs.transport.abort()
        reason = await asyncio.wait_for(calls.link.closed, 10)
        assert "reset" in str(reason)


# --- our own extension ---


async def test_hello(serve: Serve) -> None:
    """A peer that says that it is ours is greeted once."""
    async with serve() as server:
        peer = await server.peer()
        peer.request(**PEER)
        peer.request(**PEER)
        assert [await peer.read() for _ in range(3)] == [HELLO, answer(), answer()]


async def test_no_hello_for_strangers(serve: Serve) -> None:
    """Nest sees nothing of it."""
    async with serve() as server:
        peer = await server.peer()
        peer.request(metadata={"other": "1"})
        peer.request()
        await server.intake.pause()
        assert [await peer.read() for _ in range(2)] == [answer(), answer()]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1500", 1.5),
        ("0", 0.0),
        ("٣", 0.003),
        ("-5", None),
        ("1.5", None),
        ("", None),
        ("9" * 10, None),
    ],
)
async def test_timeout(serve: Serve, text: str, seconds: float | None) -> None:
    """The caller's patience arrives, and only where it is a number."""
    async with serve() as server:
        peer = await server.peer()
        peer.request(metadata={"dm-timeout": text})
        (delivery,) = await server.service.came(1)
        assert delivery.message.timeout == seconds


async def test_headers(serve: Serve) -> None:
    """A client's headers arrive with our own; two calls alike share one text."""
    async with serve() as server, server.link() as calls:
        calls.send("a", headers={"x": "1"}, timeout=0.5)
        calls.send("a", timeout=0.0001)
        calls.send("a")
        calls.send("a")
        calls.send("a", id_=UNSET, headers={"x": "2"})
        headers = [d.message.headers for d in await server.service.came(5)]
        assert headers == [
            {"x": "1", "dm-peer": "1", "dm-timeout": "500"},
            {"dm-peer": "1", "dm-timeout": "1"},
            {"dm-peer": "1"},
            {"dm-peer": "1"},
            {"x": "2", "dm-peer": "1"},
        ]


async def test_headers_kept_are_bounded(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many timeouts there are, few texts are kept."""
    monkeypatch.setattr(link, "_MOST_METADATA", 2)
    async with serve() as server, server.link() as calls:
        for number in range(10):
            calls.send("a", timeout=number + 1.0)
        await calls.came(10)
        assert len(calls.link._metadata) <= 3


@pytest.mark.parametrize("pattern", ["dm-ping", "dm-cancel", "dm-other"])
async def test_reserved_patterns(serve: Serve, pattern: str) -> None:
    """To a stranger our own patterns are unknown, and they reach no handler."""
    async with serve() as server:
        peer = await server.peer()
        peer.send({"pattern": pattern, "data": "7"})
        peer.send({"pattern": pattern, "data": "7", "id": "1"})
        packet = await peer.read()
        assert (packet["id"], packet["status"]) == ("1", "error")
        assert not server.service.deliveries


async def test_ping(serve: Serve) -> None:
    """A peer of ours may ask whether the server lives."""
    async with serve() as server:
        peer = await server.peer()
        peer.request(**PEER)
        peer.send({"pattern": "dm-ping", "data": 0, "id": "dm-ping-1"})
        packets = [await peer.read() for _ in range(3)]
        assert sorted(packet["id"] for packet in packets) == [
            "7",
            "dm-hello",
            "dm-ping-1",
        ]


async def test_alive(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a server has no room to read, it tells peers of ours that it lives."""
    monkeypatch.setattr(peer, "STILL_ALIVE", 0.05)
    async with serve(Service(hold), limit=1) as server:
        ours, strange = await server.peer(), await server.peer()
        ours.request(1, "1", **PEER)
        assert await ours.read() == HELLO
        (first,) = await server.service.came(1)
        for one in (ours, strange):
            one.request(2, "2")
        alive = {"response": None, "isDisposed": True, "id": "dm-alive"}
        assert [await ours.read() for _ in range(2)] == [alive, alive]
        first.answer()
        assert await ours.read() == answer(1, "1")
        for number in (2, 3):
            (await server.service.came(number))[-1].answer()
        assert (await strange.read())["id"] == "2"


async def test_alive_is_told_at_a_steady_pace(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often reading stops, one timer counts; who does not read is not told."""
    monkeypatch.setattr(peer, "STILL_ALIVE", 0.05)
    async with serve(Service(hold)) as server:
        ours = await server.peer()
        ours.request(**PEER)
        await server.service.came(1)
        (theirs,) = server.intake.connections
        told: list[Reply] = []
        monkeypatch.setattr(
            peer.ServerConnection, "_answer", lambda _, r: told.append(r)
        )
        for _ in range(100):
            theirs._hold()
            theirs._go_on()
        theirs._hold()
        await eventually(lambda: told)
        assert len(told) == 1
        theirs.clogged = True
        theirs._prove_life()
        theirs.clogged = False
        theirs._go_on()
        theirs._prove_life()
        assert len(told) == 1


async def test_cancel(serve: Serve) -> None:
    """A peer of ours may cancel a request; what it does not know is no matter."""
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        peer.request(1, "a", **PEER)
        peer.request(1, "b", **PEER)
        first, second = await server.service.came(2)
        peer.send({"pattern": "dm-cancel", "data": "x"})
        peer.send({"pattern": "dm-cancel"})
        peer.send({"pattern": "dm-cancel", "data": "b"})
        await asyncio.wait_for(second.cancelled.wait(), 10)
        assert first.outcome is None
        first.answer()
        assert [await peer.read() for _ in range(2)] == [HELLO, answer(1, "a")]


async def test_client_cancels(serve: Serve) -> None:
    """A client tells a server of ours what nobody awaits any more."""
    async with serve(Service(hold)) as server, server.link() as calls:
        calls.link.forget("7", answered=False)
        calls.send("a")
        (delivery,) = await server.service.came(1)
        await eventually(lambda: calls.link.is_ours)
        calls.link.forget("8", answered=True)
        calls.link.forget("7", answered=False)
        await asyncio.wait_for(delivery.cancelled.wait(), 10)
        calls.link.abort("test")
        calls.link.forget("7", answered=False)


async def stranger(
    free_port: Callable[[], int], *texts: bytes
) -> tuple[asyncio.Server, int]:
    """Serve texts to whoever connects, and read nothing into what comes."""
    port = free_port()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(map(frame, texts)))
        await reader.read(-1)
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", port), port


async def test_silent_server_of_ours(
    free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server of ours that hangs is found, though its kernel acknowledges."""
    monkeypatch.setattr(link, "SILENCE", 0.05)
    monkeypatch.setattr(link, "PATIENCE", 0.02)
    server, port = await stranger(free_port, json.dumps(HELLO).encode())
    async with server, linked(port) as calls:
        reason = await asyncio.wait_for(calls.link.closed, 10)
        assert "the server was silent for" in str(reason)


async def test_silent_server_that_lives(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that answers our pings may be silent as long as it likes."""
    monkeypatch.setattr(link, "SILENCE", 0.2)
    monkeypatch.setattr(link, "PATIENCE", 0.1)
    async with serve() as server, server.link() as calls:
        calls.send("a")
        await calls.came(1)
        await calls.came(4)  # the answers to three pings, which nobody awaits
        assert {str(reply.id)[:8] for reply in calls[1:]} == {"dm-ping-"}


async def test_full_server_shows_that_it_lives(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it has no room to read a ping, a server tells its peers that it lives."""
    monkeypatch.setattr("django_microservices.transports.tcp.peer.STILL_ALIVE", 0.02)
    async with serve(Service(hold), limit=1) as server, server.link() as calls:
        calls.send("a")
        (first,) = await server.service.came(1)
        calls.send("b")
        await calls.came(3)
        assert {reply.id for reply in calls} == {"dm-alive"}
        first.answer()
        await server.service.came(2)


async def test_we_do_not_listen(
    free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While we do not read, the other side's silence is ours; then its time begins."""
    monkeypatch.setattr(link, "SILENCE", 0.01)
    monkeypatch.setattr(link, "PATIENCE", 0.01)
    monkeypatch.setattr(link, "CHECK", 0.01)
    server, port = await stranger(free_port, json.dumps(HELLO).encode())
    async with server, linked(port) as calls:
        await eventually(lambda: calls.link.is_ours)
        calls.link.pause_reading()
        for _ in range(10):
            timer = calls.link._timer
            await eventually(lambda: calls.link._timer is not timer)  # noqa: B023
        assert not calls.link.lost
        calls.link.resume_reading()
        await asyncio.wait_for(calls.link.closed, 10)
        calls.link.pause_reading()
        calls.link.resume_reading()


async def test_vanished_server(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that acknowledges nothing is given up, whosever server it is."""
    monkeypatch.setattr(link, "CHECK", 0.01)
    gone = iter((False, False, True))
    monkeypatch.setattr(connection, "has_vanished", lambda _: next(gone))
    async with serve() as server, server.link() as calls:
        reason = await asyncio.wait_for(calls.link.closed, 10)
        assert str(reason) == "the peer's host has vanished"


# --- replies that are none ---


@pytest.mark.parametrize("text", [b"{", b"NaN", b'{"id":"7","response":NaN}'])
async def test_reply_that_is_no_json(free_port: Callable[[], int], text: bytes) -> None:
    """What is no JSON ends the connection, with the reason."""
    server, port = await stranger(free_port, text, b'{"id":"7","response":1}')
    async with server, linked(port) as calls:
        reason = await asyncio.wait_for(calls.link.closed, 10)
        assert str(reason).startswith("a reply that cannot be read: ")
        assert calls == []


async def test_reply_that_is_no_packet(free_port: Callable[[], int]) -> None:
    """JSON that is no packet is ignored and counted."""
    server, port = await stranger(free_port, b"[]", b"null", b'{"id":"7","response":1}')
    async with server, linked(port) as calls:
        await calls.came(1)
        assert calls.link.ignored == 2


@pytest.mark.parametrize("member", [b"response", b"err"])
async def test_reply_that_is_too_deep(
    free_port: Callable[[], int], member: bytes
) -> None:
    """A reply that nests too deeply ends its own call, with what cannot be read."""
    deep = b"[" * 65 + b"]" * 65
    server, port = await stranger(free_port, b'{"id":"7","%b":%b}' % (member, deep))
    async with server, linked(port) as calls:
        (reply,) = await calls.came(1)
        assert (reply.id, reply.last) == ("7", True)
        assert reply.data is not None
        with pytest.raises(InvalidMessage):
            decode(bytes(reply.data))


# --- Nest's seams ---


class Wrapped:
    """Nest's serializer and deserializer in one: the packet in an object."""

    def serialize(self, packet: Any) -> Any:
        """Wrap."""
        return {"packet": packet}

    def deserialize(self, value: Any) -> Any:
        """Unwrap."""
        return value["packet"]


WRAPPED: Any = {"serializer": Wrapped, "deserializer": Wrapped()}


async def test_serializers(serve: Serve) -> None:
    """Both ends write and read as the settings say, our extension included."""
    async with (
        serve(Service(hold), **WRAPPED) as server,
        server.link(**WRAPPED) as calls,
    ):
        calls.send("a", b"[1]")
        calls.send("b", id_="8")
        first, second = await server.service.came(2)
        assert (first.message.pattern.route, first.data) == ("a", [1])
        await eventually(lambda: calls.link.is_ours)
        calls.link.forget("8", answered=False)
        await asyncio.wait_for(second.cancelled.wait(), 10)
        first.answer()
        (reply,) = await calls.came(1)
        assert reply.data is not None
        assert (reply.id, bytes(reply.data)) == ("7", b"[1]")


async def test_serializer_as_function(serve: Serve) -> None:
    """A function will do, and what it makes is what is sent."""

    def shout(packet: Any) -> Any:
        return {**packet, "response": "X"}

    async with serve(serializer=shout) as server:
        peer = await server.peer()
        peer.request()
        assert await peer.read() == answer("X")


async def test_serializer_that_fails(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """A caller gets the fixed error, the log the traceback."""

    def fail(packet: Any) -> Any:
        raise KeyError("s3cret")

    async with serve(serializer=fail) as server:
        peer = await server.peer()
        peer.request()
        packet = await peer.read()
        assert packet["err"] == {"status": "error", "message": "Internal server error"}
    assert "The serializer failed" in caplog.text
    assert caplog.records[0].exc_info is not None


async def test_deserializer_that_fails(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """What the deserializer refuses is no message of this wire."""
    async with serve(**WRAPPED) as server:
        peer = await server.peer()
        peer.send({"other": 1})
        assert await peer.ended() == b""
    assert "the deserializer failed: KeyError('packet')" in caplog.text


async def test_deserializer_that_makes_no_packet(serve: Serve) -> None:
    """What is no packet then is dropped by a server, ignored by a client."""
    async with serve(**WRAPPED) as server, server.link(deserializer=len) as calls:
        peer = await server.peer()
        peer.send({"packet": []})
        await eventually(lambda: server.intake.dropped)
        peer.send({"packet": {"pattern": "a", "data": 1, "id": "7"}})
        assert await peer.read() == {"packet": answer()}
        calls.link.write(b'{"packet":{"pattern":"a","id":"7"}}')
        await eventually(lambda: calls.link.ignored)


@pytest.mark.parametrize("option", ["serializer", "deserializer"])
def test_wrong_serializer(option: str) -> None:
    """What is neither function nor has Nest's method is a wrong setting."""
    with pytest.raises(
        ImproperlyConfigured, match=r"5 is neither .* \w+serialize|5 is"
    ):
        TCPTransport(**{option: 5})  # type: ignore[arg-type]


class Lines:
    """A framing of one's own: a line for each text."""

    def __init__(self, max_frame_size: int) -> None:
        self.error: str | None = None
        self.partial = False

    @staticmethod
    def write(text: bytes) -> bytes:
        """End a line."""
        return text + b"\n"

    def receive(self, data: bytes) -> list[bytes]:
        """Take whole lines."""
        if b"!" in data:
            self.error = "shouting"
            return []
        return data.splitlines()


async def test_socket_class(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Another framing replaces Nest's on both ends."""
    async with (
        serve(socket_class=Lines) as server,
        server.link(socket_class=Lines) as calls,
    ):
        calls.send("a")
        assert bytes((await calls.came(1))[0].data or b"") == b"1"
        peer = await server.peer()
        peer.writer.write(b'{"pattern":"a","data":1,"id":"7"}\n')
        assert (
            await peer.reader.readline()
            == json.dumps(answer(), separators=(",", ":")).encode() + b"\n"
        )
        peer.writer.write(b"!\n")
        await peer.ended()
    assert "shouting" in caplog.text


def test_socket_class_with_a_member_missing() -> None:
    """A framing that lacks a member is a wrong setting, and the member is named."""

    class Bad:
        error = None

        def __init__(self, limit: int) -> None:
            self.limit = limit

        write = receive = JsonSocket.write

    with pytest.raises(ImproperlyConfigured, match=r"Bad'> has no 'partial'"):
        TCPTransport(socket_class=Bad)  # type: ignore[arg-type]


# --- the end ---


async def test_drain_without_peers(serve: Serve) -> None:
    """Nobody is there, so nothing is waited for."""
    async with serve() as server:
        await asyncio.wait_for(server.intake.pause(), 10)
        assert server.intake.address == "closed"


async def test_drain_says_goodbye(serve: Serve) -> None:
    """Peers of ours are told, strangers see nothing, and who stays quiet ends it."""
    async with serve() as server, server.link() as calls:
        calls.send("a")
        await calls.came(1)
        peer = await server.peer()
        peer.request()
        assert await peer.read() == answer()
        await asyncio.wait_for(server.intake.pause(), 10)
        await eventually(lambda: calls.statuses)
        assert calls.statuses == [Status.DRAINING]
    assert await peer.ended() == b""


async def test_drain_ends_with_the_last_peer(serve: Serve) -> None:
    """When every peer has gone, waiting is over."""
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        peer.request()
        (delivery,) = await server.service.came(1)
        draining = asyncio.ensure_future(server.intake.pause())
        await eventually(lambda: server.intake.pausing)
        peer.close()
        await asyncio.wait_for(delivery.cancelled.wait(), 10)
        await asyncio.wait_for(draining, 10)


async def test_drain_waits_for_what_is_in_flight(serve: Serve) -> None:
    """What was accepted is answered, however long it takes, and what still comes."""
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        peer.request(1, "1", **PEER)
        (first,) = await server.service.came(1)
        draining = asyncio.ensure_future(server.intake.pause())
        await eventually(lambda: server.intake.address == "closed")
        with pytest.raises(ConnectionError):
            await Peer.connect(server.port)
        peer.request(2, "2")
        _, second = await server.service.came(2)
        await asyncio.wait((draining,), timeout=0.1)
        assert not draining.done()
        first.answer()
        second.answer()
        packets = [await peer.read() for _ in range(4)]
        assert packets == [HELLO, BYE, answer(1, "1"), answer(2, "2")]
        await asyncio.wait_for(draining, 10)


async def test_drain_greets_and_says_goodbye(serve: Serve) -> None:
    """A peer of ours that speaks up only now is told at once."""
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        peer.request(1, "1")
        await server.service.came(1)
        draining = asyncio.ensure_future(server.intake.pause())
        await eventually(lambda: server.intake.pausing)
        peer.request(2, "2", **PEER)
        assert [await peer.read() for _ in range(2)] == [HELLO, BYE]
        for delivery in await server.service.came(2):
            delivery.answer()
        await asyncio.wait_for(draining, 10)


async def test_drain_waits_for_a_frame_on_its_way(serve: Serve) -> None:
    """A frame whose bytes still come is waited for."""
    async with serve() as server:
        peer = await server.peer()
        text = frame(b'{"pattern":"a","data":1,"id":"7"}')
        (theirs,) = await connections(server)
        draining = asyncio.ensure_future(server.intake.pause())
        for size, byte in enumerate(text[:-1], 1):
            peer.writer.write(bytes([byte]))
            await eventually(lambda: len(theirs.socket._buffer or b"") == size)  # noqa: B023
        peer.writer.write(text[-1:])
        assert await peer.read() == answer()
        await asyncio.wait_for(draining, 10)


async def test_answers_survive_the_end(serve: Serve) -> None:
    """Input that nobody reads any more does not destroy answers already written."""
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        peer.request()
        (delivery,) = await server.service.came(1)
        delivery.answer()
        ending = asyncio.ensure_future(server.intake.close())
        await eventually(lambda: next(iter(server.intake.connections)).lost)
        peer.request(2, "2")
        assert await peer.read() == answer()
        assert await peer.ended() == b""
        peer.request(3, "3")
        peer.close()
        await asyncio.wait_for(ending, 10)
        assert len(server.service.deliveries) == 1


async def test_answer_after_the_end(serve: Serve) -> None:
    """An answer that comes too late goes nowhere, and is no error."""
    async with serve(Service(hold)) as server:
        peer = await server.peer()
        peer.request()
        (delivery,) = await server.service.came(1)
        server.intake.connections.copy().pop().end_writing()
        delivery.answer()
        assert await peer.ended() == b""
        peer.close()


async def test_peer_that_stays(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that does not go after our end is cut after a moment."""
    monkeypatch.setattr("django_microservices.transports.tcp.intake.LINGER", 0.05)
    async with serve(limit=1) as server:
        peer = await server.peer()
        peer.request()
        assert await peer.read() == answer()
        await asyncio.wait_for(server.intake.close(), 10)
        assert not server.intake.connections
        assert await peer.ended() == b""


async def test_end_with_a_backlog(serve: Serve) -> None:
    """What was kept is dropped at the end, and what is half closed just closes."""
    async with serve(Service(hold), limit=2) as server:
        waiting, half = await server.peer(), await server.peer()
        half.request()
        half.writer.write_eof()
        await server.service.came(1)
        for _ in range(5):
            waiting.request()
        await server.service.came(2)
        await eventually(lambda: server.intake.waiting)
        await eventually(lambda: any(c.peer_ended for c in server.intake.connections))
        ending = asyncio.ensure_future(server.intake.close())
        assert await waiting.ended() == b""
        assert await half.ended() == b""
        waiting.close()
        await asyncio.wait_for(ending, 10)
        assert len(server.service.deliveries) == 2


async def test_end_twice(serve: Serve) -> None:
    """Closing again, and what is closing already, does no harm."""
    async with serve() as server:
        peer = await server.peer()
        peer.request()
        await peer.read()
        (theirs,) = server.intake.connections
        theirs.refuse("test")
        theirs.refuse("again")
        theirs.abort("again")
        assert theirs.reason == "test"
        await asyncio.wait_for(server.intake.close(), 10)
        await asyncio.wait_for(server.intake.close(), 10)


async def test_client_leaves(serve: Serve) -> None:
    """Leaving the block sends what was published, closes, and waits for that."""
    async with serve() as server:
        async with server.link() as calls:
            calls.send("a", id_=UNSET)
        assert calls.link.closed.done()
        assert calls.link.driver.is_closing()
        await server.service.came(1)


async def test_client_leaves_a_server_that_does_not_read(
    free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be sent in a moment is given up."""
    monkeypatch.setattr(link, "LINGER", 0.05)
    with socket.create_server(("127.0.0.1", free_port())) as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        async with linked(silent.getsockname()[1]) as calls:
            while calls.send("a", LARGE, UNSET) is None:
                pass
        assert calls.link.closed.done()


async def test_client_that_is_cancelled(serve: Serve) -> None:
    """Cancelling leaves the block in good order."""
    async with serve() as server:

        async def stay() -> None:
            async with server.link():
                await asyncio.get_running_loop().create_future()

        task = asyncio.ensure_future(stay())
        await eventually(lambda: server.intake.connections)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: not server.intake.connections)


# --- sockets ---


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (("127.0.0.1", 80), "127.0.0.1:80"),
        (("::1", 80, 0, 0), "[::1]:80"),
        ("/run/socket", "/run/socket"),
        (None, "?"),
    ],
)
def test_address_text(name: Any, text: str) -> None:
    """Addresses are written as people do."""
    assert sockets.address_text(name) == text


class FakeSocket:
    """A socket that says what it is told."""

    def __init__(self, family: int = socket.AF_INET, **info: int) -> None:
        self.family = family
        self.info = info
        self.options: list[tuple[int, ...]] = []

    def setsockopt(self, *option: int) -> None:
        """Remember."""
        self.options.append(option)

    def getsockopt(self, level: int, name: int, size: int) -> bytes:
        """Give Linux's struct tcp_info, as far as it goes."""
        data = bytearray(size)
        data[2] = self.info.get("retransmits", 0)
        data[24:28] = self.info.get("unacked", 0).to_bytes(4, "little")
        data[56:60] = self.info.get("unheard", 0).to_bytes(4, "little")
        return bytes(data)


def test_options_of_what_is_no_tcp_socket() -> None:
    """What is no TCP socket is left alone."""
    other = FakeSocket(socket.AF_UNIX)
    sockets.set_options(other, no_delay=True)
    sockets.set_options(None, no_delay=True)
    assert other.options == []
    assert not sockets.has_vanished(other)


def test_options_that_a_system_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """An option that does not exist here is not set."""
    monkeypatch.delattr(socket, "TCP_KEEPIDLE")
    monkeypatch.delattr(socket, "TCP_INFO")
    one = FakeSocket()
    sockets.set_options(one, no_delay=True)
    assert len(one.options) == 4
    assert not sockets.has_vanished(one)


@pytest.mark.parametrize(
    ("info", "vanished"),
    [
        ({"retransmits": 5, "unacked": 2, "unheard": 7000}, True),
        ({"retransmits": 5, "unacked": 2, "unheard": 100}, False),
        ({"retransmits": 0, "unacked": 2, "unheard": 7000}, False),
        ({"retransmits": 5, "unacked": 0, "unheard": 7000}, False),
    ],
)
def test_vanished(info: dict[str, int], vanished: bool) -> None:  # noqa: FBT001
    """A host has vanished that owes an answer and was not heard for six seconds."""
    assert sockets.has_vanished(FakeSocket(**info)) is vanished


async def test_live_host_has_not_vanished(serve: Serve) -> None:
    """What the kernel tells of a live connection is understood."""
    async with serve() as server, server.link() as calls:
        calls.send("a")
        await calls.came(1)
        sock = calls.link.transport.get_extra_info("socket")
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 60)
        assert int.from_bytes(info[56:60], "little") < sockets.UNHEARD
        assert not sockets.has_vanished(sock)


async def test_log_line_is_one_line(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """What a peer sent cannot begin a line of its own in the log."""
    caplog.set_level(logging.WARNING)
    async with serve() as server:
        peer = await server.peer()
        peer.writer.write(b"\r\n\x1b[31m#")
        await peer.ended()
    (record,) = caplog.records
    assert record.getMessage().isprintable()


async def test_drain_waits_for_a_slow_reader(serve: Serve) -> None:
    """Answers that a peer is still reading are waited for; who stopped is not."""
    async with serve(Service(hold)) as server:
        slow, stuck = [await server.peer(limit=1024) for _ in range(2)]
        for number, one in enumerate((slow, stuck)):
            one.request(number)
        count = 220
        for delivery in await server.service.came(2):
            for _ in range(count):
                delivery.say(LARGE, last=False)
            delivery.answer()
        draining = asyncio.ensure_future(server.intake.pause())
        for _ in range(count):
            await slow.read()
        assert not draining.done()
        assert await slow.read() == answer(0)
        await asyncio.wait_for(draining, 10)
        assert any(theirs.paused for theirs in server.intake.connections)
        for theirs in server.intake.connections:
            theirs.transport.abort()


async def test_a_connection_is_one_of_two() -> None:
    """What is read is for the server's or the client's half to handle."""
    half = connection.Connection(TCPTransport(), asyncio.get_running_loop())
    with pytest.raises(NotImplementedError):
        half.texts_received([])


def test_transports_are_named() -> None:
    """A wire's file is imported when it is named; what is no wire is an error."""
    assert transports.TCPTransport is TCPTransport
    with pytest.raises(AttributeError, match="no attribute 'CarrierPigeon'"):
        getattr(transports, "CarrierPigeon")  # noqa: B009 - mypy knows better


async def test_a_transport_is_two_methods() -> None:
    """The base class serves and calls nobody."""
    bare = transports.Transport()
    with pytest.raises(NotImplementedError):
        bare.serve([], Service(), print, limit=1)
    with pytest.raises(NotImplementedError):
        bare.connect(print, print)
