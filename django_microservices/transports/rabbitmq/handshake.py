"""The first words with a broker, without I/O: who we are, and what both can do.

Source: AMQP 0-9-1, section 2.2.4, and https://www.rabbitmq.com/docs/connections.
"""

import math
from collections.abc import Mapping
from typing import Any

from pamqp import base, commands

from ...exceptions import InvalidMessage
from .address import Address
from .errors import BrokerClosed
from .protocol import FIRST_FRAME_MAX

_LEAST_FRAME_MAX = 4096
CAPABILITIES = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "exchange_exchange_bindings": True,
    "publisher_confirms": True,
}


class Handshake:
    """Answers the broker until both are ready: then ``is_done``.

    ``heartbeat`` (seconds, 0 for none) and ``frame_max`` (bytes) are ours before that,
    and what was agreed on after it: the smaller of both sides'.
    """

    def __init__(
        self, address: Address, properties: Mapping[str, Any], heartbeat: float
    ) -> None:
        self.address = address
        self.properties = {"capabilities": CAPABILITIES, **properties}
        wanted = heartbeat if address.heartbeat is None else address.heartbeat
        self.heartbeat = math.ceil(wanted)
        self.frame_max = address.frame_max or FIRST_FRAME_MAX
        self.is_done = False

    def answer(self, method: base.Frame) -> list[base.Frame]:
        """Return what to say; raise :class:`InvalidMessage` for what is unexpected.

        Raises :class:`BrokerClosed` where the broker does not let us in.
        """
        if isinstance(method, commands.Connection.Start):
            return [self._introduce(method)]
        if isinstance(method, commands.Connection.Tune):
            return self._tune(method)
        if isinstance(method, commands.Connection.OpenOk):
            self.is_done = True
            return []
        if isinstance(method, commands.Connection.Close):
            raise BrokerClosed.of(method)
        message = f"{method.name} in the middle of the handshake"
        raise InvalidMessage(message)

    def _introduce(self, start: commands.Connection.Start) -> base.Frame:
        address = self.address
        offered = str(start.mechanisms).split()
        if address.mechanism not in offered:
            message = f"{address.mechanism} is none of the mechanisms {offered}"
            raise BrokerClosed(_ACCESS_REFUSED, message)
        return commands.Connection.StartOk(
            self.properties, address.mechanism, address.response, address.locale
        )

    def _tune(self, tune: commands.Connection.Tune) -> list[base.Frame]:
        self.heartbeat = _smaller(self.heartbeat, tune.heartbeat)
        self.frame_max = max(_LEAST_FRAME_MAX, _smaller(self.frame_max, tune.frame_max))
        return [
            commands.Connection.TuneOk(
                tune.channel_max, self.frame_max, self.heartbeat
            ),
            commands.Connection.Open(self.address.vhost),
        ]


_ACCESS_REFUSED = 403


def _smaller(ours: int, theirs: int) -> int:
    """Return the smaller bound; 0 is none."""
    return min(ours, theirs) if ours and theirs else ours or theirs
