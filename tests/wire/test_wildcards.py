"""Wildcards: what each wire's grammar matches, prefers and lets overlap."""

import functools
import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_microservices.wire.wildcards import (
    AMQP,
    EXACT,
    MQTT,
    NATS,
    REDIS_GLOB,
    Grammar,
)

YES, NO = True, False

MATCHES = [
    (EXACT, "a.*", "a.*", YES),
    (EXACT, "a.*", "a.b", NO),
    (EXACT, "", "", YES),
    (NATS, "a.b", "a.b", YES),
    (NATS, "a.*", "a.b", YES),
    (NATS, "a.*", "a", NO),
    (NATS, "a.*", "a.b.c", NO),
    (NATS, "*.b", "a.b", YES),
    (NATS, "a.*.c", "a.b.c", YES),
    (NATS, "a.*.c", "a.b.d", NO),
    (NATS, "a.>", "a.b.c", YES),
    (NATS, "a.>", "a", NO),
    (NATS, "a.*.>", "a.b", NO),
    (NATS, ">", "a", YES),
    (NATS, ">", "", NO),
    (NATS, "a.*", "a.", NO),
    (NATS, "a.>", "a..b", NO),
    (NATS, "a.b*", "a.bc", NO),
    (NATS, "a.b*", "a.b*", YES),
    (NATS, "a.>.b", "a.x.b", NO),
    (NATS, '{"cmd":"a.*"}', '{"cmd":"a.b"}', NO),
    (MQTT, "a/b", "a/b", YES),
    (MQTT, "a/+", "a/b", YES),
    (MQTT, "a/+", "a/", YES),
    (MQTT, "a/+", "a", NO),
    (MQTT, "a/+", "a/b/c", NO),
    (MQTT, "+/b", "/b", YES),
    (MQTT, "+", "", YES),
    (MQTT, "a/#", "a", YES),
    (MQTT, "a/#", "a/", YES),
    (MQTT, "a/#", "a/b/c", YES),
    (MQTT, "a/#", "ab", NO),
    (MQTT, "a/+/#", "a", NO),
    (MQTT, "#", "/a", YES),
    (MQTT, "#", "$SYS/uptime", NO),
    (MQTT, "+/uptime", "$SYS/uptime", NO),
    (MQTT, "$SYS/#", "$SYS/uptime", YES),
    (MQTT, "$SYS/+", "$SYS/uptime", YES),
    (MQTT, "a/#", "a/$b", YES),
    (MQTT, "a/b#", "a/b/c", NO),
    (MQTT, "a/+x", "a/bx", NO),
    (MQTT, "a/#/c", "a/b/c", NO),
    (MQTT, "$share/workers/a/+", "a/b", YES),
    (MQTT, "$share/workers/a", "a", YES),
    (MQTT, "$share/workers/a", "b", NO),
    (MQTT, "$share/workers/#", "$SYS/uptime", NO),
    (MQTT, "$share/workers", "$share/workers", YES),
    (AMQP, "a.b", "a.b", YES),
    (AMQP, "a.*", "a.b", YES),
    (AMQP, "a.*", "a", NO),
    (AMQP, "a.*", "a.", YES),
    (AMQP, "a.#", "a", YES),
    (AMQP, "a.#", "a.b.c", YES),
    (AMQP, "#", "", YES),
    (AMQP, "*", "", NO),
    (AMQP, "", "", YES),
    (AMQP, "", "a", NO),
    (AMQP, "a.#.b", "a.b", YES),
    (AMQP, "a.#.b", "a.x.y.b", YES),
    (AMQP, "a.#.b", "a.x.b.y", NO),
    (AMQP, "#.b.#", "a.b.c", YES),
    (AMQP, "#.*.#", "", NO),
    (AMQP, "#.*.#", "a", YES),
    (AMQP, "a.b#", "a.b.c", NO),
    (REDIS_GLOB, "h?llo", "hello", YES),
    (REDIS_GLOB, "h?llo", "hllo", NO),
    (REDIS_GLOB, "h*llo", "hllo", YES),
    (REDIS_GLOB, "h*llo", "heeello", YES),
    (REDIS_GLOB, "h[ae]llo", "hallo", YES),
    (REDIS_GLOB, "h[ae]llo", "hillo", NO),
    (REDIS_GLOB, "h[^e]llo", "hallo", YES),
    (REDIS_GLOB, "h[^e]llo", "hello", NO),
    (REDIS_GLOB, "h[a-c]llo", "hbllo", YES),
    (REDIS_GLOB, "h[c-a]llo", "hbllo", YES),
    (REDIS_GLOB, "h[a-c]llo", "hdllo", NO),
    (REDIS_GLOB, r"h\*llo", "h*llo", YES),
    (REDIS_GLOB, r"h\*llo", "hello", NO),
    (REDIS_GLOB, r"h[\]x]llo", "h]llo", YES),
    (REDIS_GLOB, r"h[\a-c]", "h-", YES),
    (REDIS_GLOB, r"h[\--c]", "h-", YES),
    (REDIS_GLOB, "h[]", "h", NO),
    (REDIS_GLOB, "h[", "h[", NO),
    (REDIS_GLOB, "h[ab", "hb", YES),
    (REDIS_GLOB, "h\\", "h\\", YES),
    (REDIS_GLOB, "a.*", "a.b.c", YES),
    (REDIS_GLOB, "u.*", "u.1.reply", YES),
    (REDIS_GLOB, "?", "\u00e9", NO),
    (REDIS_GLOB, "??", "\u00e9", YES),
    (REDIS_GLOB, "\u00e9*", "\u00e9a", YES),
    (REDIS_GLOB, "*", "\ud800", YES),
    (REDIS_GLOB, "a*", "a\nb", YES),
]


@pytest.mark.parametrize(("grammar", "pattern", "name", "expected"), MATCHES)
def test_a_pattern_matches_what_its_broker_matches(
    grammar: Grammar, pattern: str, name: str, *, expected: bool
) -> None:
    """Every special rule of every wire."""
    assert expected is grammar.matches(pattern, name)


@pytest.mark.parametrize(
    ("grammar", "pattern", "expected"),
    [
        (EXACT, "a.*.#.>.+", NO),
        (NATS, "a.b", NO),
        (NATS, "a.*", YES),
        (NATS, "a.>", YES),
        (NATS, "a.b*", NO),
        (NATS, "a.>.b", NO),
        (NATS, '{"cmd":"sum"}', NO),
        (MQTT, "a/b", NO),
        (MQTT, "+", YES),
        (MQTT, "a/#", YES),
        (MQTT, "a/b#", NO),
        (MQTT, "$share/group/a", YES),
        (MQTT, "$share/group", NO),
        (MQTT, "$SYS/a", NO),
        (AMQP, "#.a", YES),
        (AMQP, "", NO),
        (REDIS_GLOB, "a.b", NO),
        (REDIS_GLOB, "a*", YES),
        (REDIS_GLOB, "a?", YES),
        (REDIS_GLOB, "[a]", YES),
        (REDIS_GLOB, r"\a", YES),
    ],
)
def test_a_wildcard_matches_more_than_its_own_text(
    grammar: Grammar, pattern: str, *, expected: bool
) -> None:
    """What is no wildcard can be found by its text alone."""
    assert expected is grammar.is_wildcard(pattern)


@pytest.mark.parametrize(
    ("grammar", "ordered"),
    [
        (NATS, ["a.b.c", "a.b.*", "a.*.*", "a.*.>", "a.>", "*", ">"]),
        (MQTT, ["$share/g/a/b", "a/+", "a/+/#", "a/#", "+", "#"]),
        (AMQP, ["a.b", "a.#.b", "*.a", "a", "#.a", "#.a.#", "*.*.#", "*.#", "#"]),
        (REDIS_GLOB, ["abc", "ab[cd]", "ab[^cd]", "ab?", "ab?*", "ab*", "*b*", "*"]),
    ],
)
def test_a_request_goes_to_the_most_specific(
    grammar: Grammar, ordered: list[str]
) -> None:
    """The greatest specificity stands first."""
    ranks = [grammar.specificity(pattern) for pattern in ordered]

    assert all(before > after for before, after in itertools.pairwise(ranks))


@pytest.mark.parametrize(
    ("grammar", "one", "other"),
    [
        (AMQP, "#.*", "*.#"),
        (REDIS_GLOB, "*?", "?*"),
        (NATS, "a.*", "*.a"),
        (EXACT, "a.*", "b"),
    ],
)
def test_patterns_may_be_equally_specific(
    grammar: Grammar, one: str, other: str
) -> None:
    """Then the one that was registered first is taken."""
    assert grammar.specificity(one) == grammar.specificity(other)


@pytest.mark.parametrize(
    ("grammar", "one", "other", "expected"),
    [
        (EXACT, "a", "a", YES),
        (EXACT, "a.*", "a.b", NO),
        (NATS, "a.*", "*.b", YES),
        (NATS, "a.*", "b.*", NO),
        (NATS, "a.*", "a.*.c", NO),
        (NATS, "a.>", "*.*.c", YES),
        (NATS, "a.>", "*", NO),
        (MQTT, "a/#", "+", YES),
        (MQTT, "#", "$SYS/#", NO),
        (MQTT, "$SYS/a", "+/a", NO),
        (MQTT, "$SYS/+", "$SYS/a", YES),
        (MQTT, "$share/g/a/+", "a/b", YES),
        (AMQP, "a.#", "#.b", YES),
        (AMQP, "a.#.b", "a", NO),
        (AMQP, "#.a.#.b", "b.#.a", NO),
        (REDIS_GLOB, "a*", "*b", YES),
        (REDIS_GLOB, "a[bc]", "a[cd]", YES),
        (REDIS_GLOB, "a[bc]", "a[^bc]", NO),
        (REDIS_GLOB, "a[]", "a?", NO),
        (REDIS_GLOB, "a[]", "a*", NO),
    ],
)
def test_patterns_overlap_where_a_name_fits_both(
    grammar: Grammar, one: str, other: str, *, expected: bool
) -> None:
    """Overlap is exact and symmetric."""
    assert [expected] * 2 == [
        grammar.overlaps(one, other),
        grammar.overlaps(other, one),
    ]


@pytest.mark.parametrize(
    ("grammar", "pattern", "name"),
    [
        (AMQP, ".".join(["#.a"] * 30 + ["b"]), "a." * 20_000 + "c"),
        (REDIS_GLOB, "*a" * 30 + "b", "a" * 20_000),
    ],
)
def test_a_hostile_name_costs_one_step_for_each_of_its_units(
    grammar: Grammar, pattern: str, name: str
) -> None:
    """Thirty gaps and twenty thousand units end at once: nothing is tried twice."""
    assert not grammar.matches(pattern, name)


# --- against slow and simple matchers -----------------------------------------------


def levels_match(grammar: Grammar, pattern: list[str], name: list[str]) -> bool:
    """Match level by level, by the definition."""
    if not pattern:
        return not name
    first, *rest = pattern
    if first == grammar.multi and (grammar.multi_anywhere or not rest):
        least = 1 if grammar.multi_needs_level else 0
        skips = range(least, len(name) + 1)
        return any(levels_match(grammar, rest, name[skip:]) for skip in skips)
    return (
        bool(name)
        and (first in (grammar.single, name[0]))
        and levels_match(grammar, rest, name[1:])
    )


def glob_match(pattern: bytes, name: bytes) -> bool:
    """Match as ``stringmatchlen`` of Redis does, which tries every length of a star."""
    if not pattern:
        return not name
    if pattern[:1] == b"*":
        return any(glob_match(pattern[1:], name[i:]) for i in range(len(name) + 1))
    if not name:
        return False
    if pattern[:1] == b"[":
        found, rest = class_match(pattern[1:], name[0])
        return found and glob_match(rest, name[1:])
    if pattern[:1] == b"\\" and len(pattern) > 1:
        pattern = pattern[1:]
    elif pattern[:1] == b"?":
        return glob_match(pattern[1:], name[1:])
    return pattern[0] == name[0] and glob_match(pattern[1:], name[1:])


def class_match(pattern: bytes, byte: int) -> tuple[bool, bytes]:
    """Match one byte with what follows a bracket; return what follows the class."""
    inverted = pattern[:1] == b"^"
    pattern = pattern[inverted:]
    found = False
    while pattern and pattern[:1] != b"]":
        if pattern[:1] == b"\\" and len(pattern) > 1:
            found |= pattern[1] == byte
            pattern = pattern[2:]
        elif len(pattern) > 2 and pattern[1:2] == b"-":
            low, high = sorted((pattern[0], pattern[2]))
            found |= low <= byte <= high
            pattern = pattern[3:]
        else:
            found |= pattern[0] == byte
            pattern = pattern[1:]
    return found is not inverted, pattern[1:]


LEVELS = {NATS: "ab*>", MQTT: "ab+#", AMQP: "ab*#"}
by_levels = st.sampled_from(list(LEVELS))


def pattern_of(grammar: Grammar, longest: int = 6) -> st.SearchStrategy[str]:
    """Draw patterns of few words, so that many match."""
    words = st.lists(st.sampled_from(LEVELS[grammar]), min_size=1, max_size=longest)
    return words.map(grammar.separator.join)


@functools.cache
def short_names(grammar: Grammar) -> list[str]:
    """Return all names of up to four levels; a misplaced wildcard is a word, too."""
    words = {*"abc", grammar.multi or ""}
    rows = (itertools.product(words, repeat=size) for size in range(1, 5))
    return [*map(grammar.separator.join, itertools.chain.from_iterable(rows)), ""]


@given(st.data(), by_levels)
def test_levels_match_as_by_the_definition(
    data: st.DataObject, grammar: Grammar
) -> None:
    """Patterns of random levels agree with a matcher that tries everything."""
    pattern = data.draw(pattern_of(grammar))
    words = st.lists(st.sampled_from("abc"), min_size=1, max_size=7)
    name = data.draw(words.map(grammar.separator.join))

    expected = levels_match(
        grammar, pattern.split(grammar.separator), name.split(grammar.separator)
    )
    assert expected is grammar.matches(pattern, name)


globs = st.text(st.sampled_from("aab*?[]^-\\c\u00e9"), max_size=10)
channels = st.text(st.sampled_from("aabc-]^\\\u00e9"), max_size=8)


@given(globs, channels)
def test_globs_match_as_in_redis(pattern: str, name: str) -> None:
    """Globs of random special characters agree with Redis's own procedure."""
    expected = glob_match(pattern.encode(), name.encode())

    assert expected is REDIS_GLOB.matches(pattern, name)


@given(st.text(max_size=8), st.text(max_size=8))
def test_a_text_without_special_characters_matches_itself_only(
    pattern: str, name: str
) -> None:
    """A glob of plain text is that text."""
    plain = re.sub(r"[*?\[\\]", "", pattern)

    assert REDIS_GLOB.matches(plain, plain)
    assert (plain == name) is REDIS_GLOB.matches(plain, name)


@given(st.data(), by_levels)
def test_overlap_and_specificity_follow_from_the_names(
    data: st.DataObject, grammar: Grammar
) -> None:
    """Two patterns overlap if a name fits both; the narrower is the more specific."""
    one, other = (data.draw(pattern_of(grammar, longest=3)) for _ in range(2))
    mine = {name for name in short_names(grammar) if grammar.matches(one, name)}
    theirs = {name for name in short_names(grammar) if grammar.matches(other, name)}

    assert bool(mine & theirs) is grammar.overlaps(one, other)
    if mine < theirs:
        assert grammar.specificity(one) > grammar.specificity(other)
