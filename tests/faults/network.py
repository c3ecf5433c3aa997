"""Two hosts on a wire of their own, which can be cut so that packets just vanish.

A proxy cannot do that: its kernel acknowledges whatever comes.
"""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
NOBODY = "02:00:00:00:00:99"
"""An Ethernet address that no host has."""


class Network:
    """Two network namespaces with a wire between them; needs root and ``ip``.

    Raises :class:`OSError` or :class:`subprocess.CalledProcessError` where that is not
    permitted.
    """

    here, there = "10.77.0.1", "10.77.0.2"

    def __init__(self) -> None:
        self._names = [f"dm-{os.getpid()}-{side}" for side in ("here", "there")]
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _build(self) -> None:
        here, there = self._names
        for name in self._names:
            _ip("netns", "add", name)
            self._stack.callback(_ip, "netns", "del", name)
        wire = ("link", "add", "wire", "type", "veth", "peer", "name", "wire")
        _ip("-n", here, *wire, "netns", there)
        for name, address in zip(self._names, (self.here, self.there), strict=True):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "wire")
            _ip("-n", name, "link", "set", "wire", "up")

    def run(self, *, here: bool, arguments: list[str]) -> subprocess.Popen[str]:
        """Run a Python program on one of the hosts; it ends with the block."""
        name = self._names[0 if here else 1]
        process = subprocess.Popen(
            ["ip", "netns", "exec", name, sys.executable, *arguments],
            cwd=ROOT,
            env=os.environ | {"PYTHONASYNCIODEBUG": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._stack.enter_context(process)
        self._stack.callback(process.kill)
        return process

    def cut(self) -> None:
        """Have every packet go to nobody: no host hears of the other any more."""
        for name, other in zip(self._names, (self.there, self.here), strict=True):
            neighbour = ("neighbour", "replace", other, "lladdr", NOBODY)
            _ip("-n", name, *neighbour, "nud", "permanent", "dev", "wire")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
