"""Groups: where they begin, and that they are made again."""

import asyncio
import re
from typing import Any

import pytest

from django_microservices.exceptions import (
    TransportRefused,
)
from django_microservices.transports.redis import (
    upkeep,
)
from tests.transports.peers import Service, eventually

from .ends import (
    Streams,
    emit,
    has_pending,
    linked,
    nothing_pending,
    serving,
    until,
)


async def test_history(streams: Streams, name: str) -> None:
    """A new group begins with what is there, or with what comes then."""
    async with linked(streams()) as calls:
        await emit(calls, name, b"1")
        all_, new, first = Service(), Service(), Service()
        later = streams(group="later", from_beginning=False)
        async with serving(streams(), all_, name), serving(later, new, name):
            await emit(calls, name, b"2")
            await all_.came(2)
            await new.came(1)
        async with serving(later, first, f"{name}.other"):
            await emit(calls, f"{name}.other", b"3")
            await first.came(1)
    assert [d.data for d in all_.deliveries] == [1, 2]
    assert [d.data for d in new.deliveries] == [2]


async def test_consumers_that_left_are_forgotten(
    streams: Streams, name: str, spy: Any
) -> None:
    """A server that leaves with nothing pending is not listed any more."""
    service = Service()
    async with serving(streams(), service, name), linked(streams()) as calls:
        await emit(calls, name)
        await service.came(1)
        assert len(await spy.xinfo_consumers(name, "orders")) == 1
    assert not await spy.xinfo_consumers(name, "orders")


# --- a group that is gone ---


@pytest.mark.parametrize("how", ["group", "stream"])
async def test_group_is_made_again(
    streams: Streams, name: str, spy: Any, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a group or its stream is deleted underneath, it goes on, and says so."""
    service = Service(lambda d: d.answer() if d.data != 1 else None)
    transport = streams(claim_after=0.3)
    async with serving(transport, service, name) as intake, linked(streams()) as calls:
        await emit(calls, name, b"1")
        await service.came(1)
        if how == "group":
            await spy.xgroup_destroy(name, "orders")
        else:
            await spy.delete(name)
        await eventually(lambda: "was gone" in caplog.text)
        await emit(calls, name, b"2")
        deliveries = await service.came(2)
        assert [d.data for d in deliveries] == [1, 2]
        kept = 1 if how == "group" else 0
        await until(lambda: has_pending(spy, name, "orders", kept))
        deliveries[0].answer()
        await until(lambda: nothing_pending(spy, name))
        assert not intake.closed.done()
    assert len(re.findall("was gone: it is made anew behind", caplog.text)) == 1


async def test_two_replicas_make_it_again(
    streams: Streams, name: str, spy: Any
) -> None:
    """Whoever comes second finds it made."""
    one, other = Service(), Service()
    async with serving(streams(), one, name), serving(streams(), other, name):
        await spy.xgroup_destroy(name, "orders")
        async with linked(streams()) as calls:
            await until(lambda: _has_group(spy, name))
            for _ in range(20):
                await emit(calls, name)
            await eventually(lambda: len(one.deliveries) + len(other.deliveries) >= 20)


async def _has_group(spy: Any, name: str) -> bool:
    return bool(await spy.xinfo_groups(name))


async def test_lost_while_making_it_again(
    monkeypatch: pytest.MonkeyPatch, streams: Streams, name: str, spy: Any
) -> None:
    """If the connection goes meanwhile, the server begins anew."""
    async with serving(streams(), Service(), name) as intake:
        monkeypatch.setattr(upkeep, "TIDY", -1.0)
        intake.hands.abort("cut")
        await intake._mend()
        await upkeep.Upkeep(intake).run()
        assert str(intake.closed.result()) == "cut"


async def test_refused_while_making_it_again(
    limited_streams: Any, name: str, spy: Any
) -> None:
    """A server that may not do it any more ends for good."""
    transport = limited_streams("+@all", "~*", "&*")
    async with serving(transport, Service(), name) as intake:
        await spy.execute_command("ACL", "SETUSER", name, "-xgroup|create")
        await spy.xgroup_destroy(name, "orders")
        async with asyncio.timeout(10):
            assert isinstance(await intake.closed, TransportRefused)


async def test_key_that_is_no_stream_any_more(
    streams: Streams, name: str, spy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """That is said once; the other streams are read on, this one once it is back."""
    service, names = Service(), (f"{name}.a", f"{name}.b")
    async with serving(streams(), service, *names) as intake:
        await spy.set(names[1], "x")
        async with linked(streams()) as calls:
            await eventually(lambda: "no stream any more" in caplog.text)
            await emit(calls, names[0], b"1")
            await service.came(1)
            await intake.upkeep._look()  # it is looked at again, and not reported so
            await intake.upkeep._tidy()
            await intake._mending
            await spy.delete(names[1])
            await eventually(lambda: "was gone" in caplog.text)
            await emit(calls, names[1], b"2")
            await service.came(2)
        assert not intake.closed.done()
    assert caplog.text.count("no stream any more") == 1
    assert "Redis refused" not in caplog.text
