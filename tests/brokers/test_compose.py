"""The compose file offers people what the tests start for themselves."""

from pathlib import Path

import pytest

from . import mosquitto, nats, postgres, rabbitmq, redis
from .programs import Program

COMPOSE = (Path(__file__).parent / "compose.yaml").read_text()
BROKERS = [module.PROGRAM for module in (redis, nats, rabbitmq, mosquitto)]


@pytest.mark.parametrize("program", BROKERS)
def test_image_is_the_one_of_the_tests(program: Program) -> None:
    """A container of the tests and one of compose are the same."""
    assert f"image: {program.image}\n" in COMPOSE


@pytest.mark.parametrize("program", [*BROKERS, postgres.PROGRAM])
def test_variable_is_named(program: Program) -> None:
    """The head of the file says how the tests find its servers."""
    assert f"{program.variable}=" in COMPOSE
