"""Modules of handlers to look at."""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from .running import IMPORTS, Write

numbers = itertools.count()


@pytest.fixture
def handlers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Return a function that writes a module of handlers and returns its name."""
    monkeypatch.syspath_prepend(tmp_path)
    names: list[str] = []

    def write(text: str) -> str:
        name = f"checked_handlers_{next(numbers)}"
        (tmp_path / f"{name}.py").write_text(IMPORTS + text)
        names.append(name)
        return name

    yield write
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def certificate() -> dict[str, str]:
    """Give what a server presents."""
    leaf = trustme.CA().issue_cert("localhost")
    return {
        "cert": leaf.cert_chain_pems[0].bytes().decode(),
        "key": leaf.private_key_pem.bytes().decode(),
    }
