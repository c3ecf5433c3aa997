"""Single members of a payload: what ``Payload("key")`` asks for."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from ...wire.messages import UNSET
from . import ENCODED, PayloadError, is_native, read_plain, reader_for
from .annotations import MISSING, default_of
from .defaults import completing

ReadMembers = Callable[[Any], tuple[Any, ...]]


class Member(NamedTuple):
    """One member: its literal key, its type, and its value where it is left out."""

    key: str
    annotation: Any
    default: Any = MISSING


def members_reader(members: Sequence[Member]) -> ReadMembers:
    """Return what reads these members of a payload in any form, validated together.

    A payload that is missing or null has no members, as in Nest. Where all types are
    msgspec's, one decoder reads them at once; all errors are looked for after the
    first is found.
    """
    read_each = _one_by_one(members)
    decode = _decoder(members)
    if decode is None:
        return read_each

    def read(data: Any) -> tuple[Any, ...]:
        if isinstance(data, ENCODED):
            try:
                return msgspec.structs.astuple(decode(data))
            except (ValueError, RecursionError):
                pass  # Also what msgspec alone refuses: half a surrogate.
        return read_each(data)

    return read


def _decoder(members: Sequence[Member]) -> Callable[[Any], Any] | None:
    if not all(is_native(member.annotation) for member in members):
        return None
    keys = {f"m{index}": member.key for index, member in enumerate(members)}
    fields = [_field(*pair) for pair in zip(keys, members, strict=True)]
    try:
        struct = msgspec.defstruct("Members", fields, rename=keys, kw_only=True)
    except ValueError:  # a key with a quote, a backslash or a control character
        return None
    return completing(msgspec.json.Decoder(struct).decode, struct)


def _field(name: str, member: Member) -> tuple[str, Any] | tuple[str, Any, Any]:
    annotation = Any if member.annotation is MISSING else member.annotation
    default = default_of(member.annotation, member.default)
    if default is MISSING:
        return name, annotation
    return name, annotation, msgspec.field(default_factory=lambda: default)


def _one_by_one(members: Sequence[Member]) -> ReadMembers:
    readers = [
        (key, reader_for(annotation, default, name=f"`{key}`"))
        for key, annotation, default in members
    ]

    def read(data: Any) -> tuple[Any, ...]:
        values, errors = [], []
        found = _found(data)
        for key, read_member in readers:
            try:
                values.append(read_member(found.get(key, UNSET)))
            except PayloadError as error:
                errors += error.under(key)
        if errors:
            raise PayloadError(errors)
        return tuple(values)

    return read


_split = msgspec.json.Decoder(dict[str, msgspec.Raw] | None).decode


def _found(data: Any) -> Any:
    """Return the members there are, each encoded still where the payload is."""
    if isinstance(data, ENCODED):
        try:
            data = _split(data)
        except (ValueError, RecursionError):
            data = read_plain(data)
    if data is UNSET or data is None:
        return {}
    if not isinstance(data, Mapping):
        message = "Expected `object`."
        raise PayloadError.of(message)
    return data
