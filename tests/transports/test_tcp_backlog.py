"""What waits on a TCP server, without sockets."""

import sys
from typing import Any

import pytest

from django_microservices.transports.tcp.backlog import UNWANTED, Backlog


def taken(backlog: Backlog) -> list[bytes]:
    """Take everything."""
    return [backlog.take() for _ in range(backlog.count)]


@pytest.mark.parametrize("counts", [(1,), (3, 1, 5), (2000, 1, 129, 128)])
def test_in_order(counts: tuple[int, ...]) -> None:
    """Texts come as they went, however many a read brought, and are counted."""
    backlog, texts = Backlog(), []
    for read, count in enumerate(counts):
        more = [b"%d-%d" % (read, number) for number in range(count)]
        backlog.keep(more, 0.0)
        texts += more
    assert backlog.count == len(texts)
    assert taken(backlog) == texts
    assert backlog.count == 0


def test_kept_while_others_are_taken() -> None:
    """What comes meanwhile stands behind."""
    backlog = Backlog()
    backlog.keep([b"1", b"2"], 0.0)
    assert backlog.take() == b"1"
    backlog.keep([b"3"], 0.0)
    assert taken(backlog) == [b"2", b"3"]


def test_size() -> None:
    """It is about what the texts weigh, and shrinks with them."""
    backlog = Backlog()
    backlog.keep([b"x" * 10_000], 0.0)
    backlog.keep([b"x" * 5_000], 0.0)
    assert 15_000 < backlog.size < 20_000
    backlog.take()
    backlog.take()
    assert backlog.size < 10_000


def test_tiny_texts_weigh_little() -> None:
    """A read of nothing but tiny texts costs little more than its bytes."""
    texts = [b"%d" % (number % 10) for number in range(60_000)]
    backlog = Backlog()
    backlog.keep(texts, 0.0)
    parts: Any = backlog._reads[0][2]
    held = sum(sys.getsizeof(part) for part in parts.gi_frame.f_locals.values())
    assert held < 6 * len(texts)


# --- patience ---


@pytest.mark.parametrize(
    ("timeout", "left"), [(None, None), (5.0, 2.0), (3.0, 0.0), (1.0, 0.0)]
)
def test_patience(timeout: float | None, left: float | None) -> None:
    """What a caller waited here is gone of its time."""
    backlog = Backlog()
    backlog.keep([b"1"], 100.0)
    backlog.keep([b"2"], 102.0)
    backlog.take()
    assert backlog.left("a", timeout, 103.0) == left
    backlog.take()
    assert backlog.left("a", 5.0, 103.0) == 4.0


@pytest.mark.parametrize("id_", ["a", 1])
def test_cancelled(id_: Any) -> None:
    """A request that is cancelled while it waits is not wanted any more, once."""
    backlog = Backlog()
    backlog.keep([b"a", b"b"], 0.0)
    backlog.cancel(id_)
    backlog.take()
    assert backlog.left("b", 5.0, 0.0) == 5.0
    backlog.take()
    assert backlog.left([id_], None, 0.0) is None
    assert backlog.left(id_, 5.0, 0.0) == UNWANTED
    assert backlog.left(id_, 5.0, 0.0) == 5.0


def test_cancelled_before_it_came() -> None:
    """A request that comes after the cancel of its id is another one."""
    backlog = Backlog()
    backlog.keep([b"other"], 0.0)
    backlog.cancel("a")
    backlog.keep([b"a"], 0.0)
    taken(backlog)
    assert backlog.left("a", None, 0.0) is None


def test_cancels_are_bounded() -> None:
    """Nobody can cancel more than there is."""
    backlog = Backlog()
    backlog.cancel("a")
    backlog.keep([b"1", b"2"], 0.0)
    for id_ in "bcd":
        backlog.cancel(id_)
    assert len(backlog._unwanted) == 2
