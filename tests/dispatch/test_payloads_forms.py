"""Payloads: Django forms."""

from contextlib import suppress
from typing import Any

import pytest
from django import forms
from django.test import override_settings
from django.utils import translation

from django_microservices.dispatch.payloads import (
    PayloadError,
    decoder_for,
    encoder_for,
    may_block,
)
from django_microservices.dispatch.payloads.forms import claims, converter_for


class Transfer(forms.Form):
    """A form with rules of a field and of the whole."""

    amount = forms.DecimalField(min_value=1)
    tags = forms.MultipleChoiceField(choices=[("a", "A"), ("b", "B")], required=False)
    express = forms.BooleanField(required=False)

    def clean(self) -> dict[str, Any]:
        """Refuse what only the whole shows."""
        data: dict[str, Any] = super().clean() or {}
        if data.get("amount") == 13:
            message = "Not today."
            raise forms.ValidationError(message)
        return data


def test_form_classes_are_claimed() -> None:
    """Theirs may ask the database."""
    assert claims(Transfer)
    assert not claims(int)
    assert may_block(Transfer)


@pytest.mark.parametrize("encoded", [True, False])
def test_the_handler_gets_a_valid_form(encoded: object) -> None:
    """JSON numbers, booleans and lists are what the widgets would give."""
    value = {"amount": 2.5, "tags": ["a", "b"], "express": True}
    raw = b'{"amount":2.5,"tags":["a","b"],"express":true}'
    form = decoder_for(Transfer)(raw) if encoded else converter_for(Transfer)(value)
    assert isinstance(form, Transfer)
    assert str(form.cleaned_data["amount"]) == "2.5"
    assert form.cleaned_data["tags"] == ["a", "b"]
    assert form.cleaned_data["express"] is True


@pytest.mark.parametrize(
    ("value", "path", "message"),
    [
        ({}, "amount", "This field is required."),
        ({"amount": 13}, "", "Not today."),
        ([1], "", "Expected `object`."),
    ],
)
def test_errors_are_told_by_field(value: Any, path: str, message: str) -> None:
    """Those of the whole form have an empty path."""
    with pytest.raises(PayloadError) as caught:
        converter_for(Transfer)(value)
    assert caught.value.errors == [{"path": path, "message": message}]


def test_a_form_of_no_model_is_refused() -> None:
    """Which Django says no sooner than the first message."""

    class Adrift(forms.ModelForm):  # type: ignore[type-arg]
        """A form that forgot its Meta."""

    for reader in (converter_for, decoder_for):
        with pytest.raises(TypeError, match="a ModelForm needs a Meta that names"):
            reader(Adrift)


def test_a_form_shapes_no_answer() -> None:
    """Said at registration."""
    with pytest.raises(TypeError, match="Transfer is a form, and shapes no answer"):
        encoder_for(Transfer)


# --- what JSON has and a browser does not -------------------------------------------

VALUES: tuple[Any, ...] = (
    *(5, 1.5, True, False, None, "x", "9" * 400, 10**400, "1e999999", "\x00"),
    *([1], ["a"], {"a": 1}, [[1]], [{}], [None]),
)
CHOICES: dict[str, Any] = {"choices": [("a", "A")]}
FIELDS: list[forms.Field] = [
    forms.BooleanField(),
    forms.CharField(),
    forms.ChoiceField(**CHOICES),
    forms.ComboField(fields=[forms.DateField(), forms.CharField()]),
    forms.DateField(),
    forms.DateField(widget=forms.SelectDateWidget),
    forms.DateTimeField(),
    forms.DecimalField(max_digits=5, decimal_places=2),
    forms.DurationField(),
    forms.EmailField(),
    forms.Field(),
    forms.FileField(),
    forms.FloatField(),
    forms.FloatField(localize=True),
    forms.GenericIPAddressField(),
    forms.ImageField(),
    forms.IntegerField(),
    forms.JSONField(),
    forms.MultipleChoiceField(**CHOICES),
    forms.NullBooleanField(),
    forms.RegexField("a"),
    forms.SlugField(),
    forms.SplitDateTimeField(),
    forms.TimeField(),
    forms.TypedChoiceField(coerce=str, **CHOICES),
    forms.TypedMultipleChoiceField(coerce=str, **CHOICES),
    forms.URLField(assume_scheme="https"),
    forms.UUIDField(),
]


def form_of(**fields: forms.Field) -> Any:
    """Make a form class of these fields."""
    return type("AForm", (forms.Form,), fields)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:9])
@pytest.mark.parametrize("field", FIELDS, ids=lambda field: type(field).__name__)
def test_no_value_is_more_than_a_field_can_take(
    field: forms.Field, value: object
) -> None:
    """It is read or refused, as a whole and in each part of the field."""
    bind = converter_for(form_of(x=field))
    for payload in (
        {"x": value},
        {"x_0": value, "x_1": value},
        {"x_year": value, "x_month": value, "x_day": value},
    ):
        with suppress(PayloadError):
            assert bind(payload).is_valid()


@pytest.mark.parametrize(
    ("field", "value", "cleaned"),
    [
        (forms.CharField(), 5, "5"),
        (forms.IntegerField(), 5, 5),
        (forms.IntegerField(), 2.0, 2),
        (forms.FloatField(), 1.5, 1.5),
        (forms.BooleanField(required=False), False, False),
        (forms.BooleanField(widget=forms.HiddenInput, required=False), False, False),
        (forms.NullBooleanField(), False, False),
        (forms.NullBooleanField(), None, None),
        (forms.ChoiceField(choices=[(True, "Yes"), (False, "No")]), True, "True"),
        (forms.TypedMultipleChoiceField(choices=[(1, "1")], coerce=int), [1], [1]),
        (forms.JSONField(), [True, {"a": 1}], [True, {"a": 1}]),
        (forms.JSONField(), 5, 5),
    ],
)
def test_numbers_and_booleans_are_read_as_they_are_typed(
    field: forms.Field, value: Any, cleaned: Any
) -> None:
    """A JSONField takes any value as it is."""
    form = converter_for(form_of(x=field))({"x": value})
    assert form.cleaned_data == {"x": cleaned}


def test_a_number_is_typed_in_the_language_of_its_field() -> None:
    """Where 1.125 is "1,125", "1.125" would be more than a thousand."""
    bind = converter_for(form_of(x=forms.FloatField(localize=True)))
    with translation.override("de"), override_settings(USE_THOUSAND_SEPARATOR=True):
        assert bind({"x": 1.125}).cleaned_data == {"x": 1.125}


def test_lists_and_objects_in_the_place_of_a_text_are_all_told() -> None:
    """In Django's words."""
    bind = converter_for(form_of(x=forms.CharField(), y=forms.SplitDateTimeField()))
    with pytest.raises(PayloadError) as caught:
        bind({"x": {"a": 1}, "y_0": ["2020-01-01"], "y_1": "10:00"})
    message = "Enter a valid value."
    paths = ("x", "y_0")
    assert caught.value.errors == [{"path": p, "message": message} for p in paths]


def test_a_field_of_ones_own_decides_what_it_takes() -> None:
    """As those for PostgreSQL's arrays do."""

    class Tags(forms.CharField):
        def to_python(self, value: Any) -> Any:
            return [str(item) for item in value or ()]

    form = converter_for(form_of(x=Tags()))({"x": [1, "b"]})
    assert form.cleaned_data == {"x": ["1", "b"]}


def test_what_is_no_field_stays_as_it_is() -> None:
    """A form may look at its data itself."""
    form = converter_for(form_of(x=forms.CharField()))({"x": "a", "x_more": [1]})
    assert form.data["x_more"] == [1]


def test_the_prefix_of_a_form_is_heeded() -> None:
    """It stands before each name, as in a page."""
    prefixed = type("Prefixed", (forms.Form,), {"prefix": "p", "x": forms.TimeField()})
    with pytest.raises(PayloadError) as caught:
        converter_for(prefixed)({"p-x": 5})
    assert caught.value.errors == [{"path": "x", "message": "Enter a valid time."}]


def test_what_a_form_itself_raises_is_a_defect() -> None:
    """Its own clean() is not excused."""

    class Broken(forms.Form):
        x = forms.IntegerField()

        def clean(self) -> dict[str, Any]:
            return len(self.cleaned_data["x"])  # type: ignore[return-value]

    with pytest.raises(TypeError, match="len"):
        converter_for(Broken)({"x": 1})
