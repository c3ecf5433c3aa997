"""Shaping an answer to its type: model instances and QuerySets become its fields."""

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from django.core.exceptions import ObjectDoesNotExist
from django.db.models import Model, QuerySet
from django.db.models.manager import BaseManager
from django.utils.functional import Promise
from msgspec import inspect

from ...exceptions import EncodingError
from ...wire.codecs import encode
from .annotations import WITH_FIELDS, nodes_of
from .defaults import completing

_SCALARS = frozenset((str, int, float, bool, type(None)))
_ROWS = (list, tuple, QuerySet, BaseManager)
_LISTS = (
    inspect.ListType,
    inspect.VarTupleType,
    inspect.SetType,
    inspect.FrozenSetType,
)


Failures = list[Exception]
"""What reading an answer raised: to msgspec and pydantic it is a missing member."""


class Attributes:
    """A model instance as a type with fields reads it: relations are lists and objects.

    A one-to-one relation that is not there is ``None``.
    """

    __slots__ = ("_failures", "_instance")

    def __init__(self, instance: Model, failures: Failures) -> None:
        self._instance = instance
        self._failures = failures

    def __getattr__(self, name: str) -> Any:
        try:
            return readable(getattr(self._instance, name), self._failures)
        except ObjectDoesNotExist:
            return None
        except AttributeError:
            raise
        except Exception as error:
            self._failures.append(error)
            raise


def readable(value: Any, failures: Failures) -> Any:
    """Put what msgspec and pydantic can read in the place of Django's own objects."""
    if type(value) in _SCALARS or isinstance(value, msgspec.Struct):
        return value
    if isinstance(value, Model):
        return Attributes(value, failures)
    if isinstance(value, Promise):
        return str(value)
    if isinstance(value, _ROWS):
        return [readable(item, failures) for item in rows_of(value)]
    if isinstance(value, dict):
        return {key: readable(item, failures) for key, item in value.items()}
    return value


def rows_of(value: Any) -> Any:
    """Fetch a QuerySet or a manager's rows; leave anything else as it is."""
    if isinstance(value, BaseManager):
        value = value.all()
    return list(value) if isinstance(value, QuerySet) else value


def misfit(annotation: Any, reason: object, failures: Failures) -> Exception:
    """Make the error of an answer that is not what its annotation says.

    Where reading it failed, that is the error.
    """
    if failures:
        return failures.pop()
    name = getattr(annotation, "__qualname__", None) or repr(annotation)
    return EncodingError(f"The answer does not fit {name}: {reason}")


def shaping_encoder(annotation: Any) -> Callable[[Any], bytes]:
    """Return the encoder of an answer that is annotated with a type of msgspec's.

    Only a type that has fields is worth a look at each answer. One that msgspec does
    not know may still be encoded.
    """
    try:
        info = inspect.type_info(annotation)
    except (TypeError, NameError):
        return encode
    if any(isinstance(node, WITH_FIELDS) for node in nodes_of(info)):
        return _fields_encoder(annotation)
    return _encode_rows if isinstance(info, _LISTS) else encode


def _encode_rows(value: Any) -> bytes:
    return encode(rows_of(value))


def _fields_encoder(annotation: Any) -> Callable[[Any], bytes]:
    box = msgspec.defstruct("Answer", [("value", annotation)])
    convert = completing(partial(msgspec.convert, type=box, from_attributes=True), box)

    def write(value: Any) -> bytes:
        if type(value) is annotation:
            return encode(value)
        failures: Failures = []
        boxed = {"value": readable(value, failures)}
        try:
            answer = convert(boxed)
        except msgspec.ValidationError as error:
            raise misfit(annotation, error, failures) from error
        return encode(answer.value)

    return write
