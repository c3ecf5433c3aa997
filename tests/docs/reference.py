"""The tables of the reference, read back."""

import re
from pathlib import Path

from .blocks import DOCS

REFERENCE = DOCS / "reference"
_CODE = re.compile(r"`([^`]+)`")
Row = list[str]


def rows_of(page: str, heading: str | None = None) -> list[Row]:
    """Return the cells of every table row of a page, or below one heading."""
    lines = _section(REFERENCE / f"{page}.md", heading).splitlines()
    cells = [_cells(line) for line in lines if line.startswith("|")]
    return [row for row in cells if not set(row[0]) <= set("- ")]


def _cells(line: str) -> Row:
    return [cell.strip() for cell in line.strip().strip("|").split(" |")]


def _section(path: Path, heading: str | None) -> str:
    text = path.read_text()
    if heading is None:
        return text
    _, found, rest = text.partition(f"\n## {heading}\n")
    assert found, f"{path.name} has no heading {heading!r}"
    return rest.partition("\n## ")[0]


def names_in(cell: str) -> list[str]:
    """Return what stands in backticks."""
    return _CODE.findall(cell)


def first_names(page: str, heading: str | None = None) -> list[str]:
    """Return the names in the first column of a page's tables."""
    return [name for row in rows_of(page, heading) for name in names_in(row[0])]


def defaults_of(page: str, heading: str | None = None) -> dict[str, str]:
    """Return name and default of a page's options: the first two columns."""
    named = (row for row in rows_of(page, heading) if names_in(row[0]))
    return {names_in(row[0])[0]: row[1].strip("`") for row in named}


def text_of(page: str) -> str:
    """Return a page of the reference."""
    return (REFERENCE / f"{page}.md").read_text()
