"""Payloads: shaping answers."""

from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec
import pytest
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import SynchronousOnlyOperation
from django.db.models import Model
from django.utils.translation import gettext_lazy

from django_microservices.dispatch.payloads.answers import (
    Attributes,
    misfit,
    readable,
    shaping_encoder,
)
from django_microservices.exceptions import EncodingError
from django_microservices.wire.codecs import encode


class UserOut(msgspec.Struct):
    """Some fields of a user."""

    username: str
    first_name: str = ""


class TypeOut(msgspec.Struct):
    """Some fields of a content type."""

    model: str


@dataclass
class PermissionOut:
    """Some fields of a permission, and of what it points to."""

    codename: str
    content_type: TypeOut


class GroupOut(msgspec.Struct):
    """A group with the rows that belong to it."""

    name: str
    permissions: list[PermissionOut]


class NameRow(TypedDict):
    """A row of ``values("name")``."""

    name: str


class Tree(msgspec.Struct):
    """A type that contains itself."""

    children: list["Tree"] = []


def test_a_type_that_contains_itself_is_written() -> None:
    """Looking for fields ends."""
    assert shaping_encoder(Tree)(Tree([Tree()])) == b'{"children":[{"children":[]}]}'


def test_an_instance_of_the_type_is_written_as_it_is() -> None:
    """Nothing is validated that is of the type already."""
    assert (
        shaping_encoder(UserOut)(UserOut("ada"))
        == b'{"username":"ada","first_name":""}'
    )


def test_a_model_instance_becomes_its_fields() -> None:
    """Only what the type names travels."""
    user = User(username="ada", password="secret")
    assert shaping_encoder(UserOut)(user) == b'{"username":"ada","first_name":""}'


def test_a_list_of_model_instances_becomes_their_fields() -> None:
    """Each item is shaped; instances of the type may stand among them."""
    answer = [User(username="a"), UserOut("b"), {"username": "c"}]
    assert msgspec.json.decode(shaping_encoder(list[UserOut])(answer)) == [
        {"username": name, "first_name": ""} for name in "abc"
    ]


def test_a_dict_of_model_instances_becomes_their_fields() -> None:
    """The values of a dict are shaped too."""
    answer = {"x": User(username="a")}
    written = shaping_encoder(dict[str, UserOut])(answer)
    assert written == b'{"x":{"username":"a","first_name":""}}'


@pytest.mark.django_db
def test_relations_become_lists_and_objects() -> None:
    """A manager gives its rows, a foreign key its row."""
    permission = Permission.objects.create(
        codename="fly",
        content_type=ContentType.objects.create(app_label="birds", model="bird"),
    )
    group = Group.objects.create(name="pilots")
    group.permissions.add(permission)
    assert shaping_encoder(list[GroupOut])(Group.objects.all()) == (
        b'[{"name":"pilots","permissions":'
        b'[{"codename":"fly","content_type":{"model":"bird"}}]}]'
    )


def test_a_relation_that_is_not_there_is_none() -> None:
    """Reading it raises ``DoesNotExist``, which is not an error here."""

    class Absent:
        @property
        def profile(self) -> None:
            raise User.DoesNotExist

    instance: Any = Absent()
    assert Attributes(instance, []).profile is None


def test_lazy_text_is_text() -> None:
    """A translation is made when it is sent."""
    assert readable([gettext_lazy("Monday")], []) == ["Monday"]


@pytest.mark.django_db
@pytest.mark.parametrize("annotation", [list[NameRow], list[dict[str, str]]])
def test_rows_of_values_are_fetched(annotation: Any) -> None:
    """``values()`` are dicts already; a list annotation fetches them."""
    Group.objects.create(name="pilots")
    assert shaping_encoder(annotation)(Group.objects.values("name")) == (
        b'[{"name":"pilots"}]'
    )


def test_builtins_are_encoded_without_a_look() -> None:
    """A type without fields costs an answer nothing."""
    assert shaping_encoder(dict[str, int]) is encode
    assert shaping_encoder(list[int])([1]) == b"[1]"


@pytest.mark.parametrize("annotation", [UserOut | TypeOut, list["Nowhere"], Model])  # type: ignore[name-defined]  # noqa: F821
def test_types_that_cannot_be_read_may_still_be_written(annotation: Any) -> None:
    """What msgspec has no plan for is encoded as it is."""
    assert shaping_encoder(annotation) is encode


def test_an_answer_that_does_not_fit_is_refused() -> None:
    """The error says what was promised and where it was not kept."""
    with pytest.raises(EncodingError, match=r"does not fit UserOut: .*username"):
        shaping_encoder(UserOut)({})


def test_a_misfit_names_generics() -> None:
    """A generic has no name of its own."""
    error = misfit(list[int] | None, "why", [])
    assert "does not fit list[int] | None: why" in str(error)


class FullName(msgspec.Struct):
    """What a handler promises."""

    full: str


def test_what_reading_raises_is_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attribute that fails is not one that is missing."""

    def full(user: User) -> str:
        raise NotImplementedError

    monkeypatch.setattr(User, "full", property(full), raising=False)
    with pytest.raises(NotImplementedError):
        shaping_encoder(FullName)(User())


def test_an_attribute_that_is_missing_is_a_misfit() -> None:
    """The type names what the model does not have."""
    with pytest.raises(EncodingError, match="missing required field `full`"):
        shaping_encoder(FullName)(User())


@pytest.mark.parametrize(
    ("annotation", "answer"),
    [
        (list[UserOut], User.objects),
        (list[NameRow], Group.objects.values("name")),
        (PermissionOut, Permission(codename="fly", content_type_id=1)),
    ],
)
async def test_rows_are_not_fetched_on_a_loop(annotation: Any, answer: Any) -> None:
    """Django says so, whatever it is that reads the answer."""
    with pytest.raises(SynchronousOnlyOperation):
        shaping_encoder(annotation)(answer)
