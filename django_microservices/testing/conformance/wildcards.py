"""Wildcards: the same handlers run on every wire, whatever copies it makes."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from ...dispatch.decorators import event_pattern, message_pattern
from ...exceptions import MicroserviceError
from ...wire.context import MessageContext
from .bench import Bench


class WildcardCases(Bench):
    """Wildcards. Messages go to ``<name>.a.b``, in the spelling of the wire."""

    @property
    def exact(self) -> str:
        """The pattern that is the message's own."""
        return self.pattern("a", "b")

    @property
    def narrow(self) -> str:
        """A pattern with one level open."""
        return self.pattern("a", self._single)

    @property
    def as_narrow(self) -> str:
        """Another one that leaves as much open."""
        return self.pattern(self._single, "b")

    @property
    def wide(self) -> str:
        """A pattern that is open behind the test's name."""
        return self.pattern(self.grammar.multi or "*")

    @property
    def _single(self) -> str:
        return self.grammar.single or "*"

    def answering(self, name: str, *patterns: str) -> Callable[..., Any]:
        """Make a handler of requests that answers with a name."""

        @message_pattern(*patterns)
        async def handler(_: Any) -> str:
            return name

        return handler

    def noting(self, ran: list[str], name: str, *patterns: str) -> Callable[..., Any]:
        """Make a handler of events that notes a name."""

        @event_pattern(*patterns)
        async def handler(_: Any) -> None:
            ran.append(name)

        return handler

    async def test_request_goes_to_its_own_pattern(self) -> None:
        """Of all handlers that match, the one of the very pattern answers."""
        self.needs("wildcards")
        async with self.talking(
            self.answering("wide", self.wide),
            self.answering("narrow", self.narrow),
            self.answering("exact", self.exact),
        ) as client:
            assert await client.asend(self.exact) == "exact"

    async def test_request_goes_to_the_most_specific_pattern(self) -> None:
        """Where none is the message's own, the most specific one counts."""
        self.needs("wildcards")
        async with self.talking(
            self.answering("wide", self.wide),
            self.answering("narrow", self.narrow),
        ) as client:
            assert await client.asend(self.exact) == "narrow"
            assert await client.asend(self.pattern("c", "d")) == "wide"

    async def test_request_goes_to_the_first_of_equals(self) -> None:
        """Of equally specific patterns the first that was registered counts."""
        self.needs("wildcards")
        async with self.talking(
            self.answering("first", self.narrow),
            self.answering("second", self.as_narrow),
        ) as client:
            assert await client.asend(self.exact) == "first"

    async def test_request_of_several_patterns_is_answered_once(self) -> None:
        """A handler whose patterns overlap runs once."""
        self.needs("wildcards")
        ran: list[str] = []

        @message_pattern(self.wide, self.narrow, self.exact)
        async def counted(_: Any) -> int:
            ran.append("it")
            return len(ran)

        async with self.talking(counted) as client:
            answers = [await client.asend(self.exact) for _ in range(3)]
        assert answers == [1, 2, 3]

    async def test_event_runs_all_that_match_once(self) -> None:
        """An event runs every handler that matches, each once for each message."""
        self.needs("wildcards")
        ran: list[str] = []
        async with self.talking(
            self.noting(ran, "exact", self.exact),
            self.noting(ran, "narrow", self.narrow),
            self.noting(ran, "as narrow", self.as_narrow),
            self.noting(ran, "wide", self.wide),
            self.noting(ran, "several", self.wide, self.narrow, self.exact),
            self.noting(ran, "other", self.pattern("x")),
            self.noting(ran, "same", self.narrow),
        ) as client:
            for _ in range(3):
                await client.aemit(self.exact)
            await self.until(lambda: len(ran) >= 18)
            await client.aemit(self.pattern("x"))
            await self.until(lambda: len(ran) >= 21)
        assert Counter(ran) == {
            **dict.fromkeys(("exact", "narrow", "as narrow", "same"), 3),
            **dict.fromkeys(("wide", "several"), 4),
            "other": 1,
        }

    async def test_handler_sees_the_name(self) -> None:
        """The context's pattern is the message's, and not the handler's."""
        self.needs("wildcards")

        @message_pattern(self.narrow)
        async def named(_: Any, context: MessageContext[Any]) -> str:
            return context.pattern

        async with self.talking(named) as client:
            assert await client.asend(self.exact) == self.exact

    async def test_answers_are_no_events(self) -> None:
        """What answers a request reaches no handler, however wide its pattern."""
        self.needs("wildcards")
        ran: list[str] = []
        async with self.talking(
            self.answering("answer", self.exact),
            self.noting(ran, "wide", self.wide),
        ) as client:
            for _ in range(3):
                assert await client.asend(self.exact) == "answer"
            await client.aemit(self.pattern("event"))
            await self.until(lambda: ran)
        assert ran == ["wide"]

    async def test_wildcard_is_nowhere_to_send_to(self) -> None:
        """A message to a pattern with a wildcard is refused where it is sent."""
        self.needs("wildcards")
        ran: list[str] = []
        async with self.talking(self.noting(ran, "narrow", self.narrow)) as client:
            with pytest.raises((ValueError, MicroserviceError)):
                await client.asend(self.narrow, timeout=1)
            with pytest.raises((ValueError, MicroserviceError)):
                await client.aemit(self.wide, timeout=1)
            await client.aemit(self.exact)
            await self.until(lambda: ran)
        assert ran == ["narrow"]
