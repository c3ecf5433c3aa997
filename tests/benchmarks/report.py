"""What was measured as plain text, and as JSON."""

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .speed import Figures
from .wires import CONFIRMED, MQTT, NATS_CORE, RABBITMQ, REDIS, TCP, Wire
from .workloads import Workload

BASES = ("nest", "bare", "bare-hop", "faststream")

# What the library set out to reach at least: who, with what, against whom.
Goal = tuple[str, str, str, float]


def _brokered(requests: float, events: float) -> tuple[Goal, ...]:
    return tuple(
        (name, workload, "nest", wanted)
        for name in ("ours-def", "ours-async")
        for workload, wanted in (("small-100", requests), ("events-small", events))
    )


GOALS: dict[Wire, tuple[Goal, ...]] = {
    TCP: (
        ("ours-def", "small-100", "nest", 1.3),
        ("ours-def", "small-100", "bare", 0.7),
        ("ours-async", "small-100", "nest", 1.1),
        ("ours-def", "events-small", "nest", 2.0),
        ("ours-async", "events-small", "nest", 2.0),
        ("ours-def", "1KB-100", "nest", 1.0),
        ("ours-async", "1KB-100", "nest", 1.0),
        ("ours-def", "100KB-1", "nest", 1.3),
        ("ours-async", "100KB-1", "nest", 1.3),
        ("ours-sync-client", "sync", "bare-hop", 1 / 1.3),
    ),
    REDIS: _brokered(1.5, 3.0),
    NATS_CORE: _brokered(1.0, 1.8),
    MQTT: _brokered(1.2, 1.8),
    RABBITMQ: _brokered(1.1, 1.5),
    CONFIRMED: _brokered(1.5, 1.5),
}


def machine() -> str:
    """Describe where this ran."""
    return f"Python {platform.python_version()}, {os.cpu_count()} cores, {load()}"


def load() -> str:
    """Say how busy the machine is: while measuring, our own two processes are 2."""
    return "load average " + ", ".join(f"{each:.1f}" for each in os.getloadavg())


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out columns: the first to the left, the others to the right."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def speed_text(figures: Figures) -> str:
    """Show each workload with its candidates side by side."""
    return "\n\n".join(
        f"{workload}\n{_block(figures, workload)}" for workload in figures.rounds
    )


def _block(figures: Figures, workload: Workload) -> str:
    names = figures.rounds[workload]
    bases = [base for base in BASES if base in names]
    head = ["", "a second", "lowest", "highest", *(f"of {base}" for base in bases)]
    head += ["client us", "server us"]
    return table(head, [_row(figures, workload, name, bases) for name in names])


def _row(
    figures: Figures, workload: Workload, name: str, bases: list[str]
) -> list[str]:
    middle = figures.middle(workload, name)
    rates = [figure.rate for figure in figures.rounds[workload][name]]
    ratios = [figures.ratio(workload, name, base) or 0 for base in bases]
    return [
        name,
        *(f"{rate:,.0f}" for rate in (middle.rate, min(rates), max(rates))),
        *(f"{ratio:.2f}" for ratio in ratios),
        *(f"{spent:.1f}" for spent in (middle.client, middle.server)),
    ]


def goals_text(wire: Wire, figures: Figures) -> str:
    """Hold what was reached against what was wanted."""
    workloads = {workload.name: workload for workload in figures.rounds}
    rows = []
    for name, key, base, wanted in GOALS.get(wire, ()):
        ratio = key in workloads and figures.ratio(workloads[key], name, base)
        if ratio:
            verdict = "reached" if ratio >= wanted else "MISSED"
            what = f"{name}, {key}, of {base}"
            rows.append([what, f"{wanted:.2f}", f"{ratio:.2f}", verdict])
    return table(["goal", "wanted", "is", ""], rows) if rows else ""


def failures_text(figures: Figures) -> str:
    """Name who was not measured, loudly."""
    lines = [f"!!! {name} FAILED: {why}" for name, why in figures.failed.items()]
    lines += [f"--- {name} skipped: {why}" for name, why in figures.missing.items()]
    return "\n".join(lines)


def speed_json(figures: Figures) -> dict[str, Any]:
    """Give every round of everything, for another program to read."""
    return {
        "failed": figures.failed,
        "missing": figures.missing,
        "rounds": {
            workload.name: {
                name: [asdict(figure) for figure in rounds]
                for name, rounds in names.items()
            }
            for workload, names in figures.rounds.items()
        },
    }
