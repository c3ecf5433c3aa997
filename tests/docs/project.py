"""Puts the files of a page into a project, as its reader would."""

from collections.abc import Iterable
from pathlib import Path

from .blocks import Block

SETTINGS = "mysite/settings.py"
MANAGE = """\
import os
import sys

from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
execute_from_command_line(sys.argv)
"""
FIRST = """\
from copy import deepcopy

from tests.docs.base import *
from tests.docs.base import moved_settings

STEPS = []
"""
STEP = 'STEPS.append(moved_settings(deepcopy(globals().get("MICROSERVICES", {}))))\n'
LAST = """\
INSTALLED_APPS = list(dict.fromkeys([*INSTALLED_APPS, "django_microservices", {apps}]))
STEPS = STEPS or [moved_settings({{}})]
MICROSERVICES = STEPS[-1]
"""


def write(blocks: Iterable[Block], folder: Path) -> list[str]:
    """Write the files of these blocks into ``folder``; return their names."""
    parts: dict[str, list[str]] = {SETTINGS: []}
    for block in blocks:
        if block.file is not None:
            parts.setdefault(block.file, []).append(block.text)
    apps = sorted({name.partition("/")[0] for name in parts} - {"mysite"})
    (folder / "manage.py").write_text(MANAGE)
    for name, texts in parts.items():
        if name != SETTINGS:
            _write(folder / name, "\n".join(texts))
    _write(folder / SETTINGS, _settings(parts[SETTINGS], apps))
    if "mysite/urls.py" not in parts:
        _write(folder / "mysite/urls.py", "urlpatterns = []\n")
    return [name for name in parts if name != SETTINGS]


def _settings(parts: list[str], apps: list[str]) -> str:
    steps = "".join(f"{part}{STEP}" for part in parts)
    return FIRST + steps + LAST.format(apps="".join(f"{app!r}, " for app in apps))


def _write(path: Path, text: str) -> None:
    """Write a file of the project; every folder beneath it becomes a package."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for parent in path.parents:
        if (parent / "manage.py").exists():
            break
        (parent / "__init__.py").touch()
    path.write_text(text)


def module_of(name: str) -> str:
    """Return the module of a file."""
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
