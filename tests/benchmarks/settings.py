"""The Django project that is measured. ``BENCHMARK`` in the environment says how.

It is JSON: ``transport``; the options of ``server`` and ``client``; ``handlers``, a
module of ``app.handlers``; ``bare``, true for the same project without us, whose start
is compared.
"""

import json
import os

given = json.loads(os.environ.get("BENCHMARK", "{}"))
TRANSPORT = given.get("transport", "django_microservices.transports.TCPTransport")
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
            "TRANSPORT": TRANSPORT,
            "OPTIONS": given.get("server", {}),
            "HANDLERS": [f"{APP}.handlers.{given.get('handlers', 'plain')}"],
        },
    },
    "CLIENTS": {"BENCH": {"TRANSPORT": TRANSPORT, "OPTIONS": given.get("client", {})}},
}
