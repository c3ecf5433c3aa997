"""A first few users, so that there is something to list and to stream."""

from typing import Any

from django.db import migrations

FIRST = (
    "Ada Lovelace",
    "Alan Turing",
    "Grace Hopper",
    "Hedy Lamarr",
    "Katherine Johnson",
)


def add(apps: Any, _schema_editor: Any) -> None:
    """Add them, already welcomed: nobody emits an event here."""
    user = apps.get_model("users", "User")
    for name in FIRST:
        email = f"{name.split()[0].lower()}@example.com"
        user.objects.create(name=name, email=email, welcomed=True)


class Migration(migrations.Migration):
    """Runs after the table is there."""

    dependencies = (("users", "0001_initial"),)
    operations = (migrations.RunPython(add, migrations.RunPython.noop),)
