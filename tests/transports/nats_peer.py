"""Another client of NATS, nats-py: it knows nothing of ours."""

from types import TracebackType
from typing import Any, Self

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg


class Peer:
    """A connection by nats-py."""

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        self.options = options
        self.client: Client

    async def __aenter__(self) -> Self:
        """Connect."""
        self.client = await nats.connect(
            self.url, allow_reconnect=False, **self.options
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        await self.client.close()

    async def settled(self) -> None:
        """Return when the server has taken all that was said.

        The PING of nats-py 2.16 overtakes what waits to be written, and only a second
        one comes after it.
        """
        for _ in range(2):
            await self.client.flush()

    async def publish(
        self,
        subject: str,
        body: bytes,
        *,
        reply: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        """Publish, and return when the server has it."""
        await self.client.publish(subject, body, reply, headers)
        await self.settled()

    async def request(self, subject: str, body: bytes, **more: Any) -> Msg:
        """Ask, and return the answer."""
        return await self.client.request(subject, body, timeout=10, **more)

    async def dead_letters(self, subject: str) -> list[dict[str, str]]:
        """Return the headers of the dead letters below a subject."""
        jetstream = self.client.jetstream()
        found = []
        consumer = await jetstream.subscribe(
            subject, stream="events-dead", ordered_consumer=True
        )
        try:
            while True:
                message = await consumer.next_msg(timeout=0.1)
                found.append(message.headers or {})
        except TimeoutError:
            return found
