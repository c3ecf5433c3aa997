"""The benchmarks, by one command: ``python -m tests.benchmarks``; see ``--help``.

Everything runs side by side on loopback in one go. Names for ``--only``: the sections
``memory``, ``startup`` and ``faults``, and those of the wires (``tcp``, ``redis``,
...); or the candidates and workloads of the wires.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from . import faults, memory, report, speed, startup
from .candidates import CANDIDATES, Candidate
from .wires import WIRES, Wire
from .workloads import WORKLOADS, Workload

SECTIONS = [*(wire.name for wire in WIRES), "memory", "startup", "faults"]
NAMES = sorted({each.name for all_ in CANDIDATES.values() for each in all_})
KINDS = [workload.name for workload in WORKLOADS]

Named = TypeVar("Named", Candidate, Workload)


def main() -> int:
    """Run what was asked for; return the exit code."""
    given = _arguments()
    print(report.machine())
    named = [section for section in SECTIONS if section in given.only]
    parts = given.only and not named  # only candidates and workloads are named
    wires = [wire for wire in WIRES if parts or not named or wire.name in named]
    fine = [_speed(given, wire) for wire in wires]
    if "memory" in named or not given.only:
        fine.append(_memory(given))
    if "startup" in named or not given.only:
        fine.append(_startup(given))
    if "faults" in named or not given.only:
        text, passed = faults.measure(smoke=given.smoke)
        print("", text, sep="\n")
        fine.append(passed)
    print("", f"At the end: {report.load()}", sep="\n")
    return 0 if all(fine) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("--smoke", action="store_true", help="see that everything runs")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (5)")
    parser.add_argument("--seconds", type=float, help="of each measurement (1.5)")
    parser.add_argument("--connections", type=int, help="idle ones (10,000)")
    parser.add_argument("--json", type=Path, help="a file for every round's figures")
    parser.add_argument(
        "--only", nargs="+", default=[], choices=[*SECTIONS, *NAMES, *KINDS]
    )
    given = parser.parse_args()
    given.rounds = given.rounds or (1 if given.smoke else 5)
    given.seconds = given.seconds or (0.1 if given.smoke else 1.5)
    given.connections = given.connections or (200 if given.smoke else 10_000)
    return given


def _speed(given: argparse.Namespace, wire: Wire) -> bool:
    candidates = _chosen(CANDIDATES[wire], given.only)
    workloads = _chosen(WORKLOADS, given.only)
    figures = speed.measure(wire, candidates, workloads, given.rounds, given.seconds)
    texts = [report.speed_text(figures), report.failures_text(figures)]
    if not given.smoke:
        texts.insert(1, report.goals_text(wire, figures))
    print("", f"=== {wire.name} ===", *filter(None, texts), sep="\n\n")
    if given.json:
        figures_of = json.loads(given.json.read_text()) if given.json.exists() else {}
        figures_of[wire.name] = report.speed_json(figures)
        given.json.write_text(json.dumps(figures_of, indent=1))
    if os.environ.get("CI") == "true":  # there nothing may be missing
        figures.failed.update(figures.missing)
    return not figures.failed


def _chosen(all_of_them: Sequence[Named], names: Sequence[str]) -> Sequence[Named]:
    """Return those that are named, or all where none is."""
    return [each for each in all_of_them if each.name in names] or all_of_them


def _memory(given: argparse.Namespace) -> bool:
    text, whole = memory.measure(given.connections)
    print("", text, sep="\n")
    return whole


def _startup(given: argparse.Namespace) -> bool:
    try:
        text, fine = startup.measure(1 if given.smoke else 2 * given.rounds)
    except subprocess.CalledProcessError as error:
        print(f"\n!!! startup FAILED: {error}")
        return False
    print("", text, sep="\n")
    return fine


sys.exit(main())
