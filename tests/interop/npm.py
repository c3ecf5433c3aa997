"""The real Nest from npm, installed once into a folder that git does not see."""

import contextlib
import fcntl
import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.brokers.process import ServerUnavailableError

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent.parent / ".cache" / "interop"
NEST = HERE / "nest" / "package.json"
NEST_11 = HERE / "nest11" / "package.json"

OLDEST_NODE = 20  # what Nest 12 asks for
INSTALL = (
    "install --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error"
)


def install(package: Path) -> Path:
    """Return a folder with what ``package`` (a package.json) names in node_modules.

    Raises :class:`ServerUnavailableError` with the reason where that cannot be had.
    """
    npm = _find("npm")
    text = package.read_bytes()
    home = CACHE / hashlib.sha256(text).hexdigest()[:16]
    with _alone():
        if not home.exists():
            _install(npm, text, home)
    return home


def script(path: Path, argument: str = "") -> list[str]:
    """Return the command that runs a JavaScript module among the installed ones.

    It must run in the folder that :func:`install` returned. The module is passed as
    text, since Node looks for packages beside a module's own file.
    """
    options = ["--input-type=module", "--eval", path.read_text()]
    return [_find("node"), *options, "--", argument]


def _find(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        message = f"The real Nest needs {program}, which is not on PATH."
        raise ServerUnavailableError(message)
    if program == "node":
        _check_version(found)
    return found


def _check_version(node: str) -> None:
    command = [node, "--version"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.match(r"v(\d+)", text)
    if found is None or int(found[1]) < OLDEST_NODE:
        message = (
            f"The real Nest needs Node {OLDEST_NODE} or newer, not {text.strip()}."
        )
        raise ServerUnavailableError(message)


def _install(npm: str, package: bytes, home: Path) -> None:
    """Install beside ``home`` and rename, so that ``home`` is always complete."""
    fresh = home.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    (fresh / "package.json").write_bytes(package)
    command = [npm, *INSTALL.split()]
    done = subprocess.run(
        command, cwd=fresh, capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = " ".join(done.stderr.split())[-300:]
        message = f"`npm install` did not bring the real Nest: {reason}"
        raise ServerUnavailableError(message)
    fresh.rename(home)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Keep test runs beside this one from installing at the same time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
