"""What the broker says when it closes a channel or the connection, as our errors.

Source: https://www.rabbitmq.com/amqp-0-9-1-reference#constants.
"""

from typing import Self

from pamqp import commands

from ...exceptions import (
    ConnectionLost,
    MicroserviceError,
    NoHandler,
    NotConnected,
    TransportRefused,
)

NOT_FOUND = 404
_INVALID_PATH, _ACCESS_REFUSED, _PRECONDITION_FAILED = 402, 403, 406
_COMMAND_INVALID, _NOT_ALLOWED, _NOT_IMPLEMENTED = 503, 530, 540
_REFUSED = {
    _INVALID_PATH,
    _ACCESS_REFUSED,
    _PRECONDITION_FAILED,
    _COMMAND_INVALID,  # an exchange of a type that the broker has not
    _NOT_ALLOWED,
    _NOT_IMPLEMENTED,  # what this kind of queue cannot do
}


class BrokerClosed(ConnectionLost):
    """The broker closed a channel or the connection: AMQP's code, and its text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code

    @classmethod
    def of(cls, method: commands.Connection.Close | commands.Channel.Close) -> Self:
        """Make the error of what the broker said."""
        return cls(method.reply_code or 0, method.reply_text or "")

    @property
    def is_refusal(self) -> bool:
        """Whether the same request would be refused again; a limit may have room."""
        return self.code in _REFUSED and "limit" not in str(self)

    def when_opening(self) -> MicroserviceError:
        """Return what it means while a transport's block is entered."""
        kind = TransportRefused if self.is_refusal else NotConnected
        return kind(str(self))

    def when_publishing(self) -> MicroserviceError:
        """Return what it means for a message whose publishing it answers."""
        if self.code == NOT_FOUND:
            return NoHandler(str(self))
        return TransportRefused(str(self)) if self.is_refusal else self


def copied(error: MicroserviceError) -> MicroserviceError:
    """Make an error of one's own for each who gets it: each has a traceback."""
    if isinstance(error, BrokerClosed):
        return BrokerClosed(error.code, str(error))
    return type(error)(*error.args)
