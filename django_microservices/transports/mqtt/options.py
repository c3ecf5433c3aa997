"""What the options of MQTT are made of."""

from typing import Literal, NotRequired, TypedDict
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

from ...wire.secrets import masked
from ..tls import TLSOptions
from .packets import Will
from .topics import check_topic

QoS = Literal[0, 1, 2]

_SCHEMES = {"mqtt": 1883, "mqtts": 8883}


class WillOptions(TypedDict):
    """``will``: what the broker publishes when the process is gone without a word."""

    topic: str
    payload: NotRequired[str]
    qos: NotRequired[QoS]
    retain: NotRequired[bool]


class SubscribeOptions(TypedDict, total=False):
    """``subscribe_options``; all but ``qos``, for handlers without one, are of MQTT 5.

    ``nl`` brings nothing that the same client published, ``rap`` keeps the retained
    flag as published, ``rh`` says when retained messages are sent: 0 at each
    subscription, 1 at a new one, 2 never.
    """

    qos: QoS
    nl: bool
    rap: bool
    rh: Literal[0, 1, 2]


class PublishOptions(TypedDict, total=False):
    """``publish_options``, for events whose ``options=`` do not say."""

    qos: QoS
    retain: bool


def split_url(url: str) -> tuple[str, str, int, str | None, str | None]:
    """Return scheme, host, port, user and password of a ``url``."""
    parts = urlsplit(url)
    try:
        port = parts.port or _SCHEMES.get(parts.scheme)
    except ValueError:
        port = None
    if parts.scheme not in _SCHEMES or not parts.hostname or port is None:
        message = f"url: {masked(url)} is not of the form 'mqtt://host:port' or "
        message += "'mqtts://host:port'."
        raise ImproperlyConfigured(message)
    user, password = (
        None if part is None else unquote(part)
        for part in (parts.username, parts.password)
    )
    return parts.scheme, parts.hostname, port, user or None, password


def tls_of(scheme: str, options: TLSOptions | None) -> TLSOptions | None:
    """Return what TLS is used with; ``None`` is without."""
    if scheme == "mqtts":
        return options or {}
    if options is not None:
        message = "tls_options: they need a url with mqtts://."
        raise ImproperlyConfigured(message)
    return None


def will_of(options: WillOptions) -> Will:
    """Return the will that goes with CONNECT."""
    try:
        topic = check_topic(options["topic"])
    except ValueError as error:
        message = f"will['topic']: {error}"
        raise ImproperlyConfigured(message) from None
    return Will(
        topic,
        options.get("payload", "").encode(),
        options.get("qos", 0),
        options.get("retain", False),
    )
