"""Views that ask the users service, sync and async.

None of them catches an error of the client: ``RemoteErrorMiddleware`` answers for it.
"""

from collections.abc import AsyncIterator
from time import perf_counter
from typing import Annotated, Any

import msgspec
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_http_methods, require_safe

from demo_project.contracts import (
    COUNT,
    CREATE,
    GET,
    LIST,
    STREAM,
    NewUser,
    OneUser,
    Pace,
)
from django_microservices import Client, Inject, MicroserviceError, clients, inject
from django_microservices.gateway import answer_for

USERS = clients["USERS"]  # a proxy: it connects at the first call
REST = 0.25


@require_safe
def page(request: HttpRequest) -> HttpResponse:
    """Show the page; its script does the rest."""
    return render(request, "gateway/page.html")


@require_http_methods(["GET", "HEAD", "POST"])
async def users(request: HttpRequest) -> HttpResponse:
    """List the users, or add one: an async view awaits the verbs with an ``a``."""
    if request.method != "POST":
        return answer(await USERS.asend(LIST, None))
    new = NewUser(request.POST.get("name", ""), request.POST.get("email", ""))
    return answer(await USERS.asend(CREATE, new), status=201)


@require_safe
def count(_request: HttpRequest) -> HttpResponse:
    """Count the users: a sync view calls the plain verbs."""
    return answer(USERS.send(COUNT, None))


@require_safe
@inject
def user(
    _request: HttpRequest, pk: int, service: Annotated[Client, Inject("USERS")]
) -> HttpResponse:
    """Show one user, with the client handed in: a test may hand in another."""
    return answer(service.send(GET, OneUser(pk)))


@require_safe
async def stream(_request: HttpRequest) -> HttpResponseBase:
    """Stream the users as server-sent events, each as soon as it is there."""
    headers = {"Cache-Control": "no-cache"}
    return StreamingHttpResponse(
        events(), content_type="text/event-stream", headers=headers
    )


async def events() -> AsyncIterator[bytes]:
    """Write each user, with the milliseconds since the one before.

    The last event says ``end``, or ``failed`` and why: it is too late for a status.
    """
    began = perf_counter()
    try:
        async for one in USERS.astream(STREAM, Pace(rest=REST)):
            waited = round((perf_counter() - began) * 1000, 3)
            yield event("message", {"user": one, "ms": waited})
            began = perf_counter()
    except MicroserviceError as error:
        yield event("failed", answer_for(error)[1])
    else:
        yield event("end", {})


def event(name: str, data: Any) -> bytes:
    """Return one server-sent event."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))


def answer(value: Any, status: int = 200) -> HttpResponse:
    """Return what the users service answered."""
    content = msgspec.json.encode(value)
    return HttpResponse(content, status=status, content_type="application/json")
