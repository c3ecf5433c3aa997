"""Docker, for a server whose program is not on this machine."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Container:
    """A container where a server has the folder and the ports that it has outside.

    It is named after the folder, and is gone when the server ends.
    """

    docker: str
    image: str
    folder: Path

    def run(
        self, command: list[str], ports: Iterable[int], environment: Mapping[str, str]
    ) -> list[str]:
        """Return the command that runs ``command`` as the container's only one."""
        program, *arguments = command
        options = ["--rm", "--name", self.folder.name, "--entrypoint", program]
        options += [
            f"--user={os.getuid()}:{os.getgid()}",
            "--workdir",
            str(self.folder),
        ]
        options += [f"--volume={self.folder}:{self.folder}"]
        options += [f"--publish=127.0.0.1:{port}:{port}" for port in ports]
        return [
            self.docker,
            "run",
            *options,
            *_set(environment),
            self.image,
            *arguments,
        ]

    def tool(self, command: list[str], environment: Mapping[str, str]) -> list[str]:
        """Return the command that runs ``command`` beside the server."""
        return [self.docker, "exec", *_set(environment), self.folder.name, *command]

    def signal(self, number: signal.Signals) -> None:
        """Send the server a signal, which the client of Docker would not pass on."""
        command = [self.docker, "kill", "--signal", number.name, self.folder.name]
        subprocess.run(command, capture_output=True, check=False)


def find_docker(image: str) -> str | None:
    """Return Docker's client where an engine runs that has the image, or gets it."""
    docker = shutil.which("docker")
    if docker is None or _fails([docker, "version"]):
        return None
    if _fails([docker, "image", "inspect", image]) and _fails([docker, "pull", image]):
        return None
    return docker


def _set(environment: Mapping[str, str]) -> list[str]:
    return [f"--env={name}={value}" for name, value in environment.items()]


def _fails(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode != 0
