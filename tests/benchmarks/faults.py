"""What the fault tests measure: how long, how many, how much, and what was wanted.

The tests themselves only hold it to ten times that; the rows are theirs.
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

from .candidates import ROOT
from .report import table

TESTS = ["tests/faults", *sorted(ROOT.glob("tests/transports/test_hostile_*.py"))]
FEW = ["tests/faults/test_client_faults.py"]


def measure(*, smoke: bool) -> tuple[str, bool]:
    """Return the table, and whether all of the tests passed."""
    with TemporaryDirectory(prefix="faults-") as folder:
        file = Path(folder, "figures.xml")
        command = [sys.executable, "-m", "pytest", "-qq", f"--junitxml={file}"]
        command += ["--override-ini=asyncio_debug=false", *(FEW if smoke else TESTS)]
        done = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
        )
        rows = _rows(file) if file.exists() else []
    text = table(["faults", "is", "wanted", ""], rows)
    fine = done.returncode == 0
    return text if fine else f"{text}\n!!! faults FAILED:\n{done.stdout}", fine


def _rows(file: Path) -> list[list[str]]:
    """Lay out the worst figure of each name, in the order of the rows."""
    worst: dict[str, tuple[float, float, str]] = {}
    for found in ElementTree.parse(file).iter("property"):
        name, *figure = json.loads(found.attrib["value"])
        worst[name] = max(worst.get(name, (float("-inf"), 0, "")), tuple(figure))
    return [[name, *_cells(*worst[name])] for name in sorted(worst, key=_row_of)]


def _row_of(name: str) -> tuple[int, str]:
    """Return the first row that a figure's name begins with, and the name."""
    return int(name.split(maxsplit=1)[0].rstrip(":,")), name


def _cells(value: float, wanted: float, unit: str) -> list[str]:
    verdict = "reached" if value <= wanted else "MISSED"
    return [f"{value:.3g} {unit}", f"{wanted:g} {unit}", verdict]
