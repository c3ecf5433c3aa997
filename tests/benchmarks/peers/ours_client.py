"""Our async client, through the whole pipeline.

Its heap is frozen as docs/topics/performance.md advises; ``runmicroservice`` does so
itself.
"""

import gc

import django
import uvloop

from django_microservices import clients

from .commands import obey


class Ours:
    """Our verbs under the names that the driver uses."""

    def __init__(self) -> None:
        self._client = clients["BENCH"]
        self.send = self._client.asend
        self.emit = self._client.aemit

    @property
    def confirms(self) -> bool:
        """Whether the wire confirms each event; known after the first call."""
        config = self._client._config
        return config is not None and config.transport.confirms


async def _main() -> None:
    await obey(Ours())
    await clients["BENCH"].aclose()


django.setup()
gc.collect()
gc.freeze()
uvloop.run(_main())
