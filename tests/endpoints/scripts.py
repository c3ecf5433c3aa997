"""Clients in processes of their own, which may fork or be patched."""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).resolve().parents[2]

PRELUDE = """
    import os, sys
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django
    django.setup()
    from django_microservices import create_client
    port = int(sys.argv[1])
"""


def run_script(port: int, script: str, before: str = "") -> str:
    """Run a script in a process of its own, and return what it printed."""
    source = f"{before}\n{dedent(PRELUDE)}\n{dedent(script)}"
    done = subprocess.run(
        [sys.executable, "-c", source, str(port)],
        cwd=ROOT,
        env=os.environ | {"PYTHONASYNCIODEBUG": ""},
        capture_output=True,
        timeout=60,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
