"""The servers of a page's settings, for the examples that call them."""

import asyncio
import threading

from django_microservices import Microservice, create_microservice

PATIENCE = 30.0


class Running:
    """A Microservice on a thread of its own, started once and stopped once."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Return when every server consumes."""
        if self._thread is not None:
            return
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),))
        self._thread.start()
        if not self._ready.wait(PATIENCE):
            raise TimeoutError("The servers of the page did not start.")
        if self._error is not None:
            raise self._error

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        microservice = create_microservice()
        try:
            await microservice.start()
        except BaseException as error:  # noqa: BLE001 - the page's own thread raises it
            self._error = error
            return
        finally:
            self._ready.set()
        await self._stop.wait()
        await self._end(microservice)

    @staticmethod
    async def _end(microservice: Microservice) -> None:
        await microservice.drain()
        await microservice.stop()

    def stop(self) -> None:
        """Drain and stop, where it was started."""
        if self._thread is None:
            return
        if self._loop is not None and self._stop is not None and self._error is None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)
