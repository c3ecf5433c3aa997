"""Django REST framework: the handler gets the bound, valid serializer.

``list[ItemSerializer]`` is ``ItemSerializer(many=True)``.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_args, get_origin

from rest_framework.serializers import BaseSerializer

from ...wire.codecs import encode
from . import PayloadError, join, read_plain
from .annotations import is_subclass

may_block = True  # a ModelSerializer looks for rows that are not unique

_WHOLE = "non_field_errors"


def _serializer(annotation: Any) -> tuple[Any, bool]:
    """Return an annotation's class and whether it stands for a list."""
    if get_origin(annotation) is list:
        return get_args(annotation)[0], True
    return annotation, False


def claims(annotation: Any) -> bool:
    """Claim serializer classes, and lists of one."""
    return is_subclass(_serializer(annotation)[0], BaseSerializer)


def flat(errors: Any, path: str = "") -> Iterator[dict[str, str]]:
    """Yield one error after the other of REST framework's nested ones."""
    if isinstance(errors, Mapping):
        for name, inner in errors.items():
            yield from flat(inner, path if name == _WHOLE else join(path, _step(name)))
    elif isinstance(errors, list):
        for index, inner in enumerate(errors):
            at = f"{path}[{index}]" if isinstance(inner, Mapping | list) else path
            yield from flat(inner, at)
    else:
        yield {"path": path, "message": str(errors)}


def _step(name: Any) -> str:
    return f"[{name}]" if isinstance(name, int) else str(name)


def decoder_for(annotation: Any) -> Callable[[Any], Any]:
    """Return what fills a serializer with a JSON payload."""
    bind = converter_for(annotation)
    return lambda raw: bind(read_plain(raw))


def converter_for(annotation: Any) -> Callable[[Any], Any]:
    """Return what fills a serializer with plain Python."""
    serializer_class, many = _serializer(annotation)

    def bind(value: Any) -> Any:
        serializer = serializer_class(data=value, many=many)
        if not serializer.is_valid():
            raise PayloadError(flat(serializer.errors))
        return serializer

    return bind


def encoder_for(annotation: Any) -> Callable[[Any], bytes]:
    """Return what serializes an instance, or each of a QuerySet or list."""
    serializer_class, _ = _serializer(annotation)

    def write(value: Any) -> bytes:
        if isinstance(value, BaseSerializer):
            return encode(value.data)
        many = isinstance(value, Iterable) and not isinstance(value, Mapping)
        return encode(serializer_class(value, many=many).data)

    return write
