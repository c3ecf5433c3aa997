"""The dead letters of JetStream: which events become one, and that it is kept."""

import json
from typing import Any

import pytest
from nats.js.api import StreamConfig

from django_microservices.transports.jetstream import receipts

from .jetstream_ends import Place, looking, saying
from .peers import Service, eventually


async def test_dead_letter(place: Place) -> None:
    """It is kept with all that was in it and why, and delivered no more."""
    service = saying("dead")
    async with place.serving(["noted"], service), looking(place) as look:
        await look.listen()
        await place.emit("noted", b"[1]", headers={"tenant": "acme"})
        assert await look.word() == b"+TERM"
        (letter,) = await look.letters()
        wire = service.deliveries[0].message.wire
    assert letter.subject == f"dm-{place.stream}-dead.orders.noted"
    assert json.loads(letter.data or b"") == {"pattern": "noted", "data": [1]}
    assert letter.headers == {
        "tenant": "acme",
        "dm-reason": "why",
        "dm-group": "orders",
        "dm-stream": place.stream,
        "dm-sequence": "1",
        "dm-deliveries": "1",
        "Nats-Msg-Id": f"{place.stream}.orders=noted.1.{wire.nanoseconds}",
    }


async def test_poison(place: Place) -> None:
    """What fails again and again is a dead letter, and others pass it."""
    service = Service(
        lambda delivery: delivery.end("retry" if delivery.data == 1 else "ack", "bang")
    )
    async with place.serving(["noted"], service), looking(place) as look:
        await place.emit("noted", b"1", b"2", b"3")
        (letter,) = await look.buried()
        await look.settled("orders=noted")
    seen = [one.data for one in service.deliveries]
    assert sorted(seen) == [1, 1, 1, 2, 3]
    assert letter.headers is not None
    assert letter.headers["dm-reason"] == "bang"
    assert letter.headers["dm-deliveries"] == "3"


async def test_event_that_kills_its_server(place: Place) -> None:
    """What was delivered too often, and never ended, is handed to nobody any more."""
    service = Service(None)
    async with looking(place) as look:
        for count in range(3):
            async with place.serving(["noted"], service):
                if not count:
                    await place.emit("noted", b"1")
                delivery = (await service.came(count + 1))[-1]
                delivery.end("retry", "cancelled")
        async with place.serving(["noted"], Service(None), max_deliveries=3):
            (letter,) = await look.buried()
    assert letter.headers is not None
    assert "too often" in letter.headers["dm-reason"]
    assert letter.headers["dm-deliveries"] == "4"


@pytest.mark.parametrize(
    "body", [b"", b"no json", b'{"data":%b}' % (b"[" * 100 + b"]" * 100)]
)
async def test_event_that_cannot_be_read(place: Place, body: bytes) -> None:
    """It is a dead letter at once."""
    service = Service()
    async with place.serving(["noted"], service) as intake, looking(place) as look:
        await look.jetstream.publish(f"dm-{place.stream}.noted", body)
        (letter,) = await look.buried()
        assert intake.dropped == 1
    assert letter.data == body or (letter.data is None and body == b"")
    assert service.deliveries == []


async def test_dead_letter_carries_no_orders(place: Place) -> None:
    """Headers that tell NATS something, or nothing, are not sent on."""
    headers = {"Nats-Rollup-x": "all", "Nats-Whatever": "1", "good": "kept"}
    headers["dm-subject"] = "that of the letter which this event was"
    async with place.serving(["noted"], saying("dead")), looking(place) as look:
        await look.jetstream.publish(f"dm-{place.stream}.noted", b"1", headers=headers)
        (letter,) = await look.buried()
    assert letter.headers is not None
    assert {"good"} == headers.keys() & letter.headers.keys()


async def test_dead_letter_that_is_too_large(place: Place) -> None:
    """With our headers it would be over the limit: its number tells where it lies."""
    body = b'"%b"' % (b"x" * (8 * 1024 * 1024 - 40))
    async with place.serving(["noted"], saying("dead")), looking(place) as look:
        await look.jetstream.publish(f"dm-{place.stream}.noted", body)
        (letter,) = await look.buried()
    assert not letter.data
    assert letter.headers is not None
    assert letter.headers["dm-sequence"] == "1"


async def test_dead_letter_with_large_headers(place: Place) -> None:
    """JetStream takes 64 KB of them: with ours it is too much."""
    headers = {"large": "x" * (64 * 1024 - 100)}
    async with place.serving(["noted"], saying("dead")), looking(place) as look:
        await look.jetstream.publish(f"dm-{place.stream}.noted", b"1", headers=headers)
        (letter,) = await look.buried()
        await look.settled("orders=noted")
    assert letter.headers is not None
    assert letter.headers["dm-sequence"] == "1"
    assert "large" not in letter.headers


async def test_stream_of_dead_letters_is_deleted(place: Place) -> None:
    """It is made again."""
    service = saying("dead")
    async with place.serving(["noted"], service), looking(place) as look:
        await look.jetstream.delete_stream(f"{place.stream}-dead")
        await place.emit("noted", b"1")
        await look.settled("orders=noted")
        assert len(await look.letters()) == 1
    assert len(service.deliveries) == 1


@pytest.mark.parametrize("refuses", [{"no_ack": True}, {"max_msg_size": 1}])
async def test_dead_letter_that_cannot_be_kept(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    refuses: dict[str, Any],
) -> None:
    """It is not lost: it comes again a little later."""
    monkeypatch.setattr(receipts, "AGAIN", 0.01)
    monkeypatch.setattr(receipts, "PATIENCE", 0.1)
    service = saying("dead", "dead")
    async with looking(place) as look:
        subjects = [f"dm-{place.stream}-dead.>"]
        await look.jetstream.add_stream(
            StreamConfig(f"{place.stream}-dead", subjects=subjects, **refuses)
        )
        async with place.serving(["noted"], service):
            await place.emit("noted", b"1")
            await service.came(3)
            await look.settled("orders=noted")
    assert "A dead letter could not be kept" in caplog.text


async def test_same_number_in_a_new_stream(place: Place) -> None:
    """A stream that was made anew counts from 1 again: its dead letters are others."""
    service = saying("dead", "dead")
    async with looking(place) as look:
        for count in (1, 2):
            async with place.serving(["noted"], service):
                await place.emit("noted", b"%d" % count)
                await look.buried(count)
            await look.jetstream.delete_stream(place.stream)
        letters = await look.letters()
    assert [(one.headers or {})["dm-sequence"] for one in letters] == ["1", "1"]


async def test_reason_of_a_dead_letter_is_its_handlers(place: Place) -> None:
    """Whatever it says, it does not stop the consumer."""
    service = Service(lambda delivery: delivery.end("dead", "cancelled"))
    async with place.serving(["noted"], service), looking(place) as look:
        await place.emit("noted", b"1", b"2", b"3")
        await look.buried(3)
        await place.emit("noted", b"4")
        (*_, letter) = await look.buried(4)
    assert (letter.headers or {})["dm-reason"] == "cancelled"


async def test_burial_at_the_end(place: Place) -> None:
    """Leaving waits for the dead letters that are on their way."""
    service = Service(None)
    async with looking(place) as look:
        async with place.serving(["noted"], service):
            await place.emit("noted", b"1")
            (delivery,) = await service.came(1)
            delivery.end("dead", "the last")
        assert len(await look.letters()) == 1


async def test_burial_without_a_connection(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """The dead letter is not lost: its event comes again."""
    service, other = Service(None), saying("dead")
    async with place.serving(["noted"], service, ack_wait=0.6) as intake:
        await place.emit("noted", b"1")
        (delivery,) = await service.came(1)
        intake.driver.abort("cut")
        delivery.end("dead", "the last")
        await eventually(lambda: "could not be kept: cut" in caplog.text)
    async with place.serving(["noted"], other, ack_wait=0.6), looking(place) as look:
        assert len(await look.buried()) == 1


async def test_dead_letter_with_a_long_subject(place: Place) -> None:
    """A hash stands for it, and a header tells it; nothing is cut."""
    subject = "a." + "x" * 3900
    async with place.serving(["a.>"], saying("dead")) as intake, looking(place) as look:
        intake.driver.write(
            b"PUB dm-%b.%b 1\r\n1\r\n" % (place.stream.encode(), subject.encode())
        )
        (letter,) = await look.buried()
        assert not intake.driver.lost
    assert letter.headers is not None
    assert letter.headers["dm-subject"] == subject
    assert len(letter.subject or "") < 200
