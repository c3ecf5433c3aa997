"""Types and contracts of what a client sends and gets."""

import dataclasses
from typing import Any

import pytest

from django_microservices import Event, InvalidReply, Request
from tests.endpoints.answers import HANDLERS, closed, noted
from tests.endpoints.ends import calling, serving, until


@dataclasses.dataclass
class User:
    """What a reply may be asked to be."""

    name: str


class Shapeless:
    """What no reply can be."""


SUM = Request({"cmd": "sum"}, list[int], int)
ECHO = Request("echo", dict[str, str], User)
NOTED = Event("noted", int)


async def test_type_that_no_answer_has(port: int) -> None:
    """It is an error before anything is sent."""
    async with calling(port) as client:
        with pytest.raises(TypeError, match=r"returns: .*Shapeless"):
            await client.asend("noted", returns=Shapeless)
    assert noted == []


async def test_returns(port: int) -> None:
    """``returns`` makes the answer the type asked for."""
    async with serving(port, *HANDLERS), calling(port) as client:
        user = await client.asend("echo", {"name": "Ada"}, returns=User)
        assert user == User("Ada")


async def test_contract(port: int) -> None:
    """A contract names the pattern and the type of the answer."""
    async with serving(port, *HANDLERS), calling(port) as client:
        assert await client.asend(SUM, [1, 2]) == 3
        assert await client.asend(ECHO, {"name": "Ada"}) == User("Ada")
        await client.aemit(NOTED, 4)
        await until(lambda: noted == [4])


async def test_contract_for_a_stream(port: int) -> None:
    """Each item of a stream is the type asked for."""
    numbers = Request("acount", int, int)
    async with serving(port, *HANDLERS), calling(port) as client:
        assert [n async for n in client.astream(numbers, 2)] == [0, 1]


@pytest.mark.parametrize("answer", ["text", None, {"nom": "Ada"}])
async def test_invalid_reply(port: int, answer: Any) -> None:
    """An answer that is not of the type asked for is an InvalidReply."""
    async with serving(port, *HANDLERS), calling(port) as client:
        with pytest.raises(InvalidReply):
            await client.asend("echo", answer, returns=User)


async def test_missing_value(port: int) -> None:
    """No value is null to a type that allows it, and an InvalidReply to others."""
    async with serving(port, *HANDLERS), calling(port) as client:
        assert await client.asend("nothing", returns=int | None) is None
        with pytest.raises(InvalidReply):
            await client.asend("nothing", returns=int)


async def test_invalid_item(port: int) -> None:
    """An item of a wrong type ends the stream."""
    async with serving(port, *HANDLERS), calling(port) as client:
        with pytest.raises(InvalidReply):
            await anext(client.astream("acount", 10**9, returns=str))
        await until(lambda: closed == ["acount"])


async def test_type_beside_a_contract(port: int) -> None:
    """A type asked for at the call counts more than the contract's."""
    async with serving(port, *HANDLERS), calling(port) as client:
        answer = await client.asend(ECHO, {"name": "Ada"}, returns=dict[str, str])
    assert answer == {"name": "Ada"}
