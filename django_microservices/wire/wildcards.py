"""Wildcards in patterns: one matcher, driven by the grammar of each wire.

A pattern becomes a row of elements, each the set of units it accepts, with loops where
any number of units may pass. A unit is a level of the name, or a byte for Redis. All
positions of the row advance together, as the bits of one integer, so that a name costs
one step for each of its units, whatever the pattern.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from types import EllipsisType

import msgspec

Unit = str | int
Element = frozenset[Unit] | None  # None accepts every unit
Token = Element | EllipsisType  # the ellipsis is a loop


class Grammar(msgspec.Struct, frozen=True, eq=False):
    """How the patterns of one wire spell wildcards.

    A message goes to the handler whose pattern is its name, else to the matching one
    of the greatest :meth:`specificity`, else to the first that was registered.
    """

    separator: str = ""
    single: str | None = None  # matches one level
    multi: str | None = None  # matches the levels that are left
    multi_anywhere: bool = False  # ... or any levels in between
    multi_needs_level: bool = False
    empty_levels: bool = True
    empty_name_has_level: bool = True
    hides_dollar: bool = False  # a leading wildcard does not match "$SYS"
    group_prefix: str = ""  # "<prefix><group>/" in front of a pattern is no part of it
    glob: bool = False

    def is_wildcard(self, pattern: str) -> bool:
        """Whether ``pattern`` can match a name other than its own text."""
        if self.glob:
            return _GLOB_SPECIAL.search(pattern) is not None
        row = _compiled(self, pattern)
        return not row.is_literal or self._filter(pattern) != pattern

    def matches(self, pattern: str, name: str) -> bool:
        """Whether ``pattern`` matches the whole of ``name``, in time linear in it.

        ``pattern`` is compiled once; it must not come from a peer.
        """
        row = _compiled(self, pattern)
        if self.hides_dollar and name[:1] == "$" and row.starts_with_wildcard:
            return False
        units = self.units(name)
        return row.matches(units) and (self.empty_levels or "" not in units)

    def specificity(self, pattern: str) -> tuple[int, ...]:
        """Return what is greater the more specific ``pattern`` is.

        It counts the literals, then the length, then what wildcards leave open. What
        matches only a part of the names of another pattern is always the greater.
        """
        return _compiled(self, pattern).specificity

    def overlaps(self, a: str, b: str) -> bool:
        """Whether some name is matched by both patterns; exact, not conservative."""
        one, other = _compiled(self, a), _compiled(self, b)
        if self.hides_dollar and (
            (one.starts_with_wildcard and self._filter(b)[:1] == "$")
            or (other.starts_with_wildcard and self._filter(a)[:1] == "$")
        ):
            return False
        return one.overlaps(other)

    def units(self, name: str) -> Sequence[Unit]:
        """Split ``name`` into what one element of a pattern accepts."""
        if self.glob:
            return name.encode(errors="surrogatepass")
        if not name and not self.empty_name_has_level:
            return ()
        return name.split(self.separator) if self.separator else (name,)

    def tokens(self, pattern: str) -> Iterator[Token]:
        """Read ``pattern``; a wildcard in a place where it has no meaning is text."""
        if self.glob:
            yield from _glob_tokens(pattern.encode(errors="surrogatepass"))
            return
        levels = self.units(self._filter(pattern))
        for left, level in zip(reversed(range(len(levels))), levels, strict=True):
            if level == self.multi and (self.multi_anywhere or not left):
                yield from (None, ...) if self.multi_needs_level else (...,)
            else:
                yield None if level == self.single else frozenset((level,))

    def _filter(self, pattern: str) -> str:
        if self.group_prefix and pattern.startswith(self.group_prefix):
            _, slash, rest = pattern.removeprefix(self.group_prefix).partition(
                self.separator
            )
            return rest if slash else pattern
        return pattern


EXACT = Grammar()
NATS = Grammar(".", "*", ">", multi_needs_level=True, empty_levels=False)
MQTT = Grammar("/", "+", "#", hides_dollar=True, group_prefix="$share/")
AMQP = Grammar(".", "*", "#", multi_anywhere=True, empty_name_has_level=False)
REDIS_GLOB = Grammar(glob=True)


class _Row:
    """A compiled pattern."""

    __slots__ = ("_any", "_loops", "_moves", "elements", "end")

    def __init__(self, tokens: Iterable[Token]) -> None:
        self.elements: list[Element] = []
        loops = set()
        for token in tokens:
            if isinstance(token, EllipsisType):
                loops.add(len(self.elements))
            else:
                self.elements.append(token)
        self.end = len(self.elements)
        self._loops = _bits(self._settled(loop) for loop in loops)
        self._any = self._accepting(None)
        units = {unit for element in self.elements for unit in element or ()}
        self._moves = {unit: self._accepting(unit) for unit in units}

    def _settled(self, loop: int) -> int:
        """Put a loop behind the wildcards that follow it: ``#.*`` is ``*.#``."""
        while loop < self.end and self.elements[loop] is None:
            loop += 1
        return loop

    def _accepting(self, unit: Unit | None) -> int:
        return _bits(
            position
            for position, element in enumerate(self.elements)
            if element is None or unit in element
        )

    def matches(self, units: Iterable[Unit]) -> bool:
        moves, anything, loops = self._moves, self._any, self._loops
        state = 1
        for unit in units:
            state = (state & moves.get(unit, anything)) << 1 | (state & loops)
            if not state:
                return False
        return state >> self.end == 1

    @property
    def is_literal(self) -> bool:
        return not self._loops and None not in self.elements

    @property
    def starts_with_wildcard(self) -> bool:
        return bool(self._loops & 1 or self._any & 1)

    @property
    def specificity(self) -> tuple[int, ...]:
        choices = [256 if e is None else len(e) for e in self.elements]
        return choices.count(1), self.end, -sum(choices), -self._loops.bit_count()

    def overlaps(self, other: "_Row") -> bool:
        waiting = [(0, 0)]
        seen = set(waiting)
        while waiting:
            steps = self._steps(other, *waiting.pop()) - seen
            seen |= steps
            waiting += steps
        return (self.end, other.end) in seen

    def _steps(self, other: "_Row", here: int, there: int) -> set[tuple[int, int]]:
        return {
            (mine, theirs)
            for accepted, mine in self.ways(here)
            for welcome, theirs in other.ways(there)
            if _meet(accepted, welcome)
        }

    def ways(self, position: int) -> Iterator[tuple[Element, int]]:
        if self._loops >> position & 1:
            yield None, position
        if position < self.end:
            yield self.elements[position], position + 1


def _bits(positions: Iterable[int]) -> int:
    return sum(1 << position for position in set(positions))


def _meet(one: Element, other: Element) -> bool:
    if one is None or other is None:
        return one is other or bool(one or other)
    return not one.isdisjoint(other)


@functools.lru_cache(maxsize=4096)
def _compiled(grammar: Grammar, pattern: str) -> _Row:
    return _Row(grammar.tokens(pattern))


# --- Redis, as stringmatchlen of its util.c reads a glob ---------------------------

_GLOB_SPECIAL = re.compile(r"[*?\[\\]")
_GLOB = re.compile(
    rb"\[(?P<other>\^?)(?P<items>(?:\\.|[^\]]-.|[^\]])*)\]?|\\?(?P<one>.)", re.DOTALL
)
_ITEM = re.compile(rb"\\(?P<escaped>.)|(?P<low>.)-(?P<high>.)|.", re.DOTALL)
_EVERY = frozenset(range(256))


def _glob_tokens(pattern: bytes) -> Iterator[Token]:
    for match in _GLOB.finditer(pattern):
        if match["items"] is not None:
            yield _glob_class(match["items"], inverted=bool(match["other"]))
        elif match[0] == b"*":
            yield ...
        else:
            yield None if match[0] == b"?" else frozenset(match["one"])


def _glob_class(items: bytes, *, inverted: bool) -> Element:
    chosen: set[Unit] = set()
    for match in _ITEM.finditer(items):
        first = match["low"] or match["escaped"] or match[0]
        last = match["high"] or first
        chosen.update(range(min(first, last)[0], max(first, last)[0] + 1))
    return frozenset(_EVERY - chosen) if inverted else frozenset(chosen)
