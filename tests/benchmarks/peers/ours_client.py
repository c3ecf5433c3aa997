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
        client = clients["BENCH"]
        self.send = client.asend
        self.emit = client.aemit


async def _main() -> None:
    await obey(Ours())
    await clients["BENCH"].aclose()


django.setup()
gc.collect()
gc.freeze()
uvloop.run(_main())
