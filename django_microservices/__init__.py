"""Micro-services for Django, on Nest's wire.

Settings may import this package: names are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .conf import clients, create_client, create_microservice, servers
    from .dispatch.decorators import (
        Controller,
        event_pattern,
        message_pattern,
        use_filters,
        use_guards,
        use_interceptors,
        use_pipes,
    )
    from .dispatch.params import Inject, Payload
    from .endpoints.client import Client
    from .endpoints.server import Server
    from .exceptions import (
        ConnectionLost,
        EncodingError,
        InvalidMessage,
        InvalidReply,
        MessageTimeout,
        MessageTooLarge,
        MicroserviceError,
        NoHandler,
        NotConnected,
        RemoteError,
        RpcException,
        StreamOverflow,
        TransportRefused,
    )
    from .injection import inject
    from .runtime.microservice import Microservice
    from .transports.base import Transport
    from .wire.context import MessageContext, current_context
    from .wire.contracts import Event, Request
    from .wire.messages import UNSET
    from .wire.status import Status
else:
    _PLACES = {
        "Client": "endpoints.client",
        "ConnectionLost": "exceptions",
        "Controller": "dispatch.decorators",
        "EncodingError": "exceptions",
        "Event": "wire.contracts",
        "Inject": "dispatch.params",
        "InvalidMessage": "exceptions",
        "InvalidReply": "exceptions",
        "MessageContext": "wire.context",
        "MessageTimeout": "exceptions",
        "MessageTooLarge": "exceptions",
        "Microservice": "runtime.microservice",
        "MicroserviceError": "exceptions",
        "NoHandler": "exceptions",
        "NotConnected": "exceptions",
        "Payload": "dispatch.params",
        "RemoteError": "exceptions",
        "Request": "wire.contracts",
        "RpcException": "exceptions",
        "Server": "endpoints.server",
        "Status": "wire.status",
        "StreamOverflow": "exceptions",
        "Transport": "transports.base",
        "TransportRefused": "exceptions",
        "UNSET": "wire.messages",
        "clients": "conf",
        "create_client": "conf",
        "create_microservice": "conf",
        "current_context": "wire.context",
        "event_pattern": "dispatch.decorators",
        "inject": "injection",
        "message_pattern": "dispatch.decorators",
        "servers": "conf",
        "use_filters": "dispatch.decorators",
        "use_guards": "dispatch.decorators",
        "use_interceptors": "dispatch.decorators",
        "use_pipes": "dispatch.decorators",
    }

    def __getattr__(name: str) -> Any:
        """Import the file of a public name when it is first used."""
        if name not in _PLACES:
            message = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(message)
        value = getattr(import_module(f".{_PLACES[name]}", __name__), name)
        globals()[name] = value
        return value


__all__ = [
    "UNSET",
    "Client",
    "ConnectionLost",
    "Controller",
    "EncodingError",
    "Event",
    "Inject",
    "InvalidMessage",
    "InvalidReply",
    "MessageContext",
    "MessageTimeout",
    "MessageTooLarge",
    "Microservice",
    "MicroserviceError",
    "NoHandler",
    "NotConnected",
    "Payload",
    "RemoteError",
    "Request",
    "RpcException",
    "Server",
    "Status",
    "StreamOverflow",
    "Transport",
    "TransportRefused",
    "clients",
    "create_client",
    "create_microservice",
    "current_context",
    "event_pattern",
    "inject",
    "message_pattern",
    "servers",
    "use_filters",
    "use_guards",
    "use_interceptors",
    "use_pipes",
]
