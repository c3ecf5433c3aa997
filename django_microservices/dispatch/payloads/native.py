"""What msgspec reads: builtins, Structs, dataclasses, TypedDicts, attrs, scalars."""

import logging
import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from functools import partial
from typing import Any, get_args, get_origin

import msgspec
from msgspec import inspect

from ...wire.codecs import encode
from ...wire.text import shown
from . import PayloadError, join, read_plain, reader_for
from .annotations import is_plain, nodes_of
from .answers import shaping_encoder
from .defaults import completing

logger = logging.getLogger(__name__)

may_block = False

_STREAMS = (AsyncIterator, AsyncIterable, AsyncGenerator)

# What msgspec writes behind a text to say where, and what it says of a member.
_PLACE = re.compile(r" - at `(?:key` in `)?\$(.*)`$", re.DOTALL)
_MEMBER = re.compile(r"Object (?:missing required|contains unknown) field `(.*)`")


def claims(annotation: Any) -> bool:  # noqa: ARG001 - it is asked last
    """Claim everything: msgspec is asked last."""
    return True


def payload_error(error: msgspec.ValidationError, root: str = "") -> PayloadError:
    """Tell the caller what msgspec found, without the member ``root`` of our own.

    A ``TypeError`` of the type's own code is raised again, for it is a defect of that.
    """
    cause = error.__cause__
    if isinstance(cause, TypeError):
        raise cause from None
    if cause is not None:
        place = str(error).removeprefix(str(cause))
        return _refusal(cause, _split(place, root)[1])
    text, path = _split(str(error), root)
    if member := _MEMBER.fullmatch(text):
        path = join(path, member[1])
    return PayloadError.of(text, path)


def _split(said: str, root: str) -> tuple[str, str]:
    """Return what msgspec says, and of which place."""
    place = _PLACE.search(said)
    if place is None:
        return said, ""
    return said[: place.start()], place[1].removeprefix(f".{root}").removeprefix(".")


def _refusal(cause: BaseException, path: str) -> PayloadError:
    """Tell the caller where the type's own code refused a value, but not in its words.

    ``int("a secret")`` raises a ``ValueError`` just as a rule does: the log has it.
    """
    if isinstance(cause, PayloadError):
        return PayloadError(cause.under(path))
    logger.warning("Invalid value at %r: %s", path, shown(repr(cause)))
    return PayloadError.of("Invalid value", path)


def decoder_for(annotation: Any) -> Callable[[Any], Any]:
    """Return what reads JSON; its decoder is built here, once."""
    if is_plain(annotation):
        return read_plain
    if get_origin(annotation) in _STREAMS:
        return _stream_converter(annotation)
    refuse_unknown(annotation)
    typed = completing(msgspec.json.Decoder(annotation).decode, annotation)
    convert = converter_for(annotation)

    def read(raw: Any) -> Any:
        try:
            return typed(raw)
        except msgspec.ValidationError as error:
            raise payload_error(error) from error
        except (ValueError, RecursionError):
            # What msgspec refuses and JavaScript writes, such as half a surrogate.
            return convert(read_plain(raw))

    return read


def converter_for(annotation: Any) -> Callable[[Any], Any]:
    """Return what reads plain Python.

    msgspec keeps the plan of a Struct, and of nothing else, so the value goes in one.
    """
    if is_plain(annotation):
        return _as_it_is
    if get_origin(annotation) in _STREAMS:
        return _stream_converter(annotation)
    refuse_unknown(annotation)
    box = msgspec.defstruct("Box", [("value", annotation)])
    unbox = completing(partial(msgspec.convert, type=box), box)

    def convert(value: Any) -> Any:
        try:
            return unbox({"value": value}).value
        except msgspec.ValidationError as error:
            raise payload_error(error, "value") from error

    return convert


def encoder_for(annotation: Any) -> Callable[[Any], bytes]:
    """Return what shapes an answer to its type where that has fields, else encodes."""
    return encode if is_plain(annotation) else shaping_encoder(annotation)


def _as_it_is(value: Any) -> Any:
    return value


def _stream_converter(annotation: Any) -> Callable[[Any], Any]:
    """Return what reads each item of a stream (gRPC's client streams) as it comes."""
    read = reader_for(get_args(annotation)[0])

    def convert(stream: Any) -> AsyncIterator[Any]:
        if not isinstance(stream, AsyncIterable):
            message = "Expected a stream."
            raise PayloadError.of(message)
        return (read(item) async for item in stream)

    return convert


def refuse_unknown(annotation: Any) -> None:
    """Raise :class:`TypeError` where a class stands that nothing reads.

    Left alone, msgspec would refuse every payload, one by one.
    """
    for node in nodes_of(inspect.type_info(annotation)):
        if isinstance(node, inspect.CustomType):
            hint = "use Any" if node.cls is object else "name a type that has fields"
            name = f"{node.cls.__module__}.{node.cls.__qualname__}"
            message = f"{name} cannot be read from JSON: {hint}."
            raise TypeError(message)
