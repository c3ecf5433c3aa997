"""What pydantic reads: its models, dataclasses and types, alone or in a generic.

Its own rules hold (a model's ``ConfigDict(strict=True)`` for example), and names on the
wire are the aliases, in and out.
"""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError
from pydantic.dataclasses import is_pydantic_dataclass
from pydantic_core import ErrorDetails, PydanticSerializationError

from ...exceptions import EncodingError
from . import PayloadError, read_plain
from .annotations import parts_of
from .answers import Failures, misfit, readable

may_block = False

_PACKAGES = frozenset(("pydantic", "annotated_types"))


def claims(annotation: Any) -> bool:
    """Claim what names a model, or a type or constraint, of pydantic's."""
    return any(_is_pydantic(part) for part in parts_of(annotation))


def _is_pydantic(part: Any) -> bool:
    if not isinstance(part, type):
        return type(part).__module__.partition(".")[0] in _PACKAGES
    return (
        issubclass(part, BaseModel)
        or is_pydantic_dataclass(part)
        or part.__module__.partition(".")[0] in _PACKAGES
    )


def _path(location: tuple[int | str, ...]) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return "".join(steps).removeprefix(".")


def _details(error: ValidationError) -> list[ErrorDetails]:
    return error.errors(include_url=False, include_context=False, include_input=False)


def payload_error(error: ValidationError) -> PayloadError:
    """Tell the caller all that pydantic found, without the values."""
    return PayloadError(
        {"path": _path(detail["loc"]), "message": detail["msg"]}
        for detail in _details(error)
    )


def _type_adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation)
    except PydanticUserError as error:
        raise TypeError(error.message) from error


def decoder_for(annotation: Any) -> Callable[[Any], Any]:
    """Return what validates JSON."""
    validate = _type_adapter(annotation).validate_json
    convert = converter_for(annotation)

    def read(raw: Any) -> Any:
        try:
            return validate(bytes(raw))
        except ValidationError as error:
            if _details(error)[0]["type"] == "json_invalid":
                # What pydantic refuses and JavaScript writes: half a surrogate.
                return convert(read_plain(raw))
            raise payload_error(error) from error

    return read


def converter_for(annotation: Any) -> Callable[[Any], Any]:
    """Return what validates plain Python."""
    validate = _type_adapter(annotation).validate_python

    def convert(value: Any) -> Any:
        try:
            return validate(value)
        except ValidationError as error:
            raise payload_error(error) from error

    return convert


def encoder_for(annotation: Any) -> Callable[[Any], bytes]:
    """Return what encodes an answer; a dict or model instance is validated first."""
    adapter = _type_adapter(annotation)

    def shaped(value: Any) -> Any:
        if type(value) is annotation:
            return value
        failures: Failures = []
        try:
            return adapter.validate_python(
                readable(value, failures), from_attributes=True
            )
        except ValidationError as error:
            raise misfit(annotation, payload_error(error), failures) from error

    def write(value: Any) -> bytes:
        try:
            return adapter.dump_json(shaped(value), by_alias=True)
        except PydanticSerializationError as error:
            raise EncodingError(str(error)) from error

    return write
