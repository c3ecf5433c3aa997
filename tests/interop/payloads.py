"""What Nest and we send each other, whichever of us calls."""

from typing import Any

import pytest

FIVE_MB = 5 * 1024 * 1024
LARGE_TEXT = "👍" * (FIVE_MB // 4)
EMPTY: list[Any] = [
    False,
    0,
    "",
    [],
    {},
    [None, False, 0, ""],
    {"a": None, "b": {"c": [[]]}},
]
"""Payloads that are false or empty in either language."""

BROKEN = {"code": 42, "reason": "broken"}
DENIED = {"status": "error", "message": "Forbidden resource"}
INTERNAL = {"status": "error", "message": "Internal server error"}
NO_HANDLER = "There is no matching message handler defined in the remote service."

object_patterns = pytest.mark.parametrize(
    "pattern",
    [{"a": {"c": 3, "d": 2}, "b": 1}, {"b": 1, "a": {"d": 2, "c": 3}}],
    ids=["sorted", "unsorted"],
)
texts = pytest.mark.parametrize(
    "text", ["👍🏽", "naïve 日本語", "\U0010ffff", "a\0\u2028#9#"]
)

RPC_ERRORS: list[tuple[str, Any]] = [
    ("text", {"status": "error", "message": "broken"}),
    ("emptyText", {"status": "error", "message": ""}),
    ("object", BROKEN),
    ("list", ["broken", 42]),
]
"""RpcExceptions by their names in both services, and what the caller gets of each."""

errors_of_nest = pytest.mark.parametrize(
    ("name", "error"),
    [
        *RPC_ERRORS,
        ("wrapped", {}),
        ("plain", INTERNAL),
        ("http", INTERNAL),
        ("thrownText", INTERNAL),
    ],
)
errors_of_ours = pytest.mark.parametrize(
    ("name", "error"),
    [*RPC_ERRORS, ("emptyObject", {}), ("plain", INTERNAL), ("denied", DENIED)],
)
streams_of_nest = pytest.mark.parametrize(
    ("kind", "items"),
    [
        ("of", [0, 1, 2]),
        ("interval", [0, 1, 2]),
        ("empty", []),
        ("delayedEnd", [0, 1, 2]),
        ("promise", [0, 1, 2]),
        ("nulls", [None, None, None]),
        ("objects", [{"number": number, "text": "👍"} for number in range(3)]),
    ],
)
