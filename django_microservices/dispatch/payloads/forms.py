"""Django forms: the handler gets the bound, valid form.

A form reads what a browser sends: texts, and lists of them where one chooses several.
"""

from collections.abc import Callable
from typing import Any

from django.core.validators import RegexValidator
from django.forms import (
    BaseForm,
    BaseModelForm,
    Field,
    JSONField,
    ModelMultipleChoiceField,
    MultipleChoiceField,
    MultiWidget,
    SelectDateWidget,
)
from django.utils.formats import localize_input

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
    """Return what fills a form with the members of a dict.

    Raises ``TypeError`` for a form that Django cannot make.
    """
    if is_subclass(annotation, BaseModelForm) and _model_of(annotation) is None:
        message = "a ModelForm needs a Meta that names its model."
        raise TypeError(message)

    def bind(value: Any) -> Any:
        if not isinstance(value, dict):
            message = "Expected `object`."
            raise PayloadError.of(message)
        form = annotation(value)
        form.data = _as_sent(value, form)
        if not form.is_valid():
            raise payload_error(form)
        return form

    return bind


def _model_of(form: Any) -> Any:
    return form._meta.model  # noqa: SLF001 - Django has no other word for it


def _as_sent(value: dict[str, Any], form: BaseForm) -> dict[str, Any]:
    """Return a payload as a browser would have sent it.

    Raises :class:`PayloadError` for lists and objects where one text belongs.
    """
    fields = {form.add_prefix(name): field for name, field in form.fields.items()}
    in_parts = {n: f for n, f in fields.items() if isinstance(f.widget, _IN_PARTS)}
    data, wrong = {}, []
    for key, item in value.items():
        field, part = fields.get(key), in_parts.get(key.rpartition("_")[0])
        if isinstance(item, list | dict) and (part or _takes_one(field)):
            wrong.append({"path": key, "message": str(RegexValidator.message)})
        data[key] = _text(item, field or part)
    if wrong:
        raise PayloadError(wrong)
    return data


_IN_PARTS = (MultiWidget, SelectDateWidget)
"""What has several inputs, named like ``day_year``."""

_SEVERAL = (JSONField, MultipleChoiceField, ModelMultipleChoiceField)


def _takes_one(field: Field | None) -> bool:
    """Whether a field of Django's takes one text; another knows what it takes."""
    if field is None or isinstance(field, _SEVERAL):
        return False
    readers = (type(field).to_python, type(field).clean)
    return all(reader.__module__.startswith("django.forms.") for reader in readers)


def _text(item: Any, field: Field | None) -> Any:
    """Return what one types for a number or a boolean; anything else as it is."""
    if field is None or isinstance(field, JSONField):
        return item
    if isinstance(item, list):
        return [_text(one, field) for one in item]
    if isinstance(item, int | float):
        return localize_input(item) if field.localize else str(item)
    return item


def encoder_for(annotation: Any) -> Callable[[Any], bytes]:
    """Refuse: a form reads and does not write."""
    message = (
        f"{annotation.__qualname__} is a form, and shapes no answer: return "
        "form.cleaned_data, or name a serializer or a type with fields."
    )
    raise TypeError(message)
