"""Payloads: Django forms."""

from typing import Any

import pytest
from django import forms

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


def test_a_form_shapes_no_answer() -> None:
    """Said at registration."""
    with pytest.raises(TypeError, match="Transfer is a form, and shapes no answer"):
        encoder_for(Transfer)
