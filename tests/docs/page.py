"""Runs the examples of one page: ``python -m tests.docs.page PAGE FOLDER``.

The convention is told in ``.github/CONTRIBUTING.md``, under "Examples in the docs".
"""

import os
import sys
from contextlib import closing
from pathlib import Path

import django

from . import project
from .blocks import Block, blocks_of, pages_before
from .certificates import write_certificates


def main(page: Path, folder: Path) -> None:
    """Run a page's examples in ``folder``."""
    earlier = [b for before in pages_before(page) for b in blocks_of(before) if b.file]
    blocks = blocks_of(page)
    files = project.write([*earlier, *blocks], folder)
    if any('BASE_DIR / "tls"' in block.text for block in blocks):
        write_certificates(folder / "tls")
    enter(folder)
    from .steps import Steps  # it needs Django's settings

    first = len([block for block in earlier if block.file == project.SETTINGS])
    with closing(Steps(first, follows_commands(blocks))) as steps:
        steps.prepare(files, blocks)
        for block in blocks:
            steps.run(block)
        steps.test(files)


def enter(folder: Path) -> None:
    """Make ``folder`` the project that Django knows."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), str(Path.cwd())])
    sys.path.insert(0, str(folder))
    os.chdir(folder)
    django.setup()


def follows_commands(blocks: list[Block]) -> bool:
    """Whether the page starts its servers by a command of its own."""
    return any("manage.py runmicroservice" in block.text for block in blocks)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
