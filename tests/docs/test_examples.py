"""Every example of the documentation is run."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .blocks import (
    DOCS,
    ROOT,
    TUTORIAL,
    TUTORIAL_ORDER,
    pages_with_examples,
)

PORTS = 10


def name_of(page: Path) -> str:
    """Name a page in a test's id."""
    return str(page.relative_to(DOCS).with_suffix(""))


@pytest.mark.parametrize("page", pages_with_examples(), ids=name_of)
def test_examples_run(page: Path, tmp_path: Path, free_port: Callable[[], int]) -> None:
    """The examples of a page do what the page says, in a project of their own."""
    folder = tmp_path / "page"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.docs.page", page, folder],
        cwd=ROOT,
        env={
            **os.environ,
            "EXAMPLE_PORTS": " ".join(str(free_port()) for _ in range(PORTS)),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_tutorial_is_in_order() -> None:
    """Each page of the tutorial has its place, so that it finds what came before."""
    found = {page.stem for page in (DOCS / TUTORIAL).glob("*.md")} - {"index"}
    assert found == set(TUTORIAL_ORDER)
