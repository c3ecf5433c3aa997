"""What the tests of a project use: clients that answer what a test says."""

from .emitted import assert_emitted
from .expectations import Expectation
from .mocks import MockClient, mock_client
from .sent import ANY, Sent

__all__ = [
    "ANY",
    "Expectation",
    "MockClient",
    "Sent",
    "assert_emitted",
    "mock_client",
]
