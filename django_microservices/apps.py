"""The Django app."""

from django.apps import AppConfig


class DjangoMicroservicesConfig(AppConfig):
    """Registers the system checks; nothing starts here."""

    name = "django_microservices"
    verbose_name = "Microservices"

    def ready(self) -> None:
        """Register checks and follow changed settings."""
        from . import checks  # noqa: F401, PLC0415 - needs the app registry
