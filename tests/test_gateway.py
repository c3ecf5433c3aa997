"""Request ids and remote errors in Django's middleware, sync and async."""

import io
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from django.http import (
    FileResponse,
    HttpRequest,
    HttpResponse,
    JsonResponse,
    StreamingHttpResponse,
)
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import path

from django_microservices.exceptions import (
    ConnectionLost,
    InvalidReply,
    MessageTimeout,
    NoHandler,
    NotConnected,
    RemoteError,
    TransportRefused,
)
from django_microservices.gateway import RemoteErrorMiddleware, RequestIdMiddleware
from django_microservices.wire.context import current_request_id

HEADER = "X-Request-ID"

raised: list[Exception] = []


def view(request: HttpRequest) -> HttpResponse:
    """Answer with the id that calls from here would carry."""
    return HttpResponse(current_request_id())


async def aview(request: HttpRequest) -> HttpResponse:
    """Answer with the id that calls from here would carry."""
    return HttpResponse(current_request_id())


def streaming(request: HttpRequest) -> StreamingHttpResponse:
    """Ask for the id while the content is made."""

    def content() -> Iterator[str]:
        yield f"{current_request_id()} "
        yield str(current_request_id())

    return StreamingHttpResponse(content())


async def astreaming(request: HttpRequest) -> StreamingHttpResponse:
    """Ask for the id while the content is made."""

    async def content() -> AsyncIterator[str]:
        yield f"{current_request_id()} "
        yield str(current_request_id())

    return StreamingHttpResponse(content())


def attribute(request: Any) -> HttpResponse:
    """Answer with the request's attribute."""
    return HttpResponse(request.request_id)


def failing(request: HttpRequest) -> HttpResponse:
    """Let an error through."""
    raise raised[-1]


async def afailing(request: HttpRequest) -> HttpResponse:
    """Let an error through."""
    raise raised[-1]


urlpatterns = [
    path("view", view),
    path("aview", aview),
    path("streaming", streaming),
    path("astreaming", astreaming),
    path("attribute", attribute),
    path("failing", failing),
    path("afailing", afailing),
]

pytestmark = pytest.mark.usefixtures("_gateway")


@pytest.fixture
def _gateway() -> Iterator[None]:
    """Put both into the project."""
    names = (RequestIdMiddleware.__name__, RemoteErrorMiddleware.__name__)
    middleware = [f"django_microservices.gateway.{name}" for name in names]
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=middleware):
        yield
    raised.clear()


# --- request ids ------------------------------------------------------------------


def test_id_is_made() -> None:
    """A request without an id gets one, which the response tells."""
    response = Client().get("/view")
    assert len(response.headers[HEADER]) == 20
    assert response.content.decode() == response.headers[HEADER]


def test_ids_differ() -> None:
    """Each request gets its own."""
    first, second = Client().get("/view"), Client().get("/view")
    assert first.headers[HEADER] != second.headers[HEADER]


@pytest.mark.parametrize("name", ["view", "aview", "attribute"])
def test_sane_id_is_kept(name: str) -> None:
    """An id that the caller gave is in the view, and in the response."""
    response = Client().get(f"/{name}", headers={HEADER: "from-the-proxy"})
    assert response.headers[HEADER] == "from-the-proxy"
    assert response.content == b"from-the-proxy"


@pytest.mark.parametrize("given", ["", "x" * 129, "a\tb", "a\x7fb", "\xe9"])
def test_insane_id_is_replaced(given: str) -> None:
    """What is empty, long or unprintable is replaced."""
    response = Client().get("/view", headers={HEADER: given})
    assert response.headers[HEADER] != given
    assert len(response.content) == 20


def test_longest_id_is_kept() -> None:
    """128 characters are sane."""
    response = Client().get("/view", headers={HEADER: "x" * 128})
    assert response.content == b"x" * 128


@pytest.mark.parametrize("name", ["view", "aview"])
async def test_sane_id_is_kept_under_asgi(name: str) -> None:
    """Under ASGI the same holds for both kinds of views."""
    response = await AsyncClient().get(f"/{name}", headers={HEADER: "from-the-proxy"})
    assert response.headers[HEADER] == "from-the-proxy"
    assert response.content == b"from-the-proxy"


def test_id_of_a_stream() -> None:
    """What a streamed response calls while it is sent carries the id."""
    response = Client().get("/streaming", headers={HEADER: "abc"})
    assert response.getvalue() == b"abc abc"


async def test_id_of_an_async_stream() -> None:
    """What an async stream calls while it is sent carries the id."""
    response: Any = await AsyncClient().get("/astreaming", headers={HEADER: "abc"})
    parts = [part async for part in response.streaming_content]
    assert b"".join(parts) == b"abc abc"


def test_file_is_left_to_the_server(rf: RequestFactory) -> None:
    """A file's content is not wrapped, so a server may send it by itself."""
    file = FileResponse(io.BytesIO(b"content"))
    RequestIdMiddleware(lambda request: file)(rf.get("/"))
    assert file.file_to_stream is not None


def test_id_ends_with_the_request() -> None:
    """A thread that served a request is clean for the next."""
    Client().get("/view", headers={HEADER: "abc"})
    assert current_request_id() is None


def test_id_ends_with_the_part_of_a_stream() -> None:
    """Between two parts of a stream the thread is clean."""
    response: Any = Client().get("/streaming", headers={HEADER: "abc"})
    parts = iter(response.streaming_content)
    next(parts)
    assert current_request_id() is None
    response.close()


# --- errors -----------------------------------------------------------------------

REMOTE = {"status": "error", "message": "Forbidden resource"}
UNUSABLE = "The service gave no usable answer."

ANSWERS = [
    (MessageTimeout("secret"), 504, "The service did not answer in time."),
    (NotConnected("secret"), 503, "The service cannot be reached."),
    (ConnectionLost("secret"), 503, "The connection to the service was lost."),
    (TransportRefused("secret"), 503, "The service cannot be reached."),
    (NoHandler("secret"), 502, UNUSABLE),
    (InvalidReply("secret"), 502, UNUSABLE),
    (RemoteError(REMOTE), 403, "Forbidden resource"),
    (RemoteError({"status": "error", "message": "Not found."}), 404, "Not found."),
    (RemoteError({"message": "Out of stock", "code": 7}), 502, "Out of stock"),
    (RemoteError("Out of stock"), 502, "Out of stock"),
    (RemoteError({"code": 7}), 502, UNUSABLE),
    (RemoteError([1]), 502, UNUSABLE),
]


@pytest.mark.parametrize(
    ("error", "status", "message"), ANSWERS, ids=lambda value: str(value)[:20]
)
def test_error_is_an_answer(error: Exception, status: int, message: str) -> None:
    """Each error has its status, and a message that gives nothing of ours away."""
    raised.append(error)
    response = Client().get("/failing")
    assert response.status_code == status
    assert response.json() == {"status": "error", "message": message}


def test_validation_error_is_400() -> None:
    """A failed validation keeps its list of errors."""
    errors = [{"path": "id", "message": "Expected int."}]
    error = {"status": "error", "message": "Expected int.", "errors": errors}
    raised.append(RemoteError(error))
    response = Client().get("/failing")
    assert response.status_code == 400
    assert response.json() == error


@pytest.mark.parametrize("name", ["failing", "afailing"])
async def test_error_under_asgi(name: str) -> None:
    """Under ASGI both kinds of views are answered for."""
    raised.append(MessageTimeout("late"))
    response = await AsyncClient().get(f"/{name}")
    assert response.status_code == 504


def test_other_error_is_not_ours() -> None:
    """Any other error goes its way."""
    raised.append(LookupError("mine"))
    with pytest.raises(LookupError):
        Client().get("/failing")


def test_error_response_has_the_id() -> None:
    """The answer for an error names the request, too."""
    raised.append(MessageTimeout("late"))
    response = Client().get("/failing", headers={HEADER: "abc"})
    assert response.headers[HEADER] == "abc"


def test_reason_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The log has what the caller is not told, on one line."""
    raised.append(NotConnected("10.0.0.7:3000:\nrefused"))
    Client().get("/failing")
    record = next(r for r in caplog.records if r.name.startswith("django_micro"))
    assert record.getMessage() == r"GET /failing: 503: 10.0.0.7:3000:\nrefused"


@pytest.mark.parametrize("middleware", [RequestIdMiddleware, RemoteErrorMiddleware])
def test_works_without_a_project(
    middleware: Callable[..., Any], rf: RequestFactory
) -> None:
    """Each is plain middleware: a callable around a callable."""
    response = middleware(lambda request: JsonResponse({"a": 1}))(rf.get("/"))
    assert json.loads(response.content) == {"a": 1}
