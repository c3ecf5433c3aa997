"""What the annotation of a payload or of an answer means, decided once.

Which file reads a type is found by the type itself; a library that is not imported yet
cannot have made one, so none is imported for asking. A type of your own is added with
:func:`register`.
"""

import sys
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib import import_module
from typing import Any, Protocol

import msgspec

from ...exceptions import InvalidMessage
from ...wire.codecs import decode, encode
from ...wire.messages import UNSET
from .annotations import MISSING, default_of, unencodable_reason, without_unset

__all__ = [
    "ENCODED",
    "Adapter",
    "PayloadError",
    "converter_for",
    "decoder_for",
    "encode",
    "encoder_for",
    "is_native",
    "join",
    "may_block",
    "read_plain",
    "reader_for",
    "register",
    "unencodable_reason",
]

Read = Callable[[Any], Any]
Write = Callable[[Any], bytes]

MAX_ERRORS = 100
MAX_TEXT = 500

ENCODED = (msgspec.Raw, bytes)


class PayloadError(ValueError):
    """A payload that does not fit its annotation.

    ``errors`` lists ``{"path": "items[0].sku", "message": ...}``; the path of the whole
    payload is empty. At most 100 errors are kept, and 500 characters of each text, so
    that a small payload cannot make a large answer.
    """

    def __init__(self, errors: Iterable[dict[str, str]]) -> None:
        self.errors = [
            {"path": error["path"][:MAX_TEXT], "message": error["message"][:MAX_TEXT]}
            for error, _ in zip(errors, range(MAX_ERRORS), strict=False)
        ]
        super().__init__(self.errors)

    @classmethod
    def of(cls, message: str, path: str = "") -> "PayloadError":
        """Make the error of a single place."""
        return cls([{"path": path, "message": message}])

    def under(self, path: str) -> list[dict[str, str]]:
        """Return the errors of a payload that is itself the member ``path``."""
        return [
            {"path": join(path, error["path"]), "message": error["message"]}
            for error in self.errors
        ]

    def as_error(self) -> dict[str, Any]:
        """Return what the caller is answered."""
        single = len(self.errors) == 1
        message = self.errors[0]["message"] if single else "Validation failed."
        return {"status": "error", "message": message, "errors": self.errors}

    def __str__(self) -> str:
        return "; ".join(
            ": ".join(filter(None, (error["path"], error["message"])))
            for error in self.errors
        )


def join(path: str, more: str) -> str:
    """Join two paths: ``items`` and ``[0].sku`` are ``items[0].sku``."""
    return f"{path}.{more}" if path and more and more[0] != "[" else path + more


def read_plain(raw: Any) -> Any:
    """Decode an encoded payload to plain Python; raise :class:`PayloadError`."""
    try:
        return decode(raw)
    except InvalidMessage as error:
        raise PayloadError.of(str(error)) from error


# --- adapters -----------------------------------------------------------------------


class Adapter(Protocol):
    """What reads and writes the types of one library: a module, or any object.

    ``decoder_for`` and ``converter_for`` raise :class:`TypeError` for an annotation
    that cannot be read, and what they return raises :class:`PayloadError`; what
    ``encoder_for`` returns raises :class:`~django_microservices.EncodingError`.
    ``may_block`` says that reading may use the database, so needs a thread.
    """

    @property
    def may_block(self) -> bool:
        """Whether reading a payload may use the database."""

    def claims(self, annotation: Any) -> bool:
        """Whether the annotation is this library's."""

    def decoder_for(self, annotation: Any) -> Read:
        """Return what reads the JSON bytes of a payload."""

    def converter_for(self, annotation: Any) -> Read:
        """Return what reads a payload that is plain Python already."""

    def encoder_for(self, annotation: Any) -> Write:
        """Return what shapes and encodes an answer."""


_NATIVE = f"{__name__}.native"
_adapters: list[tuple[str, Any]] = [
    ("pydantic", f"{__name__}.pydantic"),
    ("django.forms", f"{__name__}.forms"),
    ("rest_framework.serializers", f"{__name__}.drf"),
]


def register(adapter: Adapter | str, *, when: str) -> None:
    """Let ``adapter`` read the types of the library whose module is ``when``.

    ``adapter`` is an object with the five names of :class:`Adapter`, or the dotted path
    of a module that has them, imported once ``when`` is. The last one registered is
    asked first.
    """
    _adapters.insert(0, (when, adapter))
    for cached in (_adapter_for, _decoder_for, _converter_for):
        cached.cache_clear()


@lru_cache(maxsize=1024)
def _adapter_for(annotation: Any) -> Any:
    for when, adapter in _adapters:
        if when in sys.modules:
            found = import_module(adapter) if isinstance(adapter, str) else adapter
            if found.claims(annotation):
                return found
    return import_module(_NATIVE)


@lru_cache(maxsize=1024)
def _decoder_for(annotation: Any) -> Read:
    read: Read = _cached(_adapter_for, annotation).decoder_for(annotation)
    return read


@lru_cache(maxsize=1024)
def _converter_for(annotation: Any) -> Read:
    read: Read = _cached(_adapter_for, annotation).converter_for(annotation)
    return read


def _cached(function: Any, annotation: Any) -> Any:
    """Call a cached function, past its cache where the annotation has no hash."""
    try:
        hash(annotation)
    except TypeError:
        return function.__wrapped__(annotation)
    return function(annotation)


def may_block(annotation: Any) -> bool:
    """Whether reading a payload of this type may use the database."""
    return bool(_cached(_adapter_for, without_unset(annotation)).may_block)


def decoder_for(annotation: Any) -> Read:
    """Return what reads the JSON bytes of a payload, the same for the same type.

    It raises :class:`PayloadError`; here :class:`TypeError` says that no adapter reads
    the annotation.
    """
    read: Read = _cached(_decoder_for, annotation)
    return read


def converter_for(annotation: Any) -> Read:
    """Return what :func:`decoder_for` does, for payloads that are plain Python."""
    read: Read = _cached(_converter_for, annotation)
    return read


def encoder_for(annotation: Any) -> Write:
    """Return what shapes and encodes an answer: a return annotation or ``response=``.

    It raises :class:`~django_microservices.EncodingError`, and may use the database
    where the answer is a model instance or a QuerySet.
    """
    write: Write = _cached(_adapter_for, annotation).encoder_for(annotation)
    return write


def is_native(annotation: Any) -> bool:
    """Whether msgspec itself reads payloads of this type."""
    return _cached(_adapter_for, annotation) is import_module(_NATIVE)


def reader_for(
    annotation: Any, default: Any = MISSING, *, name: str = "The payload"
) -> Read:
    """Return what reads a payload in any form: encoded, plain Python, or ``UNSET``.

    A missing payload is the ``default``, else ``UNSET`` where the annotation admits it
    (as ``Any`` does), else an error: ``None`` is JSON's null only.
    """
    typed = without_unset(annotation)
    read_json, convert = decoder_for(typed), converter_for(typed)
    default = default_of(annotation, default)

    def read(data: Any) -> Any:
        if isinstance(data, ENCODED):
            return read_json(data)
        if data is not UNSET:
            return convert(data)
        if default is MISSING:
            message = f"{name} is missing."
            raise PayloadError.of(message)
        return default

    return read
