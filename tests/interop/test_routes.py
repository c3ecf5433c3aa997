"""Routes: our canonical text of a pattern against what Nest's own code says."""

import json
import random
import string
import subprocess
from typing import Any

import pytest

from django_microservices.wire.patterns import Pattern
from tests.brokers.fixtures import give_up
from tests.brokers.process import ServerUnavailableError

from .npm import HERE, NEST, install, script

COUNT = 3000
SEED = 12
TEXTS = ["", "a", "A", "ab", "aB", "user_created", "1.0", "1e3", "true", "null", '"x"']
ODD = ["\n", "\t\0", "é", "👍🏽", "\u2028", '"', "\\", "[1]", '{"b":1,"a":2}', "007"]
NUMBERS = [0, -1, 1.0, 0.1, 1e21, 1e-7, -2.5e-8, 2**53, 2**64, 1e300, 123456789.125]
LETTERS = "abcABCzZ"
DEEPEST = 9


class Patterns(random.Random):
    """Random patterns, of every shape that JSON has."""

    def key(self) -> str:
        """Make a key of ASCII, where the order is certain; often a common one."""
        alphabet = self.choice([LETTERS, string.printable])
        return "".join(self.choices(alphabet, k=self.randrange(5)))

    def leaf(self) -> Any:
        """Make a value without members."""
        kind = self.randrange(5)
        if kind == 0:
            return self.choice([None, True, False])
        if kind == 1:
            return self.choice(NUMBERS)
        if kind == 2:
            return self.uniform(-1, 1) * 10 ** self.randrange(-9, 24)
        return self.choice(TEXTS + ODD)

    def container(self, depth: int) -> Any:
        """Make an object or a list, now and then too deep for Nest."""
        members = [self.value(depth + 1) for _ in range(self.randrange(5))]
        if self.random() < 0.3:
            return members
        return {self.key(): member for member in members}

    def value(self, depth: int) -> Any:
        """Make any value."""
        deeper = depth < DEEPEST and self.random() < 0.45
        return self.container(depth) if deeper else self.leaf()

    def pattern(self) -> Any:
        """Make what may stand for a message: no bare null or boolean."""
        if self.random() < 0.8:
            return self.container(0)
        return self.choice([*TEXTS, *ODD, *NUMBERS])


def nested(depth: int) -> Any:
    """Make an object inside ``depth`` others."""
    return {"k": nested(depth - 1)} if depth else {"k": 1}


EDGES = [nested(depth) for depth in range(4, 9)]
EDGES += [dict.fromkeys(map(str, range(size)), 0) for size in (19, 20, 21)]
EDGES += [[0] * size for size in (11, 20, 21)]


@pytest.fixture(scope="module")
def patterns() -> list[Any]:
    """Make the same patterns in every run."""
    source = Patterns(SEED)
    return [*EDGES, *(source.pattern() for _ in range(COUNT))]


@pytest.fixture(scope="module")
def nest_routes(patterns: list[Any]) -> list[tuple[str, str]]:
    """Ask Nest for the routes of all patterns, registered and arrived."""
    try:
        home = install(NEST)
        command = script(HERE / "nest" / "routes.mjs")
    except ServerUnavailableError as error:
        give_up(str(error))
    given = json.dumps([json.dumps(pattern) for pattern in patterns])
    done = subprocess.run(
        command, cwd=home, input=given, capture_output=True, text=True, check=True
    )
    return [(registered, arrived) for registered, arrived in json.loads(done.stdout)]


def test_registered_routes_are_nests(
    patterns: list[Any], nest_routes: list[tuple[str, str]]
) -> None:
    """A pattern in code has the route that Nest registers it under."""
    ours = [Pattern.of(pattern).route for pattern in patterns]
    assert ours == [registered for registered, _ in nest_routes]


def test_arrived_routes_are_nests(
    patterns: list[Any], nest_routes: list[tuple[str, str]]
) -> None:
    """A pattern in a packet is looked up under the route that Nest would look up."""
    ours = [
        Pattern.from_json(json.dumps(pattern).encode()).route for pattern in patterns
    ]
    assert ours == [arrived for _, arrived in nest_routes]
