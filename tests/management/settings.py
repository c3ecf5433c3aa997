"""The settings of a command that a test runs: what its environment says is put in."""

import json
import os

from tests.settings import *  # noqa: F403

_given = json.loads(os.environ["TEST_SETTINGS"])
INSTALLED_APPS += _given.pop("EXTRA_APPS", [])  # noqa: F405
globals().update(_given)
