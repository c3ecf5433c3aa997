"""Everything that this package raises on purpose.

::

    MicroserviceError
    ├── RemoteError            the handler answered with an error: ``.error``
    ├── MessageTimeout         no answer in time (also a ``TimeoutError``)
    ├── NoHandler              the other side has no handler for the pattern
    ├── NotConnected           no connection could be made (also a ``ConnectionError``)
    ├── ConnectionLost         the connection ended before the answer came
    ├── MessageTooLarge        a message or reply is over ``max_frame_size``
    ├── StreamOverflow         a stream's reader fell too far behind
    ├── InvalidReply           the answer cannot be read, or is not of the type
    ├── InvalidMessage         bytes that are no message of this wire
    ├── TransportRefused       a refusal that no retry mends: a port is taken
    └── RpcException           raise it in a handler: its value travels to the caller
    EncodingError              a value that cannot travel (a ``TypeError``)

Wrong settings raise Django's ``ImproperlyConfigured``; a sync verb inside a running
loop raises Django's ``SynchronousOnlyOperation``.
"""

from typing import Any


class MicroserviceError(Exception):
    """Base of what can go wrong with a message.

    Neither of wrong settings, nor of a value that cannot travel: a ``TypeError``.
    """


class RemoteError(MicroserviceError):
    """The handler on the other side answered with an error.

    ``error`` is exactly the JSON value that the peer sent.
    """

    def __init__(self, error: Any) -> None:
        super().__init__(error)
        self.error = error

    @property
    def message(self) -> str:
        """The text of the error: its ``message`` member, or the value as text."""
        if isinstance(self.error, dict) and isinstance(self.error.get("message"), str):
            return str(self.error["message"])
        return str(self.error)

    def __str__(self) -> str:
        return self.message


class MessageTimeout(MicroserviceError, TimeoutError):
    """No answer came before the deadline."""


class NoHandler(MicroserviceError):
    """The other side has no handler for the pattern."""


class NotConnected(MicroserviceError, ConnectionError):
    """No connection to the other side could be made."""


class ConnectionLost(MicroserviceError, ConnectionError):
    """The connection ended while the answer was awaited; it may have been handled."""


class MessageTooLarge(MicroserviceError):
    """A message or reply is larger than ``max_frame_size`` allows."""


class StreamOverflow(MicroserviceError):
    """The reader of a stream fell more than its buffer behind the sender."""


class InvalidReply(MicroserviceError):
    """An answer could not be read, or does not fit the type asked for."""


class InvalidMessage(MicroserviceError):
    """Bytes that are no message of this wire; the text says why."""


class TransportRefused(MicroserviceError):
    """A permanent refusal: trying again would not help."""


class RpcException(MicroserviceError):
    """Raise it in a handler to answer the caller with an error of your own.

    An object or a list travels as it is, anything else as
    ``{"status": "error", "message": value}``: the shapes of Nest's ``RpcException``.
    """

    def __init__(self, error: Any) -> None:
        super().__init__(error)
        self.error = error


class EncodingError(TypeError):
    """A value that cannot be sent or returned; the text says what to do instead."""
