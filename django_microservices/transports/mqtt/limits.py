"""What a broker takes: it says so in the CONNACK of MQTT 5."""

from ...exceptions import MessageTooLarge, TransportRefused
from . import reasons
from .packets import RETAIN
from .properties import NONE, Properties


class Limits:
    """What may be sent to one broker.

    It would end the connection for anything else, and with it every call under way.
    """

    __slots__ = ("_has", "most_qos", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.most_qos = 2
        self._has: Properties = NONE

    def learn(self, properties: Properties) -> None:
        """Take what a CONNACK says."""
        self.size = min(self.size, properties.get("maximum_packet_size", self.size))
        self.most_qos = properties.get("maximum_qos", 2)
        self._has = properties

    def has(self, feature: str) -> bool:
        """Whether the broker of MQTT 5 has a feature; it names those it has not."""
        return bool(self._has.get(feature, 1))

    def check_flags(self, flags: int) -> None:
        """Raise :class:`TransportRefused` for QoS and RETAIN that it does not take."""
        if flags & RETAIN and not self.has("retain_available"):
            code = reasons.RETAIN_NOT_SUPPORTED
        elif flags >> 1 > self.most_qos:
            code = reasons.QOS_NOT_SUPPORTED
        else:
            return
        message = f"The broker does not take the message: {reasons.text_of(code, NONE)}"
        raise TransportRefused(message)

    def check_size(self, size: int) -> None:
        """Raise :class:`MessageTooLarge` for a packet of so many bytes, if it is."""
        if size > self.size:
            message = (
                f"A message of {size} bytes is over max_frame_size, or over what the "
                f"broker takes: {self.size}."
            )
            raise MessageTooLarge(message)
