"""``python -m demo_project``: migrate, start the services, and wait for Ctrl-C.

With ``BROKER`` set their messages go through a broker, which is started where none is.
"""

import asyncio
import contextlib
import signal
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from . import brokers, environment
from .environment import HOST
from .services import ServiceEnded, Services

USERS = "demo_project.users.settings"
GATEWAY = "demo_project.gateway.settings"
PATIENCE = 40.0  # seconds for the broker to start, and for the services


def main() -> int:
    """Return 0 after Ctrl-C or SIGTERM, else 1 and one line that says why."""
    try:
        environment.wire()  # what is wrong with it is said before anything starts
        refuse_taken_ports()
        # A broker may still write while its folder is removed.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            asyncio.run(run(brokers.own_processes(Path(folder))))
    except (ImproperlyConfigured, ServiceEnded) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def refuse_taken_ports() -> None:
    """Raise ``ImproperlyConfigured`` where a service could not listen."""
    ports = {"DEMO_HTTP_PORT": environment.http_port()}
    if not environment.broker_name():
        ports["DEMO_TCP_PORT"] = environment.tcp_port()
    with contextlib.ExitStack() as stack:
        for name, port in ports.items():
            probe = stack.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
                probe.listen()
            except OSError as error:
                message = f"{name}={port}: {error.strerror}; set another port."
                raise ImproperlyConfigured(message) from error


async def run(broker: list[brokers.Process]) -> None:
    """Run everything until a signal comes or a part of it ends."""
    services = Services()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, services.stop)
    try:
        if await brokered(services, broker) and await started(services):
            print(f"\nOpen http://{HOST}:{environment.http_port()}/", flush=True)
            print("Ctrl-C stops everything.\n", flush=True)
            await services.watch(asyncio.Event().wait())
    finally:
        await services.end()


async def brokered(services: Services, processes: list[brokers.Process]) -> bool:
    """Start a broker of our own; return whether it answered before the stop."""
    if environment.broker_name():
        print(f"Messages go through {brokers.place()}.", flush=True)
    if not processes:
        return True
    for name, command, variables in processes:
        await services.start_program(name, command, variables)
    listening = partial(answered, environment.broker_port())
    return await services.watch(in_time("broker", listening))


async def started(services: Services) -> bool:
    """Migrate, then start; return whether the page opened before the stop."""
    migrate = ("django", "migrate", "--verbosity=0")
    if not await services.run("migration", *migrate, settings=USERS):
        return False
    serve = ("django", "runmicroservice", "--noreload")
    if not await services.start_until(
        "Ready.", "users service", *serve, settings=USERS
    ):
        return False
    await services.start(
        "gateway",
        "uvicorn",
        "demo_project.gateway.asgi:application",
        f"--host={HOST}",
        f"--port={environment.http_port()}",
        "--log-level=warning",
        "--timeout-graceful-shutdown=2",  # a stream need not end before we do
        settings=GATEWAY,
    )
    return await services.watch(in_time("page", opened))


async def in_time(name: str, wait: Callable[[], Awaitable[None]]) -> None:
    """Wait; raise :class:`ServiceEnded` where it takes too long."""
    try:
        async with asyncio.timeout(PATIENCE):
            await wait()
    except TimeoutError:
        message = f"The {name} did not open within {PATIENCE:g} s, so everything stops."
        raise ServiceEnded(message) from None


async def opened() -> None:
    """Wait until the page opens and has something to show."""
    get = b"GET /api/users HTTP/1.0\r\nHost: localhost\r\n\r\n"
    await answered(environment.http_port(), get, b"HTTP/1.1 200 ")


async def answered(port: int, request: bytes = b"", begin: bytes = b"") -> None:
    """Ask whoever listens on ``port`` until the answer begins as it should."""
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            async with asyncio.timeout(1):  # one that is lost is asked again
                reader, writer = await asyncio.open_connection(HOST, port)
                with contextlib.closing(writer):
                    writer.write(request)
                    if await reader.readexactly(len(begin)) == begin:
                        return
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
