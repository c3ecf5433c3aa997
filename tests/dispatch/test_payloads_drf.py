"""Payloads: serializers of Django REST framework."""

from typing import Any

import pytest
from django.contrib.auth.models import Group
from rest_framework import serializers

from django_microservices.dispatch.payloads import (
    PayloadError,
    decoder_for,
    encoder_for,
    may_block,
)
from django_microservices.dispatch.payloads.drf import claims, converter_for, flat


class ItemSerializer(serializers.Serializer):  # type: ignore[misc]
    """A part of a payload."""

    sku = serializers.CharField()
    sizes = serializers.ListField(child=serializers.IntegerField(), required=False)


class OrderSerializer(serializers.Serializer):  # type: ignore[misc]
    """A payload with rules of a field and of the whole."""

    items = ItemSerializer(many=True)
    total = serializers.IntegerField(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse what only the whole shows."""
        if attrs.get("total") == 13:
            message = "Not today."
            raise serializers.ValidationError(message)
        return attrs


class GroupSerializer(serializers.ModelSerializer):  # type: ignore[misc]
    """Shapes a model."""

    class Meta:
        """Its fields."""

        model = Group
        fields = ("name",)


def test_serializer_classes_are_claimed() -> None:
    """And lists of one; they may ask the database."""
    assert claims(ItemSerializer)
    assert claims(list[ItemSerializer])
    assert not claims(list[int])
    assert may_block(ItemSerializer)


@pytest.mark.parametrize("encoded", [True, False])
def test_the_handler_gets_a_valid_serializer(encoded: object) -> None:
    """Its ``validated_data`` is the payload."""
    value = {"items": [{"sku": "a"}]}
    raw = b'{"items":[{"sku":"a"}]}'
    serializer = (
        decoder_for(OrderSerializer)(raw)
        if encoded
        else converter_for(OrderSerializer)(value)
    )
    assert isinstance(serializer, OrderSerializer)
    assert serializer.validated_data == value


def test_a_list_of_serializers_is_many() -> None:
    """One serializer with ``many=True`` reads a list."""
    assert decoder_for(list[ItemSerializer])(b'[{"sku":"a"}]').validated_data == [
        {"sku": "a"}
    ]


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"items": [{"sku": "a"}, {}]}, "items[1].sku"),
        ({"items": [{"sku": "a", "sizes": [1, "x"]}]}, "items[0].sizes[1]"),
        ({"items": [], "total": 13}, ""),
        ({}, "items"),
        (5, ""),
    ],
)
def test_errors_say_where(value: Any, path: str) -> None:
    """Nested errors are flattened to paths; those of a whole stand at its own."""
    with pytest.raises(PayloadError) as caught:
        converter_for(OrderSerializer)(value)
    assert [error["path"] for error in caught.value.errors] == [path]


def test_errors_in_lists_are_flattened() -> None:
    """A list of lists has an index for each."""
    assert list(flat({"a": [[], ["Bad."]]})) == [{"path": "a[1]", "message": "Bad."}]


def test_an_instance_is_written() -> None:
    """By the fields of the serializer."""
    assert encoder_for(GroupSerializer)(Group(name="pilots")) == b'{"name":"pilots"}'


@pytest.mark.django_db
def test_a_queryset_is_written_as_a_list() -> None:
    """The answer tells whether it is many."""
    Group.objects.create(name="pilots")
    written = encoder_for(GroupSerializer)(Group.objects.all())
    assert written == b'[{"name":"pilots"}]'


def test_a_dict_is_one_answer() -> None:
    """It is iterable, and not many."""
    assert encoder_for(ItemSerializer)({"sku": "a"}) == b'{"sku":"a"}'


def test_a_serializer_that_is_returned_is_written() -> None:
    """A handler may shape the answer itself."""
    serializer = ItemSerializer({"sku": "a"})
    assert encoder_for(ItemSerializer)(serializer) == b'{"sku":"a"}'
