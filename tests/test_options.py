"""OPTIONS held against a transport's constructor."""

import datetime
import inspect
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_microservices.options import (
    build_transport,
    check_types,
    parameters_of,
    transport_class,
)
from django_microservices.transports import MemoryTransport, TCPTransport
from django_microservices.transports.base import Transport
from django_microservices.transports.tcp import JsonSocket

ONE_MINUTE = datetime.timedelta(minutes=1)
PATH = "MICROSERVICES['CLIENTS']['MATH']"
TCP = "django_microservices.transports.TCPTransport"


class Refusing(Transport):
    """A transport whose constructor tells what it was given."""

    def __init__(self, *, password: str = "", **more: Any) -> None:
        message = f"cannot log in with {password} {more}"
        raise ValueError(message)


class Unresolved(Transport):
    """A transport whose annotation is known to type checkers only."""

    def __init__(self, *, shape: "Shape" = None) -> None:  # type: ignore[name-defined]  # noqa: F821
        self.shape = shape


class OnlyClients(Transport):
    """A transport with an option for one end."""

    client_only: ClassVar[frozenset[str]] = frozenset(("limit",))

    def __init__(self, *, limit: int = 1) -> None:
        self.limit = limit


class Socket(JsonSocket):
    """A socket class of one's own."""


def serialize(value: Any) -> Any:
    """Return it."""
    return value


class Named(TCPTransport):
    """A transport with an option beside those of another one."""

    def __init__(self, *, label: str, port: int = 7, **options: Any) -> None:
        super().__init__(port=port, **options)
        self.label = label


class Grouped(Transport):
    """A transport whose servers share the work of one group."""

    def __init__(self, *, group: str | None = None) -> None:
        self.group = group


class GroupedServers(Grouped):
    """A transport that has groups on one end only."""

    server_only: ClassVar[frozenset[str]] = frozenset(("group",))


def built(given: Any, options: Any = None, end: str = "client") -> Any:
    """Build a transport as conf does."""
    return build_transport(given, options or {}, PATH, end, lambda: "orders")


def tcp(end: str = "client", **options: Any) -> TCPTransport:
    """Make a TCP transport."""
    transport = built(TCP, options, end)
    assert isinstance(transport, TCPTransport)
    return transport


def refusal(given: Any = TCP, /, end: str = "client", **options: Any) -> str:
    """Return the message of the error."""
    with pytest.raises(ImproperlyConfigured) as caught:
        built(given, options, end)
    return str(caught.value)


def test_dotted_path() -> None:
    """A dotted path is imported, and the options are its arguments."""
    assert tcp(port=4000).port == 4000


def test_class() -> None:
    """A class is taken as it is."""
    assert isinstance(built(MemoryTransport), Transport)


def test_object() -> None:
    """An object is used as it is."""
    transport = MemoryTransport()
    assert built(transport) is transport


def test_object_with_options() -> None:
    """An object has its options already."""
    text = refusal(MemoryTransport(), name="a")
    assert text.startswith(f"{PATH}['OPTIONS']: TRANSPORT is an object")


@pytest.mark.parametrize("given", ["a.b", "django.http.HttpRequest", int, 7])
def test_no_transport(given: Any) -> None:
    """What is no transport is an error of TRANSPORT."""
    with pytest.raises(ImproperlyConfigured) as caught:
        transport_class(given, PATH)
    assert str(caught.value).startswith(f"{PATH}['TRANSPORT']: ")


def test_unknown_option() -> None:
    """A misspelt option is named, with the one that was meant."""
    text = f"{PATH}['OPTIONS']['prot']: unknown; did you mean 'port'?"
    assert refusal(prot=3000) == text


def test_option_of_the_other_end() -> None:
    """An option of servers means nothing to a client, and the other way round."""
    text = f"{PATH}['OPTIONS']['backlog']: this option is for a server only."
    assert refusal(backlog=3) == text
    text = f"{PATH}['OPTIONS']['connect_timeout']: this option is for a client only."
    assert refusal(end="server", connect_timeout=3) == text


def test_other_end_is_not_suggested() -> None:
    """An option of the other end is no suggestion."""
    assert "did you mean" not in refusal(OnlyClients, end="server", limitt=1)


@pytest.mark.parametrize("option", [{"host": "math"}, {"port": 3000}])
def test_two_addresses(option: dict[str, Any]) -> None:
    """An address is given once: as a URL, or in parts."""
    (name,) = option
    text = f"{PATH}['OPTIONS'][{name!r}]: 'url' says it: give one of the two."
    assert refusal(url="tcp://math:3000", **option) == text
    assert tcp(url=None, **option).tls_options is None


def test_empty_host() -> None:
    """An empty host, which a listener takes for every address, is refused."""
    text = f"{PATH}['OPTIONS']['host']: it is empty; '0.0.0.0' is every address."
    assert refusal(host="") == text


def test_wrong_type() -> None:
    """A value of another type is refused with the type that is expected."""
    text = f"{PATH}['OPTIONS']['port']: expected int, not '3000' (str)."
    assert refusal(port="3000") == text


def test_options_are_no_dict() -> None:
    """OPTIONS that are no dict are refused."""
    with pytest.raises(ImproperlyConfigured, match="is not a dict"):
        built(TCP, [("port", 1)])


def test_time_as_timedelta() -> None:
    """A time may be a timedelta."""
    assert tcp(connect_timeout=ONE_MINUTE).connect_timeout == 60.0


def test_dotted_paths_in_options() -> None:
    """Functions and classes may be given by their dotted paths."""
    transport = tcp(
        socket_class=f"{__name__}.Socket", serializer=f"{__name__}.serialize"
    )
    assert transport.socket_class is Socket
    assert transport.serializer is serialize


def test_wrong_class() -> None:
    """A class must be of the kind that is asked for."""
    text = refusal(socket_class="builtins.int")
    assert "['socket_class']: expected a subclass of JsonSocket" in text


def test_nested_options() -> None:
    """Nested mappings are held against their TypedDict; a file may be a Path."""
    transport = tcp(tls_options={"cert": Path("/cert.pem")})
    assert transport.tls_options == {"cert": "/cert.pem"}


def test_unknown_nested_option() -> None:
    """A misspelt nested option is named."""
    path = f"{PATH}['OPTIONS']['tls_options']['passphrse']"
    text = refusal(tls_options={"passphrse": "s3cret"})
    assert text == f"{path}: unknown; did you mean 'passphrase'?"


def test_wrong_nested_secret() -> None:
    """A secret of a wrong type is not told."""
    assert "4711" not in refusal(tls_options={"passphrase": 4711})


def test_wrong_url_keeps_its_password() -> None:
    """What the constructor refuses is told without its password."""
    text = refusal(url="http://me:s3cret@host")
    assert text.startswith(f"{PATH}['OPTIONS']: url: ")
    assert "s3cret" not in text


def test_refusal_of_the_constructor() -> None:
    """What a constructor says is told under the path, without secrets."""
    text = refusal(Refusing, password="s3cret", anything=1)
    told = "cannot log in with ******** {'anything': 1}"
    assert text == f"{PATH}['OPTIONS']: {told}"


def test_traceback_has_no_secret() -> None:
    """The error that told the secret is not chained to ours."""
    with pytest.raises(ImproperlyConfigured) as caught:
        built(Refusing, {"password": "s3cret"})
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_traceback_without_secret() -> None:
    """An error without a secret is chained."""
    with pytest.raises(ImproperlyConfigured) as caught:
        built(Refusing)
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("end", ["server", "client"])
@pytest.mark.parametrize("options", [{}, {"group": None}])
def test_group_is_the_service(options: dict[str, Any], end: str) -> None:
    """A transport that has groups and is given none gets the service's name."""
    assert built(Grouped, options, end).group == "orders"


@pytest.mark.parametrize("group", ["mine", ""])
def test_given_group(group: str) -> None:
    """A group that is given counts, also the one that is none."""
    assert built(Grouped, {"group": group}).group == group


def test_group_of_the_other_end() -> None:
    """An end that has no groups gets none."""
    assert built(GroupedServers, end="server").group == "orders"
    assert built(GroupedServers).group is None


def test_options_that_are_handed_on() -> None:
    """Those of the class above are known by name, default and type."""
    wire = built(Named, {"label": "a", "host": "math", "connect_timeout": ONE_MINUTE})
    assert (wire.label, wire.host, wire.port) == ("a", "math", 7)
    assert wire.connect_timeout == 60.0
    assert "did you mean 'host'?" in refusal(Named, label="a", hots="math")
    assert "did you mean 'label'?" in refusal(Named, lable="a")
    assert "['no_delay']: expected" in refusal(Named, label="a", no_delay="no")
    assert "is for a server only" in refusal(Named, label="a", backlog=3)


def test_parameters_of_what_hands_on() -> None:
    """Each is there once, as the class itself has it; so is what takes anything."""
    found = {p.name: p for p in parameters_of(Named)}
    assert found.keys() == {*inspect.signature(TCPTransport).parameters, "label"}
    assert found["port"].default == 7
    last = parameters_of(Refusing)[-1]
    assert (last.name, last.kind) == ("more", last.VAR_KEYWORD)
    assert parameters_of(Transport) == []


def test_unresolved_annotation() -> None:
    """An annotation that cannot be resolved is an error that says what to do."""
    text = refusal(Unresolved, shape=1)
    assert "Unresolved.__init__ cannot be resolved" in text
    assert "not under TYPE_CHECKING" in text


def test_types_of_the_signature() -> None:
    """Each value is returned as the constructor takes it."""
    options = {"retry_delay": datetime.timedelta(seconds=1)}
    assert check_types(TCPTransport, options, PATH) == {"retry_delay": 1.0}
