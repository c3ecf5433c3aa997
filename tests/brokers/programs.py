"""Where a server's program is: on this machine, or brought to it by apt-get."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .process import ServerUnavailableError

# At run level 1 Debian's scripts do not start the server that they configure.
APT = ("DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
LOCK = "DPkg::Lock::Timeout=300"  # seconds for another apt-get on this machine


@dataclass(frozen=True)
class Program:
    """A server's program, the Debian package and the Docker image that have it.

    ``folders`` are patterns of places beside those on PATH, and are looked at first;
    ``variable`` is the environment variable that may name a running server instead.
    """

    name: str
    package: str
    variable: str
    image: str = ""
    folders: tuple[str, ...] = ()

    def get(self) -> Path:
        """Return its path, installed if need be.

        Raises :class:`ServerUnavailableError` with the reason.
        """
        found = self.find() or (self._install() and self.find())
        if not found:
            message = (
                f"No {self.name}: set {self.variable}, or install it"
                f" (Debian's package {self.package})."
            )
            raise ServerUnavailableError(message)
        return found

    def find(self) -> Path | None:
        """Return its path where it is installed."""
        files = (folder / self.name for folder in self._places())
        return next((file for file in files if file.exists()), None)

    def _places(self) -> Iterator[Path]:
        for pattern in self.folders:
            yield from sorted(Path("/").glob(pattern.lstrip("/")), reverse=True)
        on_path = shutil.which(self.name)
        if on_path:
            yield Path(on_path).resolve().parent

    def _install(self) -> bool:
        apt, root = shutil.which("apt-get"), as_root()
        if apt is None or root is None:
            return False
        command = [*root, "env", *APT, apt, "-o", LOCK, "--yes"]
        install = [*command, "install", "--no-install-recommends", self.package]
        # A machine that never asked has no lists of packages.
        if _fails(install) and not _fails([*command, "update"]):
            _fails(install)
        return True


def as_root() -> list[str] | None:
    """Return what makes a command root's; None where this run may not be root.

    On a machine that somebody works at nothing is installed unless root asks.
    """
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    return [sudo, "-n"] if sudo and os.environ.get("CI") == "true" else None


def _fails(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode != 0
