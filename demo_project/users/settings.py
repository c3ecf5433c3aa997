"""Settings of the users service: no HTTP, a database, one server."""

from typing import Any

from django.core.management.utils import get_random_secret_key

from demo_project import environment

SECRET_KEY = get_random_secret_key()  # it signs nothing that outlives the process
DEBUG = True  # one log line a message

INSTALLED_APPS = ["django_microservices", "demo_project.users"]

# With WAL a reader waits for nobody; IMMEDIATE lets two writers take turns.
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": environment.database(),
        "OPTIONS": {
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            "transaction_mode": "IMMEDIATE",
        },
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"

MICROSERVICES: dict[str, Any] = {
    "NAME": "users",
    "SERVERS": {"default": environment.wire()},
    # Who hears of new users: whoever listens, where a broker tells them; over TCP this
    # service itself.
    "CLIENTS": {"EVENTS": environment.wire()},
    "DRAIN_TIMEOUT": 5,
}
