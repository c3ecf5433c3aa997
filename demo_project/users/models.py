"""The users."""

from django.db import models


class User(models.Model):
    """Somebody with a name and an address that nobody else has."""

    name = models.CharField(max_length=80)
    email = models.EmailField(unique=True)
    created = models.DateTimeField(auto_now_add=True)
    welcomed = models.BooleanField(default=False)

    def __str__(self) -> str:
        return f"{self.name} <{self.email}>"
