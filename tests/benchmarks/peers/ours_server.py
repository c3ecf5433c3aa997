"""Our server: ``manage.py runmicroservice``, but that it drains and ends with stdin.

It says when it is ready, in the way of tests/interop/process.py; what else it prints
goes to stderr.
"""

import json
import os
import signal
import sys
import threading
from typing import Any

from django.core.management import execute_from_command_line

from django_microservices.signals import microservice_ready

_say, sys.stdout = sys.stdout, sys.stderr


def _ready(**_: Any) -> None:
    print(json.dumps({"id": 0}), file=_say, flush=True)


def _end_with_stdin() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


microservice_ready.connect(_ready)
threading.Thread(target=_end_with_stdin, daemon=True).start()
execute_from_command_line(["manage.py", "runmicroservice", "--noreload"])
