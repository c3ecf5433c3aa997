"""A raw AMQP client for the tests: pamqp and a blocking socket, nothing of ours."""

import socket
import struct
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import unquote, urlsplit

from pamqp import body, commands, frame, header

HEAD = 7
HEADER, BASIC = 2, 60
SECONDS = 10.0


class Got(NamedTuple):
    """A message and the method that brought it."""

    method: Any
    properties: commands.Basic.Properties
    body: bytes


class Peer:
    """One connection with one channel; each call waits for its answer."""

    def __init__(self, url: str, *, frame_max: int = 0) -> None:
        self.url = url
        self.frame_max = frame_max
        self.seen = b""  # all that the broker said

    def __enter__(self) -> Self:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        address = (parts.hostname, parts.port or 5672)
        self.socket = socket.create_connection(address, timeout=SECONDS)
        self.stream = self.socket.makefile("rwb")
        self._send(header.ProtocolHeader(), 0)
        self.read()
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        self._send(commands.Connection.StartOk(response=f"\0{user}\0{password}"), 0)
        tune = self.read()
        frame_max = self.frame_max or tune.frame_max
        self._send(commands.Connection.TuneOk(tune.channel_max, frame_max, 0), 0)
        self._send(commands.Connection.Open(), 0)
        self.read()
        self.call(commands.Channel.Open())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stream.close()
        self.socket.close()

    def _send(self, value: Any, channel: int = 1) -> None:
        self.stream.write(frame.marshal(value, channel))

    def read(self) -> Any:
        """Return the next frame's value."""
        self.stream.flush()
        head = self.stream.read(HEAD)
        size = frame.frame_parts(head)[2]
        assert size is not None, "the broker hung up"
        whole = head + self.stream.read(size + 1)
        self.seen += whole
        return frame.unmarshal(whole)[2]

    def call(self, method: Any) -> Any:
        """Send a method and return the answer."""
        self._send(method)
        return self.read()

    def publish(
        self,
        exchange: str,
        routing_key: str,
        data: bytes,
        **properties: Any,
    ) -> None:
        """Publish a message; it is where it belongs on return."""
        beside = commands.Basic.Properties(**properties)
        self._send(commands.Basic.Publish(0, exchange, routing_key))
        self._send(header.ContentHeader(0, len(data), beside))
        most = (self.frame_max or 131_072) - HEAD - 1
        for start in range(0, len(data), most):
            self._send(body.ContentBody(data[start : start + most]))
        self.call(commands.Channel.Flow(active=True))  # answered behind what was sent

    def publish_raw(
        self, exchange: str, routing_key: str, properties: bytes, data: bytes
    ) -> None:
        """Publish a message whose properties pamqp cannot write."""
        self._send(commands.Basic.Publish(0, exchange, routing_key))
        head = struct.pack(">HHQ", BASIC, 0, len(data)) + properties
        self.stream.write(struct.pack(">BHI", HEADER, 1, len(head)) + head + b"\xce")
        self._send(body.ContentBody(data))
        self.call(commands.Channel.Flow(active=True))

    def content(self, method: Any) -> Got:
        """Read the message that follows its method."""
        beside = self.read()
        data = b""
        while len(data) < beside.body_size:
            data += self.read().value
        return Got(method, beside.properties, data)

    def get(self, queue: str) -> Got | None:
        """Take a message out of a queue, if there is one."""
        method = self.call(commands.Basic.Get(0, queue, no_ack=True))
        if isinstance(method, commands.Basic.GetEmpty):
            return None
        return self.content(method)

    def drain(self, queue: str) -> list[Got]:
        """Take all messages out of a queue."""
        found = []
        while (got := self.get(queue)) is not None:
            found.append(got)
        return found

    def consume(self, queue: str) -> None:
        """Begin to consume; :meth:`next` reads what comes."""
        self.call(commands.Basic.Consume(0, queue, no_ack=True))

    def next(self) -> Got:
        """Wait for the next message of the consumer."""
        return self.content(self.read())
