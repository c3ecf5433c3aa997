"""The end that answers: holds a transport, hands its messages to handlers."""

import asyncio
import logging
from collections.abc import Callable
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from ..concurrency.inbox import Inbox
from ..concurrency.pools import Pool
from ..concurrency.timers import Timers
from ..dispatch.handlers import Handler
from ..dispatch.middleware import compose
from ..dispatch.registry import Registry
from ..exceptions import MicroserviceError, NotConnected, TransportRefused
from ..signals import message_failed, message_handled, message_received
from ..transports.redelivery import GIVEN_BACK
from ..wire.context import MessageContext
from ..wire.messages import UNSET, Message, Reply
from ..wire.status import Status, StatusStream
from ..wire.text import shown
from .backoff import SERVER_CAP, Backoff
from .config import ServerConfig
from .delivery import ACK, DEAD, RETRY, Delivery
from .fanout import Fanout, Settled, answer
from .listeners import Listeners
from .routing import Route, Routes
from .streaming import StreamDelivery
from .watch import Watch

if TYPE_CHECKING:
    from ..transports.base import Delivery as AnyDelivery
    from ..transports.base import Intake, Respond

logger = logging.getLogger(__name__)

_TICK = 0.005  # seconds between two looks at what is still in flight, while draining


class Server:
    """One entry of ``MICROSERVICES["SERVERS"]``: ``servers["NAME"]``."""

    def __init__(self, name: str, load: Callable[[], Any]) -> None:
        self.name = name
        self._load = load
        self.status = StatusStream()
        self.listeners = Listeners()
        self.in_flight: set[Delivery] = set()
        self.timed_out = 0
        self.unhandled = 0
        self._intake: Intake | None = None
        self._task: asyncio.Task[None] | None = None
        self._draining = False
        self._gives_back = False  # what still comes: nothing begins any more

    # --- life ---

    async def start(self, make_threads: Callable[[bool], tuple[Pool, Pool]]) -> None:
        """Return when messages are really consumed.

        ``make_threads(in_process)`` gives the pools for handlers and for streams.
        Raises :class:`TransportRefused` when that can never happen.
        """
        config = self._load()
        if isawaitable(config):
            config = await config
        self._prepare(config, *make_threads(config.transport.in_process))
        self._task = self.loop.create_task(self._run())
        await self._ready

    def _prepare(self, config: ServerConfig, threads: Pool, streams: Pool) -> None:
        self.loop = asyncio.get_running_loop()
        self.config = config
        self.transport = config.transport
        self.registry = Registry(config.handlers, config.transport.grammar)
        self.threads = threads
        self.streams = streams
        self.timers = Timers(self.loop)
        self.watch = Watch(self)
        self._inbox = Inbox(self.loop)
        self.log_messages = config.log_messages
        self.observed = config.log_messages or any(
            signal.receivers
            for signal in (message_received, message_handled, message_failed)
        )
        self._stopping = asyncio.Event()
        self._draining = False
        self._gives_back = False
        self._ready: asyncio.Future[None] = self.loop.create_future()
        self._routes = Routes(self.registry, self._route)

    def _route(self, handler: Handler) -> Route:
        chain = compose(handler, self.config.middleware, self.threads, self.streams)
        return Route(
            handler,
            chain.call,
            chain.is_async,
            handler.streams,
            handler.encode,
            handler.timeout,
        )

    async def _run(self) -> None:
        """Consume, and begin again for ever when the wire ends."""
        backoff = Backoff(SERVER_CAP)
        attempts = self.transport.retry_attempts
        while not self._draining:
            self.status.change(Status.CONNECTING)
            try:
                await self._consume(backoff)
            except TransportRefused as refusal:
                self._give_up(refusal)
                return
            except (MicroserviceError, OSError) as error:
                self._report(error)
                if attempts is not None and backoff.tries >= attempts:
                    self._give_up(error)
                    return
            except Exception as error:
                logger.exception("The transport of server %r failed.", self.name)
                self._give_up(error)
                return
            await self._wait(backoff)

    async def _consume(self, backoff: Backoff) -> None:
        async with self.transport.serve(
            self.registry.subscriptions,
            self.deliver,
            self.status.change,
            limit=self.config.concurrency,
        ) as intake:
            self._intake = intake
            entered = self.loop.time()
            self.status.change(Status.CONNECTED)
            self.listeners.call("connect")
            if not self._ready.done():
                self._ready.set_result(None)
            stopping = asyncio.ensure_future(self._stopping.wait())
            try:
                await asyncio.wait(
                    (intake.closed, stopping), return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                stopping.cancel()
                self._intake = None
                backoff.held(self.loop.time() - entered)
                self.listeners.call("disconnect")
            if self._stopping.is_set():
                return
            raise intake.closed.result() or NotConnected("the wire ended")

    def _give_up(self, error: BaseException) -> None:
        self.status.change(Status.CLOSED)
        if not self._ready.done():
            self._ready.set_exception(error)
        else:
            logger.critical("Server %r gave up: %s", self.name, error)
        self.listeners.call("error", error)

    def _report(self, error: BaseException) -> None:
        logger.warning("Server %r: %s", self.name, error)
        self.status.change(Status.RECONNECTING)
        self.listeners.call("error", error)

    async def _wait(self, backoff: Backoff) -> None:
        seconds, delay = backoff.next(), self.transport.retry_delay
        if delay is not None:
            seconds = delay
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    @property
    def is_ready(self) -> bool:
        """Whether messages are consumed now."""
        if self.status.value not in {Status.CONNECTED, Status.UNBLOCKED}:
            return False
        return not (self._draining or self.watch.is_stalled)

    @property
    def unburied(self) -> int:
        """How many places messages hold whose dead letter is refused."""
        return getattr(self._intake, "unburied", 0)

    async def ended(self) -> None:
        """Return when it gave up for good, since no retry would help."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    @property
    def address(self) -> str:
        """Where it listens, for people."""
        return "closed" if self._intake is None else self._intake.address

    def on(self, event: str, callback: Callable[..., Any]) -> None:
        """Call ``callback`` at "connect", "disconnect" or "error" (with the error)."""
        self.listeners.add(event, callback)

    def unwrap(self) -> Any:
        """Return the driver's object; raise :class:`NotConnected` without one."""
        if self._intake is None:
            message = f"Server {self.name!r} is not listening."
            raise NotConnected(message)
        return self._intake.driver

    # --- the end ---

    async def drain(self) -> None:
        """Take nothing new; return when everything accepted is done."""
        self._begin_end()
        if self._intake is not None:
            await self._intake.pause()
        while self.in_flight:  # noqa: ASYNC110 - an event would cost every message
            await asyncio.sleep(_TICK)

    async def stop(self) -> None:
        """Cancel what is left and leave the transport's block."""
        self._begin_end()
        self._gives_back = True
        for delivery in tuple(self.in_flight):
            delivery.give_back()
        if self._task is not None:
            self._stopping.set()
            await asyncio.wait((self._task,))
            self._ready.cancel()
        self.status.change(Status.CLOSED)

    def _begin_end(self) -> None:
        """Connect no more; what is still connecting is given up."""
        self._draining = True
        if self.status.value is Status.CONNECTING and self._task is not None:
            self._task.cancel()
        self.status.change(Status.DRAINING)

    # --- messages ---

    def deliver(self, message: Message, respond: "Respond") -> "AnyDelivery":
        """Hand a message to its handlers; called by the transport."""
        if self._gives_back:
            return Settled(message, RETRY, GIVEN_BACK)
        routes = self._routes.of(message)
        if routes is None:
            return Settled(message, ACK)
        asker = None if message.id is UNSET else respond
        if len(routes) == 1:
            delivery = self._delivery(routes[0], message, asker)
            delivery.start()
            return delivery
        if routes:
            return self._fan_out(message, routes, asker)
        return self._unhandled(message, asker)

    def _delivery(
        self, route: Route, message: Message, respond: "Respond | None"
    ) -> Delivery:
        context: MessageContext[Any] = MessageContext(message, route.handler, self.name)
        kind = StreamDelivery if route.streams else Delivery
        delivery = kind(self, route, message, context, respond)
        if message.settle is not None:
            context.settle = delivery.settle
        return delivery

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Call ``function`` on the loop: at once if this is its thread."""
        try:
            here = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            here = False
        if here:
            function(*args)
        else:
            self._inbox.put(function, *args)

    def _fan_out(
        self, message: Message, routes: list[Route], respond: "Respond | None"
    ) -> Fanout:
        fanout = Fanout(message, respond)
        parts = [self._delivery(route, message, None) for route in routes]
        for part in parts:
            part.is_part = True
        fanout.start(parts)
        return fanout

    def _unhandled(self, message: Message, respond: "Respond | None") -> "AnyDelivery":
        self.unhandled += 1
        kind = "event" if respond is None else "request"
        pattern = shown(message.pattern.route)
        logger.warning("Server %r has no handler for %s %s.", self.name, kind, pattern)
        if respond is not None:
            answer(respond, Reply(message.id, missing=True))
        return Settled(message, DEAD, "no handler")
