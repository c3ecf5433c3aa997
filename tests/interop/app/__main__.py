"""``manage.py runmicroservice`` as a child of the tests.

It says on stdout when it is ready, in the line that LineChild waits for, and drains
and ends with stdin.
"""

import os
import signal
import sys
import threading
from typing import Any

import django
from django.core.management import call_command

from django_microservices.signals import microservice_ready


def _say_ready(**_: Any) -> None:
    print('{"id": 0}', flush=True)  # noqa: T201 - read by the tests


def _end_with_stdin() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


django.setup()
microservice_ready.connect(_say_ready)
threading.Thread(target=_end_with_stdin, daemon=True).start()
call_command("runmicroservice", stdout=sys.stderr)
