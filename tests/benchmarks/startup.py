"""What the app costs at the start of ``manage.py``: time, and what it imports.

As where it is installed: with the bytecode that pip writes, here into a folder of its
own, whatever the environment says of bytecode.
"""

import json
import os
import subprocess
import sys
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from .candidates import ROOT
from .report import table

WANTED = 50.0  # milliseconds more than without the app, at most
DRIVERS = {
    "celery",
    "channels",
    "confluent_kafka",
    "dns",
    "google.protobuf",
    "grpc",
    "hiredis",
    "httpx",
    "kombu",
    "nats",
    "opentelemetry",
    "pamqp",
    "prometheus_client",
    "pydantic",
    "redis",
    "rest_framework",
    "uvicorn",
}

# What `manage.py` does before any command, and the command that looks at everything.
STARTS = {
    "django.setup()": "",
    "manage.py check": "call_command('check', verbosity=0)",
}
CODE = """
import django, json, sys
from django.core.management import call_command
django.setup()
{start}
print(json.dumps(sorted(sys.modules)))
"""


def measure(rounds: int) -> tuple[str, bool]:
    """Return the table, and whether it may stand: no driver was imported."""
    drivers: set[str] = set()
    rows = []
    with TemporaryDirectory(prefix="bytecode-") as bytecode:
        for name, start in STARTS.items():
            times: dict[bool, list[float]] = {True: [], False: []}
            for bare in times:
                _start(start, bytecode, bare=bare)  # compiles
            for _ in range(rounds):
                for bare, spent in times.items():
                    milliseconds, modules = _start(start, bytecode, bare=bare)
                    spent.append(milliseconds)
                    drivers |= DRIVERS.intersection(modules)
            rows.append(_row(name, median(times[True]), median(times[False])))
    head = [f"start, {rounds} rounds", "without us", "with us", "more", "wanted", ""]
    imported = ", ".join(sorted(drivers)) or "none"
    return f"{table(head, rows)}\ndrivers imported: {imported}", not drivers


def _row(name: str, without: float, with_us: float) -> list[str]:
    more = with_us - without
    figures = [f"{each:.0f} ms" for each in (without, with_us, more, WANTED)]
    return [name, *figures, "reached" if more < WANTED else "MISSED"]


def _start(code: str, bytecode: str, *, bare: bool) -> tuple[float, list[str]]:
    """Start in a new process; return the milliseconds and the imported modules."""
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.benchmarks.settings",
        "BENCHMARK": json.dumps({"bare": bare}),
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": bytecode,
    }
    start = perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(start=code)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    spent = (perf_counter() - start) * 1000
    return spent, json.loads(done.stdout.splitlines()[-1])
