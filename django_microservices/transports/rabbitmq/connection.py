"""One connection to a broker: kept alive, and written to once in a tick."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pamqp import base, commands

from ...exceptions import ConnectionLost, InvalidMessage, MicroserviceError
from ...wire.status import Status
from ...wire.text import shown
from ..sockets import has_vanished, set_options
from ..stream import EAGER, EAGER_BYTES
from .address import Address
from .errors import BrokerClosed
from .frames import BEAT, PROTOCOL, method
from .gate import Gate
from .handshake import Handshake
from .protocol import Parser

if TYPE_CHECKING:
    from ..base import Changed
    from .channel import Channel

HIGH_WATER = 64 * 1024
FULL = 4 * 1024 * 1024
"""Bytes that wait for the broker; beyond them publishers wait too."""
LINGER = 1.0
"""Seconds for the broker's last word."""
CHECK = 1.0
MISSED = 1.5
"""Heartbeats without a sign of life after which a broker is gone: it sends two in the
time of one."""
_BLOCKED, _FULL = "blocked", "full"
_CONTROL = 0
_SUCCESS = 200


class Manners(NamedTuple):
    """How a connection behaves: options of the transport.

    ``heartbeat`` is in seconds, ``max_message_size`` in bytes, and ``properties`` are
    what the broker is told of us.
    """

    heartbeat: float
    max_message_size: int
    properties: Mapping[str, Any]


class Connection(asyncio.Protocol):
    """A connection and its channels.

    ``opened`` ends when the broker has let us in, ``closed`` with the reason of the
    end; ``lost`` says that nothing can be written any more, ``paused`` that the broker
    is behind in reading, ``deaf`` that we do not read.
    """

    def __init__(
        self,
        manners: Manners,
        address: Address,
        loop: asyncio.AbstractEventLoop,
        changed: "Changed",
    ) -> None:
        self.address = address
        self.loop = loop
        self.gate = Gate()
        self.channels: dict[int, Channel] = {}
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[MicroserviceError] = loop.create_future()
        self.lost = False
        self.paused = False
        self.deaf = False
        self.before_flush: Callable[[], None] | None = None
        self._changed = changed
        self._parser = Parser(manners.max_message_size)
        self._handshake = Handshake(address, manners.properties, manners.heartbeat)
        self._reason: MicroserviceError | None = None
        self._out: list[bytes] = []
        self._out_size = 0
        self._will_flush = False
        self._heard = self._written = self._watched = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def frame_max(self) -> int:
        """The largest frame that both sides agreed on, in bytes."""
        return self._handshake.frame_max

    # --- life ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say which protocol we speak."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        set_options(transport.get_extra_info("socket"), no_delay=True)
        self.transport.write(PROTOCOL)
        self._heard = self._written = self._watched = self.loop.time()
        self._timer = self.loop.call_later(CHECK, self._watch)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody, with the reason."""
        text = "the broker closed the connection"
        if not self.opened.done():
            text += " in the middle of the handshake"
        self.lose(ConnectionLost(text if exc is None else f"{text}: {exc}"))

    def lose(self, reason: MicroserviceError) -> None:
        """Nothing goes out any more, nothing is awaited; the first reason counts."""
        if self.lost:
            return
        self.lost = True
        if self._timer is not None:
            self._timer.cancel()
        self._out.clear()
        self.gate.lose(reason)
        channels = tuple(self.channels.values())
        self.channels.clear()
        for channel in channels:
            channel.end(reason)
        if not self.opened.done():
            self.opened.set_exception(reason)
            self.opened.exception()  # nobody may be waiting
        if not self.closed.done():
            self.closed.set_result(reason)

    def abort(self, reason: MicroserviceError) -> None:
        """End at once."""
        self.lose(reason)
        if self.transport is not None:
            self.transport.abort()

    async def close(self) -> None:
        """Say goodbye, and return when the broker has, or has not in time."""
        if not self.lost and self._handshake.is_done:
            self.write(method(_CONTROL, commands.Connection.Close(_SUCCESS, "", 0, 0)))
            self.flush()
            await asyncio.wait((self.closed,), timeout=LINGER)
        self.abort(ConnectionLost("the connection was closed"))

    # --- in ---

    def data_received(self, data: bytes) -> None:
        """Hand what was read to the channels."""
        self._heard = self.loop.time()
        channels, parser = self.channels, self._parser
        for number, item in parser.receive(data):
            channel = channels.get(number)
            if channel is not None:
                channel.received(item)
            elif number == _CONTROL and not self.lost:
                self._control(item)
        if parser.error is not None and not self.lost:
            self._refuse(*parser.error)

    def eof_received(self) -> None:
        """Let the transport close: the broker has gone."""

    def _refuse(self, code: int, text: str) -> None:
        if not self.opened.done():
            text = f"{text}: is this a broker of AMQP 0-9-1?"
        self.write(method(_CONTROL, commands.Connection.Close(code, text[:255], 0, 0)))
        self.flush()
        self.abort(ConnectionLost(f"the broker sent {text}"))

    def _control(self, item: Any) -> None:
        if not self._handshake.is_done:
            self._shake_hands(item)
        elif isinstance(item, commands.Connection.Close):
            self.write(method(_CONTROL, commands.Connection.CloseOk()))
            self.flush()
            self.lose(BrokerClosed.of(item))
            self.transport.close()
        elif isinstance(item, commands.Connection.CloseOk):
            self.abort(ConnectionLost("the connection was closed"))
        elif isinstance(item, commands.Connection.Blocked):
            self.gate.shut(_BLOCKED)
            self._changed(Status.BLOCKED)
        elif isinstance(item, commands.Connection.Unblocked):
            self.unblock()

    def unblock(self) -> None:
        """The broker takes something again, or is reached by another connection."""
        if self.gate.open(_BLOCKED):
            self._changed(Status.UNBLOCKED)

    def _shake_hands(self, item: base.Frame) -> None:
        handshake = self._handshake
        try:
            for answer in handshake.answer(item):
                self.write(method(_CONTROL, answer))
        except BrokerClosed as refusal:
            self.abort(refusal.when_opening())
        except InvalidMessage as error:
            self.abort(ConnectionLost(f"the broker sent {error}"))
        else:
            self._parser.frame_max = max(self._parser.frame_max, handshake.frame_max)
            if handshake.is_done:
                self.opened.set_result(None)

    def pause_reading(self) -> None:
        """Let TCP hold the broker back."""
        if not (self.lost or self.deaf):
            self.deaf = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on; that nothing was heard meanwhile was our doing."""
        if self.deaf and not self.lost:
            self.deaf = False
            self._heard = self.loop.time()
            self.transport.resume_reading()

    # --- out ---

    def write(self, data: bytes) -> None:
        """Send something, together with what else this tick writes."""
        if self.lost:
            return
        out = self._out
        out.append(data)
        self._out_size += len(data)
        if len(out) >= EAGER or self._out_size >= EAGER_BYTES:
            self.flush()
        elif not self._will_flush:
            self.flush_soon()

    def write_with(self, frames: Iterable[bytes]) -> None:
        """Send frames with what is being flushed; for :attr:`before_flush`."""
        self._out.extend(frames)

    def flush_soon(self) -> None:
        """Have :meth:`flush` called when this tick ends."""
        if not self._will_flush:
            self._will_flush = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._will_flush = False
        self.flush()

    def flush(self) -> None:
        """Hand what was written to the socket."""
        if self.lost:
            return
        if self.before_flush is not None:
            self.before_flush()
        out = self._out
        if not out:
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self._out_size = 0
        self._written = self.loop.time()
        self.transport.write(data)
        if self.paused and self.unsent > FULL:
            self.gate.shut(_FULL)

    @property
    def unsent(self) -> int:
        """Count the bytes that wait for the broker to read."""
        return self.transport.get_write_buffer_size()

    def pause_writing(self) -> None:
        """The broker reads too slowly."""
        self.paused = True

    def resume_writing(self) -> None:
        """The broker has caught up."""
        self.paused = False
        self.gate.open(_FULL)

    # --- a broker that is gone ---

    def _watch(self) -> None:
        """Tell the broker that we live, and see that it does, every second.

        A loop that was held up itself first reads what has come in between.
        """
        now = self.loop.time()
        was_held_up = now - self._watched > 2 * CHECK
        self._watched = now
        heartbeat = self._handshake.heartbeat
        if heartbeat and now - self._written > heartbeat / 2 - CHECK / 2:
            self.write(BEAT)
        silence = 0.0 if self.deaf or was_held_up else now - self._heard
        if heartbeat and silence > MISSED * heartbeat:
            self.abort(ConnectionLost(f"the broker was silent for {silence:.0f} s"))
        elif has_vanished(self.transport.get_extra_info("socket")):
            self.abort(ConnectionLost("the broker's host has vanished"))
        else:
            self._timer = self.loop.call_later(CHECK, self._watch)

    def __repr__(self) -> str:
        return f"<Connection to {shown(str(self.address))}>"
