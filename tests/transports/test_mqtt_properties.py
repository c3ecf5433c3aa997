"""The properties of MQTT 5, and what the codes of both versions mean."""

from typing import Any

import pytest
from hypothesis import given

from django_microservices.transports.mqtt.packets import MQTT_5, Publish
from django_microservices.transports.mqtt.properties import (
    NONE,
    OF_MESSAGES,
    check_names,
    property_bytes,
    read_properties,
)
from django_microservices.transports.mqtt.reasons import (
    REFUSED,
    RETURN_CODES,
    is_permanent,
    text_of,
)

from .mqtt_streams import OF_A_MESSAGE, read, written


@given(OF_A_MESSAGE)
def test_properties_come_back(properties: dict[str, Any]) -> None:
    """Properties are read as they were written."""
    data = property_bytes(properties)
    allowed = OF_MESSAGES | {"subscription_identifier"}
    found, end = read_properties(data, 0, len(data), allowed)
    assert (found, end) == (properties, len(data))


@pytest.mark.parametrize(
    "properties",
    [
        {"message_expiry_interval": -1},
        {"message_expiry_interval": 2**32},
        {"message_expiry_interval": 1.5},
        {"content_type": 7},
        {"content_type": "x" * 65_536},
        {"content_type": "\ud800"},
        {"content_type": "a\nb"},
        {"correlation_data": bytes(65_536)},
        {"correlation_data": "text"},
        {"user_properties": [("a",)]},
        {"user_properties": [("a", 1)]},
        {"user_properties": 7},
    ],
)
def test_property_that_cannot_be_written(properties: dict[str, Any]) -> None:
    """It is named, with what is wrong."""
    with pytest.raises(ValueError, match=next(iter(properties))):
        property_bytes(properties)


def test_unknown_property() -> None:
    """A name that is none is refused, and the one that was meant is told."""
    with pytest.raises(ValueError, match=r"options\['x'\].*did you mean"):
        check_names(["content_typ"], OF_MESSAGES, "options['x']")


def test_properties_are_not_to_be_changed() -> None:
    """Several messages may have the same ones."""
    (publish,) = read(
        MQTT_5, written(MQTT_5, Publish("a", b"", properties={"content_type": "x"}))
    )
    assert isinstance(publish, Publish)
    with pytest.raises(TypeError):
        publish.properties["content_type"] = "y"  # type: ignore[index]
    assert NONE == {}


# --- codes --------------------------------------------------------------------------


def test_every_return_code_has_its_words() -> None:
    """Those of 3.1.1 say what those of 5 say."""
    texts = [text_of(code, {}) for code in RETURN_CODES.values()]
    assert texts == [
        "the broker does not speak this protocol_version",
        "the client id is not valid",
        "the broker is unavailable",
        "bad username or password",
        "not authorized",
    ]


def test_code_without_words() -> None:
    """A code that nobody knows is told as a number, with what the broker says."""
    assert text_of(0xFE, {"reason_string": "no"}) == "code 0xfe (no)"


@pytest.mark.parametrize(
    ("code", "permanent"), [(0x86, True), (0x87, True), (0x88, False), (REFUSED, True)]
)
def test_codes_that_may_pass(code: int, permanent: bool) -> None:  # noqa: FBT001
    """Credentials will not get better by waiting; a busy broker will."""
    assert is_permanent(code) is permanent
