"""The Django app."""

from django.apps import AppConfig


class DjangoMicroservicesConfig(AppConfig):
    """Registers the system checks; nothing starts here."""

    name = "django_microservices"
    verbose_name = "Microservices"

    def ready(self) -> None:
        """Register the checks."""
        from . import checks  # noqa: F401 - they register themselves
