"""Django forms: the handler gets the bound, valid form."""

from collections.abc import Callable
from typing import Any

from django.forms import BaseForm

from . import PayloadError, read_plain
from .annotations import is_subclass

may_block = True  # a ModelForm looks for rows that are not unique


def claims(annotation: Any) -> bool:
    """Claim form classes."""
    return is_subclass(annotation, BaseForm)


def payload_error(form: BaseForm) -> PayloadError:
    """Tell the caller what the form found, by field."""
    return PayloadError(
        {"path": "" if field == "__all__" else field, "message": str(text)}
        for field, texts in form.errors.items()
        for text in texts
    )


def decoder_for(annotation: Any) -> Callable[[Any], Any]:
    """Return what fills a form with the members of a JSON object."""
    bind = converter_for(annotation)
    return lambda raw: bind(read_plain(raw))


def converter_for(annotation: Any) -> Callable[[Any], Any]:
    """Return what fills a form with the members of a dict."""

    def bind(value: Any) -> Any:
        if not isinstance(value, dict):
            message = "Expected `object`."
            raise PayloadError.of(message)
        form = annotation(value)
        if not form.is_valid():
            raise payload_error(form)
        return form

    return bind


def encoder_for(annotation: Any) -> Callable[[Any], bytes]:
    """Refuse: a form reads and does not write."""
    message = (
        f"{annotation.__qualname__} is a form, and shapes no answer: return "
        "form.cleaned_data, or name a serializer or a type with fields."
    )
    raise TypeError(message)
