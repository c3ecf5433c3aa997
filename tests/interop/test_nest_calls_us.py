"""A real Nest client calls our service over TCP."""

from collections.abc import Callable
from typing import Any

import pytest

from .harness import Answer, NestClient
from .ours import OurServer

INTERNAL = {"status": "error", "message": "Internal server error"}
MISSING = "There is no matching message handler defined in the remote service."
FIVE_MB = 5 * 1024 * 1024

StartClient = Callable[[], NestClient]


# --- requests ---------------------------------------------------------------------


async def test_sync_handler_answers(
    our_server: OurServer, nest_client: NestClient
) -> None:
    """A request to a plain function brings back its one value."""
    answer = await nest_client.send(our_server.port, {"cmd": "sum"}, [1, 2, 3])
    assert answer.value == 6


@pytest.mark.parametrize(
    "pattern",
    [{"a": {"c": 3, "d": 2}, "b": 1}, {"b": 1, "a": {"d": 2, "c": 3}}],
    ids=["sorted", "unsorted"],
)
async def test_key_order_of_an_object_pattern_is_free(
    our_server: OurServer, nest_client: NestClient, pattern: Any
) -> None:
    """An object pattern is found whatever the order of its keys."""
    answer = await nest_client.send(our_server.port, pattern, 1)
    assert answer.value == {"deep": 1}


@pytest.mark.parametrize("pattern", [7, "7"])
async def test_number_is_a_pattern(
    our_server: OurServer, nest_client: NestClient, pattern: Any
) -> None:
    """A number and its text are the same pattern."""
    assert (await nest_client.send(our_server.port, pattern, 1)).value == "seven"


@pytest.mark.parametrize("text", ["👍🏽", "naïve 日本語", "\U0010ffff", "a\0\u2028#9#"])
async def test_text_beyond_ascii_arrives_whole(
    our_server: OurServer, nest_client: NestClient, text: str
) -> None:
    """Frames are counted as Nest counts them, in pattern, payload and answer."""
    answer = await nest_client.send(our_server.port, "größe.👍", {text: [text]})
    assert answer.value == {text: [text]}


async def test_half_a_surrogate_comes_back(
    our_server: OurServer, nest_client: NestClient
) -> None:
    """What JavaScript may write and Unicode has not is no reason to hang up."""
    answer = await nest_client.send(our_server.port, "length", js=r"'\ud83d'")
    assert answer.value == 1


@pytest.mark.parametrize(
    "value",
    [False, 0, "", [], {}, [None, False, 0, ""], {"a": None, "b": {"c": [[]]}}, 1e21],
)
async def test_payload_comes_back_as_it_was(
    our_server: OurServer, nest_client: NestClient, value: Any
) -> None:
    """What is false or empty in either language is a payload as any other."""
    assert (await nest_client.send(our_server.port, "echo", value)).values == [value]


async def test_undefined_members_are_absent(
    our_server: OurServer, nest_client: NestClient
) -> None:
    """JavaScript's undefined is a member left out, and null one that is there."""
    js = "{kept: null, dropped: undefined}"
    assert (await nest_client.send(our_server.port, "partial", js=js)).value == ["kept"]
    js = "{dropped: null}"
    answer = await nest_client.send(our_server.port, "partial", js=js)
    assert answer.value == ["kept", "dropped"]


@pytest.mark.parametrize(
    ("js", "value"),
    [
        ("{list: [undefined, 1], nan: NaN}", {"list": [None, 1], "nan": None}),
        ("[new Date(0)]", ["1970-01-01T00:00:00.000Z"]),
        ("[Buffer.from('A')]", [{"type": "Buffer", "data": [65]}]),
        ("2 ** 53 + 2", 2**53 + 2),
        ("[-0, 1e-7]", [0, 1e-7]),
    ],
)
async def test_what_only_javascript_has_arrives_as_its_json(
    our_server: OurServer, nest_client: NestClient, js: str, value: Any
) -> None:
    """A handler gets what JSON.stringify made of the payload."""
    assert (await nest_client.send(our_server.port, "echo", js=js)).values == [value]


async def test_date_is_a_date_at_both_ends(
    our_server: OurServer, nest_client: NestClient
) -> None:
    """A JavaScript Date is read as a datetime, and one is written as JSON's Date."""
    js = "new Date(Date.UTC(2024, 1, 29, 12, 0, 0, 5))"
    answer = await nest_client.send(our_server.port, "after", js=js)
    assert answer.value == "2024-03-01T12:00:00.005Z"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("null", [None]),
        ("false", [False]),
        ("true", [True]),
        ("zero", [0]),
        ("empty", [""]),
        ("undefined", []),
        ("list", [[]]),
        ("object", [{}]),
        ("emoji", ["naïve 👍🏽 日本語"]),
        ("date", ["2024-02-29T12:00:00Z"]),
        ("milliseconds", ["2024-02-29T12:00:00.005Z"]),
        ("day", ["2024-02-29"]),
        ("decimal", ["0.10"]),
        ("uuid", ["00000000-0000-0000-0000-000000000007"]),
        ("nan", [None]),
        ("partial", [{"kept": 1}]),
    ],
)
async def test_result_arrives_as_javascript_would_write_it(
    our_server: OurServer, nest_client: NestClient, name: str, values: list[Any]
) -> None:
    """An undefined result is no value, which is not null."""
    answer = await nest_client.send(our_server.port, "constant", name)
    assert answer == Answer(values)


async def test_5_mb_go_both_ways(
    our_server: OurServer, nest_client: NestClient
) -> None:
    """With the limit raised on both ends a large message is as any other."""
    large = {"port": our_server.ports["large"], "maxBufferSize": 2 * FIVE_MB}
    text = "👍" * (FIVE_MB // 4)
    assert (await nest_client.send(large, "echo", text)).value == text


async def test_message_over_the_limit_ends_the_connection(
    our_server: OurServer, nest_client: NestClient
) -> None:
    """A Nest client learns at once, and its next call has a new connection."""
    client = {"port": our_server.port, "name": "too large"}
    answer = await nest_client.send(client, "echo", "x" * FIVE_MB)
    assert answer.thrown
    assert (await nest_client.send(client, "echo", 1)).value == 1


async def test_200_requests_are_in_flight_at_once(
    our_server: OurServer, nest_client: NestClient
) -> None:
    """Each is answered only once all 200 are there."""
    port = our_server.ports["large"]
    answers = await nest_client.send_many(port, "meet", [200] * 200)
    assert {answer.value for answer in answers} == {*range(1, 201)}


async def test_requests_above_the_concurrency_wait_for_their_turn(
    our_server: OurServer, nest_client: NestClient
) -> None:
    """200 at a server that takes 100 at a time each get their own answer."""
    items = [[number, 1] for number in range(200)]
    answers = await nest_client.send_many(our_server.port, {"cmd": "sum"}, items)
    assert [answer.value for answer in answers] == [*range(1, 201)]


# --- errors -----------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["fail", "fail.sync"])
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("text", {"status": "error", "message": "broken"}),
        ("emptyText", {"status": "error", "message": ""}),
        ("object", {"code": 42, "reason": "broken"}),
        ("list", ["broken", 42]),
        ("emptyObject", {}),
        ("plain", INTERNAL),
        ("denied", {"status": "error", "message": "Forbidden resource"}),
    ],
)
async def test_error_is_what_a_nest_service_would_say(
    our_server: OurServer, nest_client: NestClient, pattern: str, name: str, error: Any
) -> None:
    """An RpcException travels as it is, of anything else only the fixed text."""
    answer = await nest_client.send(our_server.port, pattern, name)
    assert answer == Answer(error=error, failed=True)


async def test_guard_refuses(our_server: OurServer, nest_client: NestClient) -> None:
    """A guard that returns False answers Nest's own sentence."""
    answer = await nest_client.send(our_server.port, "guarded", 1)
    assert answer.error == {"status": "error", "message": "Forbidden resource"}


async def test_nobody_answers_an_unknown_pattern(
    our_server: OurServer, nest_client: NestClient
) -> None:
    """The answer is Nest's own text, which is no object."""
    answer = await nest_client.send(our_server.port, {"cmd": "none"}, 1)
    assert answer == Answer(error=MISSING, failed=True)


async def test_payload_of_another_type_is_refused(
    our_server: OurServer, nest_client: NestClient
) -> None:
    """The error names the member that is wrong."""
    answer = await nest_client.send(our_server.port, {"cmd": "sum"}, [1, "two"])
    assert answer.failed
    assert answer.error["status"] == "error"
    assert [error["path"] for error in answer.error["errors"]] == ["[1]"]


# --- streams ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["generator", "async", "paused"])
@pytest.mark.parametrize("length", [0, 1, 200])
async def test_stream_arrives_in_order(
    our_server: OurServer, nest_client: NestClient, kind: str, length: int
) -> None:
    """Every item of a generator of either kind arrives, and its end."""
    answer = await nest_client.send(our_server.port, f"stream.{kind}", length)
    assert answer == Answer([*range(length)])


async def test_stream_may_hold_anything(
    our_server: OurServer, nest_client: NestClient
) -> None:
    """Items that are false in JavaScript are items."""
    items: list[Any] = [None, False, 0, "", [], {}, "👍"]
    answer = await nest_client.send(our_server.port, "stream.values", items)
    assert answer.values == items


async def test_items_before_an_error_stay(
    our_server: OurServer, nest_client: NestClient
) -> None:
    """A stream that fails has delivered what came before."""
    answer = await nest_client.send(our_server.port, "stream.failing", 2)
    error = {"code": 42, "reason": "broken"}
    assert answer == Answer([0, 1], error=error, failed=True)


async def test_streams_interleave_with_requests(
    our_server: OurServer, nest_client: NestClient
) -> None:
    """On the one connection of a Nest client nothing is mixed up."""
    answers = await nest_client.send_many(our_server.port, "stream.paused", [9] * 20)
    assert [answer.values for answer in answers] == [[*range(9)]] * 20


async def test_stream_ends_with_its_client(
    our_server: OurServer, nest_client: NestClient, start_nest_client: StartClient
) -> None:
    """An unsubscribed stream runs on, as Nest has no word for it, but not for ever."""
    await nest_client.send(our_server.port, "events.forget", 1)
    client = start_nest_client()
    answer = await client.send(our_server.port, "stream.endless", "x", take=3)
    assert answer.values == [0, 1, 2]
    client.close()
    answer = await nest_client.send(our_server.port, "events", 1)
    assert answer.value == [{"handler": "endless ended", "data": "x"}]


# --- events -----------------------------------------------------------------------


async def test_every_handler_of_an_event_runs(
    our_server: OurServer, nest_client: NestClient
) -> None:
    """An event reaches a sync and an async handler, with its payload."""
    await nest_client.send(our_server.port, "events.forget", 1)
    await nest_client.emit(our_server.port, "created", {"id": "👍"})
    answer = await nest_client.send(our_server.port, "events", 2)
    assert sorted(event["handler"] for event in answer.value) == ["first", "second"]
    assert [event["data"] for event in answer.value] == [{"id": "👍"}] * 2


async def test_event_of_an_object_pattern_arrives(
    our_server: OurServer, nest_client: NestClient
) -> None:
    """Nest sends the route of an event's pattern as a text."""
    await nest_client.send(our_server.port, "events.forget", 1)
    await nest_client.emit(our_server.port, {"kind": "paid", "topic": "orders"}, 0)
    answer = await nest_client.send(our_server.port, "events", 1)
    assert answer.value == [{"handler": "object", "data": 0}]


async def test_connection_survives_events_that_fail(
    our_server: OurServer, nest_client: NestClient
) -> None:
    """Neither an event that nobody handles nor one that fails disturbs anything."""
    client = {"port": our_server.port, "name": "failing events"}
    await nest_client.send(client, "events.forget", 1)
    await nest_client.emit(client, "unknown", 1)
    await nest_client.emit(client, "failed", 1)
    assert len((await nest_client.send(client, "events", 1)).value) == 1
    assert (await nest_client.acall("statuses", client)).values == ["connected"]


async def test_request_to_an_event_runs_it(
    our_server: OurServer, nest_client: NestClient
) -> None:
    """As with Nest, who asks an event's handler gets an answer."""
    await nest_client.send(our_server.port, "events.forget", 1)
    pattern = {"topic": "orders", "kind": "paid"}
    assert not (await nest_client.send(our_server.port, pattern, 5)).failed
    answer = await nest_client.send(our_server.port, "events", 1)
    assert answer.value == [{"handler": "object", "data": 5}]


async def test_metadata_is_on_the_context(
    our_server: OurServer, nest_client: NestClient
) -> None:
    """What a Nest client's dispatch hook sets is the message's headers."""
    client = {"port": our_server.port, "metadata": {"tenant": "größe"}}
    answer = await nest_client.send(client, "metadata", 1)
    assert answer.value == {"tenant": "größe"}


# --- TLS --------------------------------------------------------------------------


async def test_tls(
    our_server: OurServer, nest_client: NestClient, certificates: dict[str, str]
) -> None:
    """A Nest client that trusts our authority is answered."""
    tls = {"ca": certificates["ca"]}
    client = _over_tls(our_server.ports["tls"], tls)
    assert (await nest_client.send(client, "echo", "👍")).value == "👍"


async def test_untrusted_certificate_is_refused(
    our_server: OurServer, nest_client: NestClient
) -> None:
    """A Nest client that does not know our authority is not answered."""
    client = _over_tls(our_server.ports["tls"], {})
    answer = await nest_client.send(client, "echo", 1)
    assert answer.error["message"] == "Connection closed"


async def test_mutual_tls_names_the_caller(
    our_server: OurServer, nest_client: NestClient, certificates: dict[str, str]
) -> None:
    """The name in the caller's certificate is on the context."""
    tls = {
        "key": certificates["client_key"],
        "cert": certificates["client_cert"],
        "ca": certificates["ca"],
    }
    client = _over_tls(our_server.ports["mutual"], tls)
    assert (await nest_client.send(client, "peer", 1)).value == "orders"


async def test_mutual_tls_needs_a_certificate(
    our_server: OurServer, nest_client: NestClient, certificates: dict[str, str]
) -> None:
    """A Nest client without one is not answered."""
    client = _over_tls(our_server.ports["mutual"], {"ca": certificates["ca"]})
    answer = await nest_client.send(client, "echo", 1)
    assert answer.error["message"] == "Connection closed"


def _over_tls(port: int, tls: dict[str, str]) -> dict[str, Any]:
    return {"host": "localhost", "port": port, "tlsOptions": tls}
