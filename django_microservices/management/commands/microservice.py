"""``manage.py microservice handlers | send | emit``: look at and call services."""

import json
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from inspect import isawaitable
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from ...concurrency.adapt import to_sync
from ...conf import clients, entry_of, handlers_of, names_in, path_of
from ...dispatch.handlers import Handler
from ...exceptions import MicroserviceError, RemoteError
from ...schema import unknown
from ...wire.messages import UNSET
from ...wire.text import shown

COLUMNS = ("PATTERN", "KIND", "HANDLER", "SERVERS", "RUNS")

# The last two: what is no pattern, or cannot travel.
_EXPECTED = (ImproperlyConfigured, MicroserviceError, TypeError, ValueError)


class Command(BaseCommand):
    """What a project answers, and a way to ask any service by hand."""

    help = "Lists handlers, or sends a message or event through a client of settings."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the verbs."""
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
        handlers = verbs.add_parser("handlers", help="list what this project answers")
        handlers.add_argument("--server", help="a name in MICROSERVICES['SERVERS']")
        send = verbs.add_parser("send", help="send a request and print its answer")
        _add_message(send)
        send.add_argument("--stream", action="store_true", help="print every item")
        send.add_argument("--timeout", type=float, help="seconds to wait")
        _add_message(verbs.add_parser("emit", help="send an event"))

    def handle(self, *_: Any, **options: Any) -> None:
        """Do what the verb says; any failure is one line and exit code 1."""
        verb = {"handlers": self.handlers, "send": self.send, "emit": self.emit}
        try:
            verb[options["verb"]](options)
        except _EXPECTED as error:
            raise CommandError(_told(error)) from error

    def handlers(self, options: dict[str, Any]) -> None:
        """Print a table of the handlers."""
        rows = [COLUMNS, *_rows([options["server"]] if options["server"] else None)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.stdout.write("  ".join(cells).rstrip())

    def send(self, options: dict[str, Any]) -> None:
        """Print the answer, or every item of it, as JSON."""
        client, parts = _message(options)
        if options["timeout"] is not None:
            parts["timeout"] = options["timeout"]
        if not options["stream"]:
            self.stdout.write(_json(client.send(**parts)))
            return
        for item in client.stream(**parts):
            self.stdout.write(_json(item))
            self.stdout.flush()

    def emit(self, options: dict[str, Any]) -> None:
        """Send an event."""
        client, parts = _message(options)
        client.emit(**parts)


# --- messages ---------------------------------------------------------------------


def _add_message(parser: ArgumentParser) -> None:
    parser.add_argument("client", help="a name in MICROSERVICES['CLIENTS']")
    parser.add_argument("pattern", help="JSON, else text")
    parser.add_argument("data", nargs="?", default="null", help="JSON, else text")
    parser.add_argument(
        "--header", action="append", default=[], metavar="K=V", help="repeatable"
    )


def _message(options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    name, known = options["client"], names_in("CLIENTS")
    if name not in known:
        raise ImproperlyConfigured(unknown(path_of("CLIENTS", name), name, known))
    return clients[name], {
        "pattern": _parsed(options["pattern"]),
        "data": _parsed(options["data"]),
        "headers": dict(map(_header, options["header"])) or None,
    }


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _header(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        message = f"--header {text!r}: write it as KEY=VALUE."
        raise CommandError(message)
    return key, value


def _json(value: Any) -> str:
    return "" if value is UNSET else json.dumps(value, ensure_ascii=False)


def _told(error: Exception) -> str:
    if isinstance(error, RemoteError):
        return f"RemoteError: {json.dumps(error.error)}"
    if isinstance(error, MicroserviceError):
        return f"{type(error).__name__}: {shown(str(error))}"
    return str(error)


# --- handlers ---------------------------------------------------------------------


def _rows(named: Iterable[str] | None) -> Iterator[tuple[str, ...]]:
    served: dict[tuple[str, ...], list[str]] = {}
    for server in named or names_in("SERVERS"):
        entry, path = entry_of("SERVERS", server)
        if isawaitable(entry):
            entry = to_sync(_awaited)(entry)
        for handler in handlers_of(server, entry.get("HANDLERS"), path):
            for pattern in handler.patterns:
                row = (pattern.route, handler.kind, handler.name, runs(handler))
                served.setdefault(row, []).append(server)
    for (route, kind, name, how), names in sorted(served.items()):
        yield shown(route), kind, name, ", ".join(names), how


async def _awaited(entry: Any) -> Any:
    return await entry


def runs(handler: Handler) -> str:
    """Say how a handler runs: "sync", "async", "sync stream" or "async stream"."""
    mode = "async" if handler.is_async else "sync"
    return f"{mode} stream" if handler.streams else mode
