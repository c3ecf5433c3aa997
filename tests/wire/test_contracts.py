"""One object for both ends."""

from django_microservices.wire.contracts import Event, Request
from django_microservices.wire.patterns import Pattern


def test_request() -> None:
    """A request names its pattern and the types of both ways."""
    contract = Request({"cmd": "sum"}, list[int], int)
    assert contract.pattern == Pattern.of({"cmd": "sum"})
    assert (contract.data, contract.returns) == (list[int], int)
    assert repr(contract) == "Request({'cmd': 'sum'}, list[int], <class 'int'>)"


def test_event() -> None:
    """An event has no way back."""
    contract = Event("user_created", dict)
    assert contract.pattern == Pattern.of("user_created")
    assert contract.data is dict
    assert repr(contract) == "Event('user_created', <class 'dict'>)"
