"""Settings of the gateway: HTTP, no database, one client."""

from typing import Any

from django.core.management.utils import get_random_secret_key

from demo_project import environment

SECRET_KEY = get_random_secret_key()  # it signs nothing that outlives the process
DEBUG = True  # it answers on loopback only

INSTALLED_APPS = [
    "django.contrib.staticfiles",
    "django_microservices",
    "demo_project.gateway",
]
MIDDLEWARE = [
    "django_microservices.gateway.RequestIdMiddleware",
    "demo_project.gateway.timing.ServerTimingMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django_microservices.gateway.RemoteErrorMiddleware",
]
ROOT_URLCONF = "demo_project.gateway.urls"
TEMPLATES = [
    {"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}
]
STATIC_URL = "static/"
USE_TZ = True
TIME_ZONE = "UTC"

MICROSERVICES: dict[str, Any] = {
    "NAME": "gateway",
    "CLIENTS": {
        "USERS": {
            **environment.wire(),
            "TIMEOUT": 5,
            "MIDDLEWARE": ["demo_project.gateway.timing.MeasureMiddleware"],
        },
    },
}
