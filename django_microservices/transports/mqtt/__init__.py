"""Nest's MQTT wire, over a protocol of our own, 3.1.1 and 5.

Without I/O: ``packets`` are written, ``reader`` cuts what is read into them
(``answers`` reads all but the messages), ``properties`` are those of MQTT 5,
``reasons`` the codes, ``flows`` what is under way, ``topics`` the names. ``stream`` is
the socket, ``connection`` speaks MQTT on it, ``dial`` opens it. ``intake`` serves, each
connection an ``inlet``, each message of QoS 1 or 2 with a ``receipt``; ``holdings`` are
what outlives a connection: what is in flight, the ``failures`` and the ``streams``.
``link`` calls, and awaits answers on ``replies``; ``packer`` makes what both publish,
within the ``limits`` of the broker; ``transport`` has the options.
"""

from typing import TypeAlias

from ...wire.context import MessageContext
from .options import PublishOptions, SubscribeOptions, WillOptions
from .packets import Publish as MQTTWire
from .transport import MQTTTransport

MQTTContext: TypeAlias = MessageContext[MQTTWire]

__all__ = [
    "MQTTContext",
    "MQTTTransport",
    "MQTTWire",
    "PublishOptions",
    "SubscribeOptions",
    "WillOptions",
]
