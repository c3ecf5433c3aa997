"""Real Nest peers as objects: a service, and clients that do what they are told."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.brokers.ports import broker_port

from .npm import HERE, NEST, NEST_11, install, script
from .process import Line, LineChild

__all__ = ["NEST", "NEST_11", "Answer", "NestClient", "NestServer", "StartNest"]

PATIENCE = 60.0  # seconds for one command; the scripts give up on a reply after 20


@dataclass(frozen=True)
class Answer:
    """What the observable of one call of a Nest client did.

    ``thrown`` tells a JavaScript Error, seen as its name, message and code, from a
    JSON value that came over the wire.
    """

    values: list[Any] = field(default_factory=list)
    error: Any = None
    failed: bool = False
    thrown: bool = False

    @property
    def value(self) -> Any:
        """The one value of a call that must have succeeded with one."""
        assert not self.failed, f"The call failed: {self.error!r}"
        assert len(self.values) == 1, f"Not one value: {self.values!r}"
        return self.values[0]


class NestServer:
    """A Nest service, ``nest/server.mjs``: over TCP on loopback, or by a broker.

    ``options`` are Nest's for its ``transport``, in Nest's spelling; a key, a cert or a
    ca is a file's path. ``handlers`` come beside those that every service here has: see
    the head of the script. With :func:`~.wires.at` it is by a broker of the tests.
    """

    def __init__(
        self,
        package: Path = NEST,
        *,
        transport: str = "TCP",
        handlers: Sequence[Mapping[str, Any]] = (),
        **options: Any,
    ) -> None:
        if transport == "TCP":
            options = {"host": "127.0.0.1", "port": broker_port(), **options}
        self.port: int = options.get("port", 0)
        argument = {"transport": transport, "options": options, "handlers": handlers}
        self.process = _start(package, "server.mjs", json.dumps(argument))

    def close(self) -> None:
        """End it."""
        self.process.close()


StartNest = Callable[..., NestServer]


class NestClient:
    """A process of Nest clients, ``nest/client.mjs``.

    ``client`` in each method is a TCP port, or a mapping of Nest's options, besides
    ``transport`` (without it TCP), ``metadata`` (sent with every packet; TCP and Redis)
    and ``name`` (calls with different names go over different connections). Other
    keywords: ``take`` (unsubscribe after so many values), ``timeout`` in milliseconds,
    ``js``, a JavaScript expression for data that JSON cannot write, and ``record``,
    what Nest's record of this wire takes (NATS: headers; MQTT: qos, retain, properties
    ...; RabbitMQ: headers, priority, expiration, persistent ...).
    """

    def __init__(self, package: Path = NEST) -> None:
        self.process = _start(package, "client.mjs")

    def call(self, op: str, client: Any, **command: Any) -> Answer:
        """Do one thing: send, emit, connect, close or statuses."""
        line = self.process.ask(_command(op, client, command)).result(PATIENCE)
        return _answer(line)

    async def acall(self, op: str, client: Any, **command: Any) -> Answer:
        """Do one thing, while this loop goes on; see :meth:`call`."""
        return _answer(await self._aask(op, client, command))

    async def send(
        self, client: Any, pattern: Any, data: Any = None, **more: Any
    ) -> Answer:
        """Send a request, and collect everything that comes back."""
        return await self.acall("send", client, pattern=pattern, data=data, **more)

    async def emit(self, client: Any, pattern: Any, data: Any, **more: Any) -> Answer:
        """Emit an event."""
        return await self.acall("emit", client, pattern=pattern, data=data, **more)

    async def send_many(
        self, client: Any, pattern: Any, items: list[Any]
    ) -> list[Answer]:
        """Send a request for each item, all in flight at once."""
        line = await self._aask("many", client, {"pattern": pattern, "items": items})
        return [_answer(each) for each in line["answers"]]

    def close(self) -> None:
        """End it."""
        self.process.close()

    async def _aask(self, op: str, client: Any, command: Mapping[str, Any]) -> Line:
        asked = self.process.ask(_command(op, client, command))
        return await asyncio.wait_for(asyncio.wrap_future(asked), PATIENCE)


def _start(package: Path, name: str, argument: str = "") -> LineChild:
    home = install(package)
    return LineChild(script(HERE / "nest" / name, argument), cwd=home)


def _command(op: str, client: Any, command: Mapping[str, Any]) -> Line:
    options = {"port": client} if isinstance(client, int) else client
    if "transport" not in options:
        options = {"transport": "TCP", "host": "127.0.0.1", **options}
    return {"op": op, "client": options, **command}


def _answer(line: Line) -> Answer:
    return Answer(**{name: value for name, value in line.items() if name != "id"})
