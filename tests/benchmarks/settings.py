"""The Django project that is measured. ``BENCHMARK`` in the environment says how.

It is JSON: ``port``; ``handlers``, a module of ``app.handlers``; ``options`` of the
server; ``bare``, true for the same project without us, whose start is compared.
"""

import json
import os

given = json.loads(os.environ.get("BENCHMARK", "{}"))
port = given.get("port", 20_000)
APP = "tests.benchmarks.app"

SECRET_KEY = "not a secret: nothing but the benchmarks uses it"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth"]
if not given.get("bare"):
    INSTALLED_APPS += ["django_microservices", APP]

MICROSERVICES = {
    "NAME": "benchmarks",
    "SERVERS": {
        "default": {
            "OPTIONS": {"port": port, **given.get("options", {})},
            "HANDLERS": [f"{APP}.handlers.{given.get('handlers', 'plain')}"],
        },
    },
    "CLIENTS": {"BENCH": {"OPTIONS": {"host": "127.0.0.1", "port": port}}},
}
