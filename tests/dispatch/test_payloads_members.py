"""Payloads: single members."""

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from django import forms

from django_microservices.dispatch.payloads import PayloadError
from django_microservices.dispatch.payloads.annotations import MISSING
from django_microservices.dispatch.payloads.members import Member, members_reader
from django_microservices.wire.messages import UNSET, UnsetType

ID = Member("id", int)
NAME = Member("name", str, "nobody")


class Address(forms.Form):
    """A type that msgspec does not read."""

    city = forms.CharField()


def errors_of(read: Any, data: Any) -> list[tuple[str, str]]:
    """Return what a reader reports."""
    with pytest.raises(PayloadError) as caught:
        read(data)
    return [(error["path"], error["message"]) for error in caught.value.errors]


@pytest.mark.parametrize(
    "data",
    [
        b'{"id":1,"name":"a","x":0}',
        {"id": 1, "name": "a"},
        msgspec.Raw(b'{"id":1,"name":"a"}'),
    ],
)
def test_members_are_read_from_any_form(data: Any) -> None:
    """Encoded or plain, what is not asked for is left alone."""
    assert members_reader([ID, NAME])(data) == (1, "a")


@pytest.mark.parametrize("data", [b'{"id":1}', {"id": 1}])
def test_a_missing_member_is_its_default(data: Any) -> None:
    """The very object that is the parameter's default."""
    default: list[int] = [1]
    read = members_reader([ID, Member("more", list[int], default)])
    assert read(data)[1] is default


def test_a_missing_member_is_unset_where_it_may() -> None:
    """As for whole payloads; a member without a type may be missing."""
    read = members_reader([Member("a", int | UnsetType), Member("b", MISSING)])
    assert read(b"{}") == read({}) == (UNSET, UNSET)


@pytest.mark.parametrize("data", [b"{}", b"null", {}, None, UNSET])
def test_a_missing_member_is_an_error_at_its_key(data: Any) -> None:
    """Null and nothing have no members, as in Nest."""
    assert errors_of(members_reader([ID, NAME]), data) == [("id", "`id` is missing.")]


@pytest.mark.parametrize("data", [b'{"id":"1","name":[2]}', {"id": "1", "name": [2]}])
def test_all_errors_are_reported_together(data: Any) -> None:
    """Each at its key."""
    assert errors_of(members_reader([ID, NAME]), data) == [
        ("id", "Expected `int`, got `str`"),
        ("name", "Expected `str`, got `array`"),
    ]


@pytest.mark.parametrize("data", [b"[1]", b"5", [1]])
def test_a_payload_without_members_is_refused(data: Any) -> None:
    """Lists and scalars have none."""
    assert errors_of(members_reader([NAME]), data) == [("", "Expected `object`.")]


def test_half_a_surrogate_is_read() -> None:
    """What msgspec alone refuses is read as elsewhere."""
    assert members_reader([NAME])(rb'{"name":"\ud83d"}') == ("\ud83d",)


@dataclass
class Checked:
    """A member with code of its own."""

    x: str

    def __post_init__(self) -> None:
        """Refuse what is no number, and fail for what is one."""
        len(int(self.x))  # type: ignore[arg-type]


def test_a_member_that_its_type_refuses() -> None:
    """The place is told, and a defect is raised."""
    read = members_reader([ID, Member("more", Checked)])
    refused = b'{"id":1,"more":{"x":"secret"}}'
    assert errors_of(read, refused) == [("more", "Invalid value")]
    with pytest.raises(TypeError, match="len"):
        read(b'{"id":1,"more":{"x":"1"}}')


def test_types_of_other_libraries_are_read() -> None:
    """A member may be a form; its errors stand under the key."""
    read = members_reader([ID, Member("address", Address)])
    _, form = read(b'{"id":1,"address":{"city":"Ulm"}}')
    assert form.cleaned_data == {"city": "Ulm"}
    assert errors_of(read, b'{"id":1,"address":{}}') == [
        ("address.city", "This field is required.")
    ]


def test_a_key_is_literal() -> None:
    """Dots and quotes in a key mean nothing."""
    read = members_reader([Member("a.b", int), Member('c"d', int)])
    assert read(rb'{"a.b":1,"c\"d":2}') == (1, 2)
