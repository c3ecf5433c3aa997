"""``python -m demo_project.leash COMMAND ...``: becomes a command that ends with us.

Its standard input is a pipe of which only the starter holds the other end. The end of
the pipe is the starter's, however that came: after a ``kill -9`` it can do no more.
"""

import os
import signal
import sys

STDIN, STDOUT, STDERR = 0, 1, 2


def main() -> None:
    """Leave a watcher in the process group, and become the command."""
    nothing = os.open(os.devnull, os.O_RDWR)
    if os.fork() == 0:
        for output in (STDOUT, STDERR):  # their end is the command's
            os.dup2(nothing, output)
        end_with_the_starter()
    os.dup2(nothing, STDIN)
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - the starter's own words


def end_with_the_starter() -> None:
    """Wait for the end of the pipe, then stop the whole group, and so ourselves."""
    while os.read(STDIN, 1):
        pass
    os.killpg(0, signal.SIGTERM)


if __name__ == "__main__":
    main()
