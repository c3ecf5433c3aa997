"""The client's half of pub/sub: requests, reply channels, what is refused."""

import asyncio
import json
from typing import Any

import pytest

from django_microservices.exceptions import InvalidMessage
from django_microservices.transports.redis import link as links
from django_microservices.wire.codecs import decode
from django_microservices.wire.messages import UNSET
from tests.transports.peers import Service, eventually

from .ends import (
    hold,
    is_heard,
    is_unheard,
    linked,
    listeners,
    serving,
    until,
)


async def test_a_request_is_nests_packet(wire: Any, name: str, spy: Any) -> None:
    """The pattern travels as it was given, on the channel that is its route."""
    pattern = {"name": name, "a": 1}
    route = f'{{"a":1,"name":"{name}"}}'
    async with spy.pubsub() as pubsub, linked(wire()) as calls:
        await pubsub.subscribe(route)
        await pubsub.get_message(timeout=10)
        calls.send(pattern, b"[1]", "7", timeout=2.5, headers={"x": "y"})
        found = await pubsub.get_message(timeout=10, ignore_subscribe_messages=True)
    assert json.loads(found["data"]) == {
        "pattern": pattern,
        "data": [1],
        "id": "7",
        "metadata": {"x": "y", "dm-peer": "1", "dm-timeout": "2500"},
    }


async def test_nobody_listens(wire: Any, name: str) -> None:
    """A request for which nobody listens fails at once; an event is let go."""
    async with linked(wire()) as calls:
        calls.send(name, id_=UNSET)
        calls.send(name, id_="7")
        (reply,) = await calls.came(1)
    assert (reply.id, reply.missing) == ("7", True)


async def test_in_a_cluster_nobody_knows_who_listens(wire: Any, name: str) -> None:
    """There the count tells of one node only, and nothing is concluded from it."""
    async with linked(wire()) as calls:
        calls.link.pub.counts_all = False
        calls.send(name)
        await calls.link.sub.ask("PING")  # the reply channel is confirmed,
        await calls.link.pub.ask("PING")  # and the request published
        calls.link.pub.counts_all = True
        calls.send(name, id_="8")
        assert [reply.id for reply in await calls.came(1)] == ["8"]


async def test_several_servers_all_answer(wire: Any, name: str) -> None:
    """Nothing is shared: each replica handles each message."""
    one, other = Service(), Service()
    async with (
        serving(wire(), one, name),
        serving(wire(), other, name),
        linked(wire()) as calls,
    ):
        calls.send(name)
        assert len(await calls.came(2)) == 2


async def test_a_server_answers_who_asks_on_another_connection(
    wire: Any, name: str
) -> None:
    """All callers of a pattern share its reply channel, and each gets all replies."""
    async with (
        serving(wire(), Service(), name),
        linked(wire()) as one,
        linked(wire()) as other,
    ):
        one.send(name, id_="1")
        other.send(name, id_="2")
        await asyncio.gather(one.came(1), other.came(1))
        one.send(name, id_="3")
        await eventually(lambda: "3" in [reply.id for reply in other])


async def test_last_words_arrive(wire: Any, name: str) -> None:
    """Events that were sent just before a client closed are with Redis."""
    service = Service()
    async with serving(wire(), service, name):
        async with linked(wire()) as calls:
            for _ in range(1000):
                calls.send(name, id_=UNSET)
        await service.came(1000)


@pytest.mark.parametrize("pattern", ["a.*", "a\n", ""])
async def test_names_that_are_no_patterns(wire: Any, pattern: str) -> None:
    """What could be meant as something else is refused, and nothing is sent."""
    async with linked(wire()) as calls:
        for id_ in ("7", UNSET):
            with pytest.raises(ValueError, match="pattern"):
                calls.send(pattern, id_=id_)


async def test_very_many_patterns(
    wire: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a client remembers of patterns is bounded."""
    monkeypatch.setattr(links, "_MOST_REMEMBERED", 2)
    async with linked(wire()) as calls:
        for number in range(5):
            calls.send(f"{name}.{number}", id_=UNSET)
        assert len(calls.link._heads) == 1


# --- the channels of replies ---


async def test_reply_channel_is_kept_for_a_while(
    wire: Any, name: str, spy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left when nobody has needed it between two looks."""
    monkeypatch.setattr(links, "IDLE", 0.05)
    async with serving(wire(), Service(), name), linked(wire()) as calls:
        calls.send(name, id_="1")
        calls.send(name, id_="2")
        await calls.came(2)
        calls.link.forget("1", answered=True)
        assert await listeners(spy, f"{name}.reply") == 1
        calls.link.forget("2", answered=True)
        await until(lambda: is_unheard(spy, name))
        calls.send(name, id_="3")
        await calls.came(3)


async def test_reply_channel_is_left_by_who_gave_up(
    wire: Any, name: str, spy: Any
) -> None:
    """A call that ended without an answer leaves the channel at once, if it is last."""
    async with serving(wire(), Service(hold), name), linked(wire()) as calls:
        for id_ in "12":
            calls.send(name, id_=id_)
        await until(lambda: is_heard(spy, name))
        calls.link.forget("1", answered=False)
        await calls.link.sub.ask("PING")
        assert await is_heard(spy, name)
        calls.link.forget("2", answered=False)
        await until(lambda: is_unheard(spy, name))


async def test_few_idle_channels_are_kept(
    wire: Any, name: str, spy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there are very many of them, each is left with its last call."""
    monkeypatch.setattr(links, "MOST_IDLE", 0)
    async with serving(wire(), Service(), name), linked(wire()) as calls:
        calls.send(name)
        await calls.came(1)
        calls.link.forget("7", answered=True)
        await until(lambda: is_unheard(spy, name))


async def test_call_that_gives_up_before_redis_confirmed(wire: Any, name: str) -> None:
    """A request whose reply channel was not there yet is not sent any more."""
    service = Service()
    async with serving(wire(), service, name), linked(wire()) as calls:
        calls.send(name, id_="1")
        calls.link.forget("1", answered=False)
        calls.link.forget("1", answered=False)
        calls.send(name, id_="2")
        await calls.came(1)
    assert [delivery.message.id for delivery in service.deliveries] == ["2"]


async def test_noise_on_a_reply_channel(wire: Any, name: str, spy: Any) -> None:
    """What is no reply is ignored; one that nests too deeply ends its call."""
    deep = b'{"response":' + b"[" * 200 + b"]" * 200 + b',"isDisposed":true,"id":"7"}'
    async with serving(wire(), Service(hold), name), linked(wire()) as calls:
        calls.send(name)
        await until(lambda: is_heard(spy, name))
        for noise in (b"noise", b"[]", deep):
            await spy.publish(f"{name}.reply", noise)
        (reply,) = await calls.came(1)
        assert calls.link.ignored == 2
    with pytest.raises(InvalidMessage, match="Nested deeper than 64 levels"):
        decode(reply.data)


# --- refusals ---


async def test_client_that_may_not_subscribe(limited: Any, name: str) -> None:
    """The calls that wait for their reply channel fail with what Redis said."""
    async with linked(limited("+@all", f"&{name}")) as calls:
        for id_ in "12":
            calls.send(name, id_=id_)
        replies = await calls.came(2)
        calls.link.forget("1", answered=True)
        calls.link.forget("2", answered=True)
    assert "Redis refuses: NOPERM" in json.loads(replies[0].error)["message"]


async def test_who_gave_up_before_the_refusal(limited: Any, name: str) -> None:
    """What Redis says then reaches nobody."""
    async with linked(limited("+@all", f"&{name}")) as calls:
        calls.send(name)
        calls.link.forget("7", answered=False)
        await calls.link.sub.ask("PING")
        assert not calls


async def test_client_that_may_not_publish(
    limited: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A request fails with what Redis said; of an event it is logged."""
    async with linked(limited("+@all", f"&{name}.reply")) as calls:
        calls.send(name)
        (reply,) = await calls.came(1)
        calls.send(name, id_=UNSET)
        await calls.link.pub.ask("PING")
    assert "Redis refuses: NOPERM" in json.loads(reply.error)["message"]
    assert "Redis refused a command: NOPERM" in caplog.text


async def test_pattern_whose_reply_channel_has_no_name(wire: Any) -> None:
    """It is refused each time, and nothing of it is kept; its events are sent."""
    pattern = "p" * 4095
    async with linked(wire()) as calls:
        for id_ in "12":
            with pytest.raises(ValueError, match="longer than 4096"):
                calls.send(pattern, id_=id_)
            calls.link.forget(id_, answered=False)
        assert not calls.link._channels
        calls.send(pattern, id_=UNSET)
