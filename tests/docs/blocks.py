"""The examples of the documentation, as they stand in its pages."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
BUILT = DOCS / "_build"
TUTORIAL = "tutorial"
TUTORIAL_ORDER = (
    "first-service",
    "calling",
    "streaming",
    "validation",
    "testing",
    "production",
)

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_FILE = re.compile(r"# ([\w/]+\.py)$")


class Block(NamedTuple):
    """One fenced block: its language, its text and where it begins."""

    language: str
    text: str
    page: Path
    line: int

    @property
    def file(self) -> str | None:
        """The file that the block is a part of, if its first line names one."""
        named = _FILE.match(self.text.partition("\n")[0])
        return named[1] if named else None

    @property
    def place(self) -> str:
        """Where it stands, for people."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Return the ``python`` and ``console`` blocks of a page."""
    return [b for b in _all_blocks(page) if b.language in {"python", "console"}]


def _all_blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Block(match["language"], match["text"], page, line)


def pages() -> list[Path]:
    """Return every page that is a part of the documentation."""
    found = sorted(DOCS.rglob("*.md"))
    return [page for page in found if BUILT not in page.parents]


def pages_with_examples() -> list[Path]:
    """Return the pages that have something to run."""
    return [page for page in pages() if blocks_of(page)]


def pages_before(page: Path) -> list[Path]:
    """Return the pages whose files this one builds on: earlier ones of the tutorial."""
    if page.parent.name != TUTORIAL or page.stem not in TUTORIAL_ORDER:
        return []
    place = TUTORIAL_ORDER.index(page.stem)
    return [page.with_stem(stem) for stem in TUTORIAL_ORDER[:place]]
