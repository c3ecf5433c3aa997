"""``manage.py runmicroservice``: run the servers of settings."""

import sys
from argparse import ArgumentParser
from collections import Counter
from typing import Any

import django
from django.apps import apps
from django.conf import settings
from django.core.management.base import BaseCommand
from django.utils import autoreload

from ... import __version__
from ...conf import create_microservice, service_name, setting
from ...endpoints.server import Server
from ...runtime.loop import run
from ...runtime.microservice import Microservice


class Command(BaseCommand):
    """Answers messages and events until SIGTERM or Ctrl-C, then drains."""

    help = "Runs the servers of MICROSERVICES, all or those named."
    requires_system_checks: list[str] = []  # reported like runserver, below

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "servers", nargs="*", help="names in MICROSERVICES['SERVERS']; default: all"
        )
        parser.add_argument(
            "--noreload", action="store_true", help="do not restart when code changes"
        )
        parser.add_argument(
            "--drain-timeout", type=float, help="seconds to finish what was accepted"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run, with the reloader when DEBUG."""
        if settings.DEBUG and not options["noreload"]:
            autoreload.run_with_reloader(self.serve, **options)
        else:
            self.serve(**options)

    def serve(self, **options: Any) -> None:
        """Check, run, and exit with the code that says how it went."""
        autoreload.raise_last_exception()
        self.stdout.write("Performing system checks...\n")
        self.check(display_num_errors=True)
        self.check_migrations()
        microservice = create_microservice(options["servers"])
        if options["drain_timeout"] is not None:
            microservice.drain_timeout = options["drain_timeout"]
        code = run(microservice, self.report)
        if code:
            sys.exit(code)

    def report(self, microservice: Microservice) -> None:
        """Write what runs; the last line says that it is ready."""
        write = self.stdout.write
        write(
            f"Django {django.get_version()}, django_microservices {__version__}, "
            f"settings {settings.SETTINGS_MODULE!r}, service {service_name()!r}, "
            f"{setting('SYNC_THREADS')} sync threads"
        )
        for server in microservice.servers:
            write(f"  {server.name:<12} {server.address:<28} {patterns_of(server)}")
        write(self.style.SUCCESS("Ready. Quit with CONTROL-C."))
        self.stdout.flush()


def patterns_of(server: Server) -> str:
    """Say how many patterns a server answers, and from which apps."""
    counts: Counter[str] = Counter()
    for handler in server.registry.handlers:
        app = apps.get_containing_app_config(handler.module)
        counts[app.label if app else handler.module] += len(handler.patterns)
    total = sum(counts.values())
    noun = "pattern" if total == 1 else "patterns"
    parts = ", ".join(f"{label} ({count})" for label, count in sorted(counts.items()))
    return f"{total} {noun} from {parts}" if counts else "no handlers"
