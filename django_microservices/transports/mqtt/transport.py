"""MQTT 3.1.1 and 5: the options, and the two halves."""

import asyncio
import math
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any, Literal

from django.core.exceptions import ImproperlyConfigured

from ...wire.messages import Subscription
from ...wire.patterns import MQTT
from ...wire.ranges import Count, CountOrZero, Range, Seconds, SecondsOrZero
from ..base import Changed, Deliver, Receive, Transport
from ..redelivery import Redelivery
from ..tls import ClientContext, TLSOptions
from .dial import dialled
from .flows import LARGEST_ID
from .holdings import RESTING, Holdings
from .intake import Intake
from .link import Link
from .options import (
    PublishOptions,
    SubscribeOptions,
    WillOptions,
    split_url,
    tls_of,
    will_of,
)
from .packets import MQTT_5, Connect, Will
from .properties import LARGEST_LENGTH, problem_of, property_bytes
from .topics import Filter, check_group, check_topic

_FOR_EVER = 0xFFFFFFFF
_LONGEST_KEEPALIVE = 65_535
_SMALLEST_FRAME = 1024
_NEVER = 2


class MQTTTransport(Transport):
    """Nest's MQTT wire (``reference/nest-wire.md`` A.6), and groups that share work.

    Times are in seconds. A server's filters are shared subscriptions of ``group``, so
    that an event reaches each service once; ``""`` is Nest's plain subscription, by
    which each process gets everything.
    """

    server_only = frozenset(
        (
            "clean",
            "session_expiry",
            "subscribe_options",
            "max_connection_attempts",
            "max_deliveries",
            "max_stream_age",
            "redelivery_delay",
            "dead_letter_topic",
        )
    )
    client_only = frozenset(("publish_options", "user_properties"))

    grammar = MQTT
    headers = True
    wildcards = True
    tls_option = "tls_options"

    def __init__(
        self,
        *,
        url: str = "mqtt://127.0.0.1:1883",
        group: str | None = None,
        protocol_version: Literal[4, 5] = 4,
        client_id: str | None = None,
        username: str | None = None,
        password: str | None = None,
        clean: bool = True,
        session_expiry: SecondsOrZero | None = None,
        keepalive: Annotated[float, Range(0, _LONGEST_KEEPALIVE)] = 20.0,
        connect_timeout: Seconds = 5.0,
        will: WillOptions | None = None,
        user_properties: Mapping[str, str] | None = None,
        subscribe_options: SubscribeOptions | None = None,
        publish_options: PublishOptions | None = None,
        reply_qos: Literal[0, 1] = 0,
        max_frame_size: Annotated[int, Range(_SMALLEST_FRAME, LARGEST_LENGTH)] = 1024
        * 1024,
        max_deliveries: Count = 5,
        redelivery_delay: SecondsOrZero = 1.0,
        dead_letter_topic: str | None = None,
        max_stream_age: Seconds | None = 3600.0,
        max_connection_attempts: CountOrZero | None = None,
        tls_options: TLSOptions | None = None,
    ) -> None:
        scheme, self.host, self.port, user, secret = split_url(url)
        tls = tls_of(scheme, tls_options)
        self.tls_options = tls
        self.plain_hosts = [self.host] if tls is None else []
        self.tls = None if tls is None else ClientContext(tls)
        self.address = f"{scheme}://{self.host}:{self.port}"
        self.group = check_group(group or "")
        self.protocol_version = protocol_version
        self.client_id = client_id
        self.username = user if username is None else username
        self.password = secret if password is None else password
        self.clean = clean
        self.session_expiry = session_expiry
        self.keepalive = math.ceil(keepalive)
        self.connect_timeout = connect_timeout
        self.will = None if will is None else will_of(will)
        self.user_properties = user_properties or {}
        self.subscribe_options: SubscribeOptions = subscribe_options or {}
        self.publish_options: PublishOptions = publish_options or {}
        self.reply_qos = reply_qos
        self.max_frame_size = max_frame_size
        self.redelivery = Redelivery(max_deliveries, redelivery_delay)
        self.dead_letter_topic = check_topic(
            dead_letter_topic or "/".join(filter(None, (self.group, "dead")))
        )
        self.max_stream_age = max_stream_age
        self.retry_attempts = max_connection_attempts
        self._check()
        # Options decide what it can do.
        self.acknowledges = self.default_qos > 0
        self.confirms = self.publish_options.get("qos", 0) > 0
        self.durable = not clean
        # With one client_id two processes would throw each other out.
        self.shares_work = bool(self.group) and client_id is None
        # What lost connections left to the next ones, by the end that it is for: a
        # clean session's events are nowhere else. After a stop between two
        # connections it stays: what only rests is lost, and nothing says so.
        self._left: dict[Deliver, Holdings] = {}

    def _check(self) -> None:
        """Refuse what could never work."""
        for name in ("client_id", "username"):
            problem = problem_of(getattr(self, name) or "")
            if problem is not None:
                message = f"{name}: it {problem}."
                raise ValueError(message)
        property_bytes({"user_properties": self.user_properties.items()})
        if self.password is not None and self.username is None:
            message = "password: it needs a username."
            raise ImproperlyConfigured(message)
        if not self.clean and not self.client_id:
            message = "clean: a session that is kept needs a client_id of its own."
            raise ImproperlyConfigured(message)
        if self.session_expiry is not None and self.clean:
            message = "session_expiry: it needs clean=False."
            raise ImproperlyConfigured(message)
        if self.group and self.subscribe_options.get("nl"):
            message = "subscribe_options['nl']: shared subscriptions have it not; "
            message += "group='' subscribes without a group."
            raise ImproperlyConfigured(message)
        if self.protocol_version != MQTT_5:
            self._check_3()

    def _check_3(self) -> None:
        given = {
            "session_expiry": self.session_expiry,
            "user_properties": self.user_properties,
            **{
                f"subscribe_options[{name!r}]": self.subscribe_options.get(name)
                for name in ("nl", "rap", "rh")
            },
        }
        for name, value in given.items():
            if value:
                message = f"{name}: only protocol_version 5 has it."
                raise ImproperlyConfigured(message)

    # --- the two halves ---

    @asynccontextmanager
    async def serve(
        self,
        subscriptions: Sequence[Subscription],
        deliver: Deliver,
        changed: Changed,  # noqa: ARG002
        *,
        limit: int,
    ) -> AsyncIterator[Intake]:
        """Connect, and subscribe; entered when the broker has taken every filter.

        Raises :class:`TransportRefused` for credentials and filters that it refuses,
        and for patterns that are no filters, else :class:`NotConnected`.
        """
        holdings = self._holdings_of(deliver, limit)
        try:
            intake = Intake(self, subscriptions, holdings)
            async with AsyncExitStack() as stack:
                await intake.open(stack)
                try:
                    yield intake
                finally:
                    await intake.close()
        finally:
            if holdings.goes_on:
                self._left[deliver] = holdings

    def _holdings_of(self, deliver: Deliver, limit: int) -> Holdings:
        """Return what a lost connection left for this one, or nothing yet."""
        left = self._left.pop(deliver, None)
        here = asyncio.get_running_loop()
        if left is None or left.loop is not here or not left.goes_on:
            return Holdings(self, deliver, limit)
        return left

    @asynccontextmanager
    async def connect(
        self,
        receive: Receive,
        changed: Changed,  # noqa: ARG002
    ) -> AsyncIterator[Link]:
        """Connect; raise as :meth:`serve` does."""
        link = Link(self, receive)
        async with dialled(self, link.connection):
            try:
                yield link
            finally:
                link.close()

    # --- what the halves make of the options ---

    def connect_of_server(self, limit: int, suffix: str) -> Connect:
        """Introduce a connection of a server; the first one carries the will."""
        client_id = self.client_id or self._new_client_id()
        most = limit if self.clean else limit + RESTING
        properties: dict[str, Any] = {"receive_maximum": min(most, LARGEST_ID)}
        if not self.clean:
            properties["session_expiry_interval"] = self._expiry()
        will = None if suffix else self.will
        return self._connect(client_id + suffix, properties, will, clean=self.clean)

    def connect_of_answers(self) -> Connect:
        """Introduce the connection of a server that only publishes."""
        return self._connect(self._new_client_id(), {}, None, clean=True)

    def connect_of_client(self) -> Connect:
        """Introduce a link: each has an id of its own, since a process has several."""
        return self._connect(self._new_client_id(), {}, self.will, clean=True)

    def _connect(
        self,
        client_id: str,
        properties: dict[str, Any],
        will: Will | None,
        *,
        clean: bool,
    ) -> Connect:
        return Connect(
            self.protocol_version,
            client_id,
            clean,
            self.keepalive,
            self.username,
            self.password,
            will,
            {**properties, "maximum_packet_size": self.max_frame_size},
        )

    def _new_client_id(self) -> str:
        name = self.client_id or self.group or "django"
        return f"{name}-{secrets.token_hex(6)}"

    def _expiry(self) -> int:
        if self.session_expiry is None:
            return _FOR_EVER
        return min(math.ceil(self.session_expiry), _FOR_EVER)

    @property
    def default_qos(self) -> int:
        """The QoS of handlers that do not say."""
        return self.subscribe_options.get("qos", 0)

    def subscription_bits(self, one: Filter) -> int:
        """Return the options byte of a SUBSCRIBE.

        A shared subscription brings nothing that was retained (MQTT 5, section 4.8.2):
        mosquitto needs to be told.
        """
        if self.protocol_version != MQTT_5:
            return one.qos
        options = self.subscribe_options
        retained = _NEVER if one.is_shared else options.get("rh", 0)
        local = options.get("nl", False) and not one.is_shared
        return one.qos | local << 2 | options.get("rap", False) << 3 | retained << 4
