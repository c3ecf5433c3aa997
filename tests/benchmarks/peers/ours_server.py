"""Our server: ``manage.py runmicroservice``, but that it drains and ends with stdin."""

import os
import signal
import sys
import threading

from django.core.management import execute_from_command_line


def _end_with_stdin() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


threading.Thread(target=_end_with_stdin, daemon=True).start()
execute_from_command_line(["manage.py", "runmicroservice", "--noreload"])
