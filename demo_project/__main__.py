"""``python -m demo_project``: migrate, start both services, and wait for Ctrl-C."""

import asyncio
import contextlib
import signal
import socket
import sys

from django.core.exceptions import ImproperlyConfigured

from . import environment
from .environment import HOST
from .services import ServiceEnded, Services

USERS = "demo_project.users.settings"
GATEWAY = "demo_project.gateway.settings"
PATIENCE = 40.0  # seconds for both services to start


def main() -> int:
    """Return 0 after Ctrl-C or SIGTERM, else 1 and one line that says why."""
    try:
        environment.refuse_broker()
        refuse_taken_ports()
        asyncio.run(run())
    except (ImproperlyConfigured, ServiceEnded) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def refuse_taken_ports() -> None:
    """Raise ``ImproperlyConfigured`` where a service could not listen."""
    ports = {
        "DEMO_HTTP_PORT": environment.http_port(),
        "DEMO_TCP_PORT": environment.tcp_port(),
    }
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


async def run() -> None:
    """Run both services until a signal comes or one of them ends."""
    services = Services()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, services.stop)
    try:
        if await started(services):
            print(f"\nOpen http://{HOST}:{environment.http_port()}/", flush=True)
            print("Ctrl-C stops everything.\n", flush=True)
            await services.watch(asyncio.Event().wait())
    finally:
        await services.end()


async def started(services: Services) -> bool:
    """Migrate, then start; return whether the page opened before the stop."""
    migrate = ("django", "migrate", "--verbosity=0")
    if not await services.run("migration", *migrate, settings=USERS):
        return False
    await services.start(
        "users service", "django", "runmicroservice", "--noreload", settings=USERS
    )
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
    return await services.watch(opened())


async def opened() -> None:
    """Wait until the page opens and has something to show."""
    get = b"GET /api/users HTTP/1.0\r\nHost: localhost\r\n\r\n"
    try:
        async with asyncio.timeout(PATIENCE):
            await answered(environment.tcp_port())
            await answered(environment.http_port(), get, b"HTTP/1.1 200 ")
    except TimeoutError:
        message = f"The page did not open within {PATIENCE:g} s, so everything stops."
        raise ServiceEnded(message) from None


async def answered(port: int, request: bytes = b"", begin: bytes = b"") -> None:
    """Ask whoever listens on ``port`` until the answer begins as it should."""
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection(HOST, port)
            with contextlib.closing(writer):
                writer.write(request)
                if await reader.readexactly(len(begin)) == begin:
                    return
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
