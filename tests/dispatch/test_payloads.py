"""Payloads: which adapter reads a type, missing payloads, the one error shape."""

from collections.abc import Callable, Iterator
from typing import Annotated, Any

import msgspec
import pytest

from django_microservices.dispatch import payloads
from django_microservices.dispatch.payloads import (
    PayloadError,
    converter_for,
    decoder_for,
    encoder_for,
    is_native,
    join,
    may_block,
    read_plain,
    reader_for,
    register,
)
from django_microservices.wire.messages import UNSET, UnsetType


class Colour:
    """A type of a library that we know nothing of."""

    def __init__(self, name: str) -> None:
        self.name = name


class Colours:
    """The adapter of that library."""

    may_block = True

    def claims(self, annotation: Any) -> bool:
        """Claim its class."""
        return annotation is Colour

    def decoder_for(self, annotation: Any) -> Callable[[Any], Any]:
        """Read a name."""
        return lambda raw: Colour(read_plain(raw))

    def converter_for(self, annotation: Any) -> Callable[[Any], Any]:
        """Take a name."""
        return Colour

    def encoder_for(self, annotation: Any) -> Callable[[Any], bytes]:
        """Write a name."""
        return lambda colour: colour.name.encode()


@pytest.fixture
def _adapters(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget adapters that a test registers, and what they made."""
    monkeypatch.setattr(payloads, "_adapters", list(payloads._adapters))
    yield
    for cached in (payloads._adapter_for, payloads._decoder_for):
        cached.cache_clear()
    payloads._converter_for.cache_clear()


# --- errors -------------------------------------------------------------------------


def test_a_single_error_is_the_message() -> None:
    """One error: its text is the message of the answer."""
    assert PayloadError.of("Too small.", "items[0].sku").as_error() == {
        "status": "error",
        "message": "Too small.",
        "errors": [{"path": "items[0].sku", "message": "Too small."}],
    }


def test_several_errors_have_a_common_message() -> None:
    """Several errors: the message says that there are some."""
    error = PayloadError(
        [{"path": "a", "message": "A."}, {"path": "", "message": "B."}]
    )
    assert error.as_error()["message"] == "Validation failed."
    assert str(error) == "a: A.; B."


def test_errors_are_bounded() -> None:
    """A payload of many errors, or a long one, does not make a long answer."""
    error = PayloadError(
        {"path": "p" * 9999, "message": "m" * 9999} for _ in range(999)
    )
    assert len(error.errors) == payloads.MAX_ERRORS
    assert len(error.errors[0]["path"]) == payloads.MAX_TEXT
    assert len(error.errors[0]["message"]) == payloads.MAX_TEXT


def test_errors_are_put_under_a_member() -> None:
    """The errors of a member carry its name."""
    assert PayloadError.of("A.", "[0].b").under("a") == [
        {"path": "a[0].b", "message": "A."}
    ]


@pytest.mark.parametrize(
    ("path", "more", "expected"),
    [("", "a", "a"), ("a", "", "a"), ("a", "b", "a.b"), ("a", "[1]", "a[1]")],
)
def test_paths_are_joined(path: str, more: str, expected: str) -> None:
    """A dot stands before a name and not before an index."""
    assert join(path, more) == expected


def test_plain_reading_reports_unreadable_json() -> None:
    """What is not JSON is the caller's error."""
    with pytest.raises(PayloadError, match="Not readable as JSON"):
        read_plain(b"[1,")


# --- missing payloads ---------------------------------------------------------------


def test_a_reader_reads_json_bytes_and_raw() -> None:
    """Encoded payloads come as bytes or as a part of an envelope."""
    read = reader_for(list[int])
    assert read(b"[1]") == read(msgspec.Raw(b"[1]")) == [1]


def test_a_reader_converts_values() -> None:
    """A payload that another codec decoded is converted."""
    assert reader_for(tuple[int, ...])([1, 2]) == (1, 2)


def test_a_missing_payload_is_an_error() -> None:
    """Nothing came where a value is needed."""
    with pytest.raises(PayloadError, match=r"The payload is missing\."):
        reader_for(int)(UNSET)


def test_a_missing_payload_is_not_none() -> None:
    """``None`` is JSON's null only."""
    read = reader_for(int | None)
    assert read(b"null") is None
    with pytest.raises(PayloadError, match="missing"):
        read(UNSET)


def test_a_missing_payload_is_the_default() -> None:
    """The parameter's default stands for what did not come, not for null."""
    read = reader_for(int, 5)
    assert read(UNSET) == 5
    with pytest.raises(PayloadError, match="got `null`"):
        read(b"null")


@pytest.mark.parametrize(
    "annotation", [Any, int | UnsetType, Annotated[int | UnsetType, msgspec.Meta(ge=1)]]
)
def test_a_missing_payload_is_unset_where_it_may(annotation: Any) -> None:
    """A type that admits ``UNSET`` gets it, and reads what comes."""
    read = reader_for(annotation)
    assert read(UNSET) is UNSET
    assert read(b"1") == 1


# --- adapters -----------------------------------------------------------------------


def test_readers_are_made_once() -> None:
    """The same annotation has the same decoder: a client may ask for it each time."""
    assert decoder_for(list[int]) is decoder_for(list[int])
    assert converter_for(list[int]) is converter_for(list[int])


def test_an_annotation_without_a_hash_is_read() -> None:
    """Metadata that cannot be hashed costs the cache, nothing else."""
    annotation = Annotated[int, {"a": 1}]
    assert decoder_for(annotation)(b"1") == 1
    assert converter_for(annotation)(1) == 1
    assert encoder_for(annotation)(1) == b"1"
    assert not may_block(annotation)


@pytest.mark.usefixtures("_adapters")
def test_an_adapter_of_your_own_is_asked_first() -> None:
    """A registered object reads and writes its types."""
    register(Colours(), when="sys")
    assert decoder_for(Colour)(b'"red"').name == "red"
    assert converter_for(Colour)("red").name == "red"
    assert encoder_for(Colour)(Colour("red")) == b"red"
    assert may_block(Colour)
    assert not is_native(Colour)
    assert is_native(int)


@pytest.mark.usefixtures("_adapters")
def test_an_adapter_may_be_named_by_its_module() -> None:
    """A dotted path is imported when a type is looked for."""
    register("django_microservices.dispatch.payloads.native", when="sys")
    with pytest.raises(TypeError, match="Colour cannot be read"):
        decoder_for(Colour)


@pytest.mark.usefixtures("_adapters")
def test_an_adapter_waits_for_its_library() -> None:
    """As long as nobody imported the library no type can be its."""
    register("no.such.adapter", when="no_such_library")
    assert decoder_for(int)(b"1") == 1
