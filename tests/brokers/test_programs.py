"""Programs: looked for in a known order, and what is missing is said in one line."""

import os
from pathlib import Path

import pytest

from .process import ServerUnavailableError
from .programs import Program, as_root

REASON = r"No server: set TEST_URL, or install it \(Debian's package its-package\)\."


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Give a program that is nowhere yet, looked for below ``tmp_path``."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    folders = (f"{tmp_path}/versions/*/bin",)
    return Program(
        "server", package="its-package", variable="TEST_URL", folders=folders
    )


def put(path: Path) -> Path:
    """Make a file that may be run."""
    path.parent.mkdir(parents=True)
    path.touch(0o755)
    return path


def test_program_on_path(program: Program, tmp_path: Path) -> None:
    """A program on PATH is found where it really lies, beside its tools."""
    real = put(tmp_path / "lib" / "server")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "server").symlink_to(real)
    assert program.get() == real


def test_newest_version_of_a_folder(program: Program, tmp_path: Path) -> None:
    """What lies in the program's own folders comes first, the newest of it."""
    put(tmp_path / "bin" / "server")
    put(tmp_path / "versions" / "15" / "bin" / "server")
    newest = put(tmp_path / "versions" / "17" / "bin" / "server")
    assert program.get() == newest


def test_missing_program_is_one_line(program: Program) -> None:
    """Where there is no apt-get the reason says what to do."""
    with pytest.raises(ServerUnavailableError, match=REASON):
        program.get()


def test_nothing_is_installed_for_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root's tests, and those of CI, install packages."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.delenv("CI", raising=False)
    assert as_root() is None


def test_ci_may_use_sudo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """CI's own machine is its to change."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert as_root() is None
    sudo = put(tmp_path / "of-root" / "sudo")
    monkeypatch.setenv("PATH", str(sudo.parent))
    assert as_root() == [str(sudo), "-n"]


def test_root_needs_no_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root installs as it is."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert as_root() == []
