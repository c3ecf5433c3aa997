"""What a caller is told of an exception."""

import dataclasses
import datetime
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404
from django.utils.translation import gettext_lazy, override

from django_microservices import (
    MessageTimeout,
    MessageTooLarge,
    RemoteError,
    RpcException,
)
from django_microservices.dispatch.errors import error_value, is_expected
from django_microservices.dispatch.payloads import PayloadError
from django_microservices.wire.codecs import encode


def status(message: Any) -> dict[str, Any]:
    """Return the object that Nest's default filter makes."""
    return {"status": "error", "message": message}


@dataclasses.dataclass
class Refusal:
    """An error with fields."""

    code: int


@pytest.mark.parametrize("error", ["no", "", 0, 5, False, None, 1.5])
def test_scalar_is_wrapped(error: Any) -> None:
    """What Nest's client could take for no error at all becomes an object."""
    assert error_value(RpcException(error)) == status(error)


def test_date_is_wrapped() -> None:
    """What travels as a text is wrapped as a text is."""
    day = datetime.date(2026, 1, 2)
    assert error_value(RpcException(day)) == status(day)


def test_lazy_text_is_wrapped() -> None:
    """A translation is a text."""
    lazy = gettext_lazy("Yes")
    with override("de"):
        text = encode(error_value(RpcException(lazy)))
    assert text == b'{"status":"error","message":"Ja"}'


@pytest.mark.parametrize("error", [{}, {"code": 1}, [], ["a"], (1,), Refusal(1)])
def test_object_travels_as_it_is(error: Any) -> None:
    """An object or list of the handler's is handed over without any addition."""
    assert error_value(RpcException(error)) is error


def test_payload_error() -> None:
    """A payload that does not fit is told by path."""
    error = PayloadError.of("too small", "age")
    assert error_value(error) == {
        **status("too small"),
        "errors": [{"path": "age", "message": "too small"}],
    }


def test_validation_error() -> None:
    """Django's ValidationError has the shape of a payload's errors."""
    assert error_value(ValidationError("%(n)s is odd", params={"n": 3})) == {
        **status("3 is odd"),
        "errors": [{"path": "", "message": "3 is odd"}],
    }


def test_validation_error_of_fields() -> None:
    """Each text of each field is one error; of all fields together it has no path."""
    error = ValidationError({"name": ["a", "b"], "__all__": ["c"]})
    assert error_value(error) == {
        **status("Validation failed."),
        "errors": [
            {"path": "name", "message": "a"},
            {"path": "name", "message": "b"},
            {"path": "", "message": "c"},
        ],
    }


def test_validation_error_is_bounded() -> None:
    """A small payload cannot make a large answer."""
    error = error_value(ValidationError(["x" * 1000] * 1000))
    assert (len(error["errors"]), len(error["errors"][0]["message"])) == (100, 500)


@pytest.mark.parametrize(
    ("exception", "message"),
    [
        (PermissionDenied("the secret reason"), "Forbidden resource"),
        (Http404("No User matches password='x'"), "Not found."),
        (MessageTimeout("inner details"), "The handler ran out of time."),
        (MessageTooLarge("inner"), "A message or its answer is too large."),
        (RemoteError({"secret": 1}), "Internal server error"),
        (ValueError("the secret"), "Internal server error"),
        (SystemExit(3), "Internal server error"),
    ],
)
def test_fixed_texts(exception: BaseException, message: str, settings: Any) -> None:
    """No text of any other exception leaves the process, not even under DEBUG."""
    settings.DEBUG = True
    assert error_value(exception) == status(message)


@pytest.mark.parametrize(
    ("exception", "expected"),
    [
        (RpcException("x"), True),
        (PayloadError.of("x"), True),
        (ValidationError("x"), True),
        (PermissionDenied(), True),
        (Http404(), True),
        (MessageTimeout(), False),
        (RemoteError("x"), False),
        (ValueError(), False),
    ],
)
def test_expected(exception: BaseException, expected: bool) -> None:  # noqa: FBT001
    """Answers on purpose need no traceback in the log."""
    assert is_expected(exception) is expected
