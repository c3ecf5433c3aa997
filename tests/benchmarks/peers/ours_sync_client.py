"""Our client as a sync caller uses it."""

import django

from django_microservices import clients

from .commands import obey_sync

django.setup()
obey_sync(clients["BENCH"].send)
clients["BENCH"].close()
