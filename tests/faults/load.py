"""Numbers that are emitted all the time, and what became of them."""

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple, Self

from django_microservices import Client, MicroserviceError, NotConnected

RATE = 300  # events a second
SOON = 60.0  # seconds


class Away(NamedTuple):
    """When a broker went and came back, and its server with it: the loop's time.

    ``last`` is the last number that was noted before, and ``first`` one that was noted
    when all was well again: these, and what is not between them, must all have come.
    """

    went: float
    came: float
    well: float
    last: int
    first: int

    def explains(self, number: int, when: float, margin: float) -> bool:
        """Whether a number may be lost: emitted then, or so many seconds about it."""
        is_between = self.last < number < self.first
        return is_between and self.went - margin < when < self.came + margin


class Load:
    """Emits numbers at a rate; ``accepted`` are those that ``aemit`` took, and when.

    With ``retries`` each is emitted until it is taken, with ``named`` under an id of
    its own. ``refused`` counts the errors, ``unsure`` those of them that leave open
    whether the broker has it.
    """

    def __init__(
        self,
        client: Client,
        pattern: str,
        *,
        retries: bool = False,
        named: bool = False,
    ) -> None:
        self.client = client
        self.pattern = pattern
        self.retries = retries
        self.named = named
        self.accepted: dict[int, float] = {}
        self.refused = 0
        self.unsure = 0
        self.number = 0
        self._emits: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Begin."""
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        """End, and wait for what is on its way."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        async with asyncio.timeout(SOON):
            await asyncio.gather(*self._emits)

    @property
    def all(self) -> set[int]:
        """The numbers that it has emitted, or tried to."""
        return {*range(1, self.number + 1)}

    def lost(self, seen: Collection[int]) -> set[int]:
        """Return what was taken and never seen."""
        return self.accepted.keys() - {*seen}

    def unexplained(
        self, seen: Collection[int], away: Collection[Away], *, margin: float
    ) -> set[int]:
        """Return what no absence of the broker explains of what was lost."""
        return {
            number
            for number in self.lost(seen)
            if not any(
                one.explains(number, self.accepted[number], margin) for one in away
            )
        }

    async def _run(self) -> None:
        while True:
            self.number += 1
            task = asyncio.create_task(self._emit(self.number))
            self._emits.add(task)
            task.add_done_callback(self._emits.discard)
            await asyncio.sleep(1 / RATE)

    async def _emit(self, number: int) -> None:
        time = asyncio.get_running_loop().time
        options = {"message_id": str(number)} if self.named else None
        while number not in self.accepted:
            begun = time()
            try:
                await self.client.aemit(self.pattern, number, options=options)
            except MicroserviceError as error:
                self.refused += 1
                self.unsure += not isinstance(error, NotConnected)
                if not self.retries:
                    return
                await asyncio.sleep(0.05)
            else:
                self.accepted[number] = begun


def numbers(path: Path) -> list[int]:
    """Return what servers noted in a file; a line that is cut off was not noted."""
    text = path.read_text() if path.exists() else ""
    return [int(line) for line in text.splitlines(keepends=True) if line[-1:] == "\n"]
