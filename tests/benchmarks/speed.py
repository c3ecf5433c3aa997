"""Rates and CPU times in interleaved rounds: a busy minute hits every candidate."""

import os
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.brokers.process import ServerUnavailableError
from tests.interop.process import ChildFailedError, Line

from .candidates import Candidate, Pair
from .wires import Wire
from .workloads import Workload

GRACE = 40.0  # seconds that a client may need beyond what it was told
WARM_UP = 0.25  # of a measurement's time, before it
_TICK = 1e6 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Figure:
    """One measurement: messages a second, and CPU microseconds a message."""

    rate: float
    client: float
    server: float


@dataclass
class Figures:
    """All measurements, each round's beside the others'; and who failed, and why."""

    rounds: dict[Workload, dict[str, list[Figure]]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, workload: Workload, name: str, figure: Figure) -> None:
        """Keep one measurement."""
        self.rounds.setdefault(workload, {}).setdefault(name, []).append(figure)

    def middle(self, workload: Workload, name: str) -> Figure:
        """Return the median of each column."""
        rounds = self.rounds[workload][name]
        columns = ("rate", "client", "server")
        return Figure(*(median(getattr(one, key) for one in rounds) for key in columns))

    def ratio(self, workload: Workload, name: str, other: str) -> float | None:
        """Return the median over the rounds of one candidate's rate by the other's."""
        both = self.rounds.get(workload, {})
        if name not in both or other not in both:
            return None
        pairs = zip(both[name], both[other], strict=False)
        return median(one.rate / two.rate for one, two in pairs)


def measure(
    wire: Wire,
    candidates: Sequence[Candidate],
    workloads: Sequence[Workload],
    rounds: int,
    seconds: float,
) -> Figures:
    """Measure everything; a candidate that fails is dropped and named."""
    figures = Figures()
    pairs: dict[str, Pair] = {}
    try:
        for candidate in candidates:
            _start(wire, candidate, pairs, figures)
        for number in range(rounds):
            for workload in workloads:
                _say(f"{wire.name}, round {number + 1} of {rounds}: {workload}")
                turn = number % len(candidates)
                for candidate in (*candidates[turn:], *candidates[:turn]):
                    if candidate.name in pairs and workload in candidate.workloads:
                        _measure(candidate.name, workload, seconds, pairs, figures)
    finally:
        for pair in pairs.values():
            pair.close()
    return figures


def _start(
    wire: Wire, candidate: Candidate, pairs: dict[str, Pair], figures: Figures
) -> None:
    _say(f"{wire.name}: starting {candidate.name}")
    try:
        pairs[candidate.name] = Pair(wire, candidate)
    except ServerUnavailableError as error:
        figures.missing[candidate.name] = str(error)
    except ChildFailedError as error:
        figures.failed[candidate.name] = str(error)


def _measure(
    name: str,
    workload: Workload,
    seconds: float,
    pairs: dict[str, Pair],
    figures: Figures,
) -> None:
    try:
        figures.add(workload, name, _figure(pairs[name], workload, seconds))
    except (ChildFailedError, TimeoutError) as error:
        figures.failed[name] = f"{workload.name}: {str(error) or 'no answer'}"
        pairs.pop(name).close()


def _figure(pair: Pair, workload: Workload, seconds: float) -> Figure:
    _result(pair.client.ask(workload.command(seconds * WARM_UP)))
    pids = (pair.client.pid, pair.server.pid)
    before = [cpu(pid) for pid in pids]
    result = _result(pair.client.ask(workload.command(seconds)))
    after = [cpu(pid) for pid in pids]
    count = result["count"]
    spent = [(b - a) / count for a, b in zip(before, after, strict=True)]
    return Figure(count / result["seconds"], *spent)


def _result(answer: Future[Line]) -> Line:
    line = answer.result(GRACE)
    if "wrong" in line:
        message = f"The client got a wrong answer: {line['wrong']}"
        raise ChildFailedError(message)
    return line


def cpu(pid: int) -> float:
    """Return the CPU microseconds of a process, all its threads; NaN off Linux."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return float("nan")
    fields = text.rpartition(")")[2].split()
    user, system = fields[11:13]
    return (int(user) + int(system)) * _TICK


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
