"""``manage.py runmicroservice``: run the servers of settings."""

import os
import signal
import sys
from argparse import ArgumentParser
from collections import Counter
from typing import Any

import django
from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import connections
from django.utils import autoreload

from ...concurrency.shutdown import holding_up_exit, is_exiting
from ...conf import create_microservice, service_name, setting
from ...endpoints.server import Server
from ...log import show_on_console
from ...runtime.loop import FAILED, end_process, run
from ...runtime.microservice import Microservice
from ...runtime.reloading import UNDRAINED, Parent
from ...wire.seconds import seconds_of


class Command(BaseCommand):
    """Answers messages and events until SIGTERM or Ctrl-C, then drains.

    Exits with 0 when everything accepted was finished, 1 when something was not or a
    server gave up, 3 when one could not start, 130 after a second signal.
    """

    help = "Runs the servers of MICROSERVICES, all or those named."
    requires_system_checks = ()  # reported like runserver, below

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
        parser.add_argument(
            "--skip-checks", action="store_true", help="skip the system checks"
        )

    def handle(self, *_: Any, **options: Any) -> None:
        """Run, with the reloader when DEBUG."""
        show_on_console()
        prepared(options)  # a wrong name is refused before there is a reloader
        if settings.DEBUG and not options["noreload"]:
            self.reload(options)
        elif code := self.serve(**options):
            sys.exit(code)

    def reload(self, options: dict[str, Any]) -> None:
        """Serve in a child that Django's reloader ends when code changes."""
        if os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) == "true":
            signal.signal(signal.SIGINT, lambda *_: None)  # the parent hands it on
            autoreload.run_with_reloader(self.serve_until_reload, **options)
            return
        environment = {**os.environ, autoreload.DJANGO_AUTORELOAD_ENV: "true"}
        sys.exit(Parent(autoreload.get_child_arguments(), environment).run())

    def serve_until_reload(self, **options: Any) -> None:
        """Serve on the reloader's thread, where an exit would end nothing else."""
        with holding_up_exit():
            try:
                code = self.serve(**options)
            except CommandError as error:
                self.stderr.write(str(error))
                return  # the next change of a file may mend it
            if code:
                end_process(UNDRAINED if is_exiting() else FAILED)

    def serve(self, **options: Any) -> int:
        """Check, run, and return the code that says how it went."""
        autoreload.raise_last_exception()
        if not options["skip_checks"]:
            self.stdout.write("Performing system checks...\n\n")
            self.check(display_num_errors=True)
        self.check_migrations()
        connections.close_all()
        try:
            return run(prepared(options), self.report)
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from error

    def report(self, microservice: Microservice) -> None:
        """Write what runs; the last line says that it is ready."""
        package: Any = apps.get_app_config("django_microservices").module
        self.stdout.write(
            f"Django {django.get_version()}, {package.__name__} {package.__version__}, "
            f"settings {settings.SETTINGS_MODULE!r}, service {service_name()!r}, "
            f"{setting('SYNC_THREADS')} sync threads"
        )
        for server in microservice.servers:
            self.stdout.write(
                f"  {server.name:<12} {server.address:<28} {patterns_of(server)}"
            )
        self.stdout.write(self.style.SUCCESS("Ready. Quit with CONTROL-C."))
        self.stdout.flush()


def prepared(options: dict[str, Any]) -> Microservice:
    """Make the Microservice that the command line asks for."""
    try:
        microservice = create_microservice(options["servers"])
        if (seconds := options["drain_timeout"]) is not None:
            seconds = seconds_of(seconds, "--drain-timeout", zero=True)
            microservice.drain_timeout = seconds
    except (ImproperlyConfigured, ValueError) as error:
        raise CommandError(str(error)) from error
    return microservice


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
