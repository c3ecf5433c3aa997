"""``python -m demo_project``, used as by a browser and stopped as by people."""

import contextlib
import http.client
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.brokers.fixtures import give_up
from tests.brokers.nats import NATS

START = 60.0  # seconds; some ten times what it takes
STOP = 30.0
FORM = "application/x-www-form-urlencoded"

Answer = tuple[int, Any]


class Demo:
    """A running demo; its output ends when its last process has ended."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.output: list[str] = []
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "demo_project"],
            cwd=Path(__file__).resolve().parent.parent,
            env={**os.environ, "BROKER": "", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def line(self, pattern: str) -> str:
        """Wait for a line of the output; return the pattern's group."""
        for line in self.output:
            if found := re.search(pattern, line):
                return found[1]
        deadline = time.monotonic() + START
        while line := self._next(deadline):
            self.output.append(line)
            if found := re.search(pattern, line):
                return found[1]
        pytest.fail(f"The demo did not say {pattern!r}, but:\n{''.join(self.output)}")

    def _next(self, deadline: float) -> str:
        """Return another line; an empty one at the end of the output or of the time."""
        with contextlib.suppress(queue.Empty):
            return self._lines.get(timeout=max(0, deadline - time.monotonic()))
        return ""

    def said(self) -> str:
        """Return all that it wrote, once it has ended."""
        while not self._lines.empty():
            self.output.append(self._lines.get())
        return "".join(self.output)

    def ended(self) -> int:
        """Wait until every process of it has ended; return the exit code."""
        code = self.process.wait(STOP)
        self._reader.join(STOP)
        assert not self._reader.is_alive(), "A child still holds the demo's output."
        return code

    def close(self) -> None:
        """Stop it, if it still runs."""
        assert self.process.stdout is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        self.ended()
        self.process.stdout.close()


class Browser:
    """One that keeps its cookie."""

    def __init__(self, port: int) -> None:
        self.port = port
        with self.open("GET", "/") as page:
            self.html = page.read().decode()
            self.cookie = str(page.headers["Set-Cookie"]).split(";")[0]
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.html)
        assert token is not None
        self.token = token[1]

    def open(
        self, method: str, path: str, body: str = "", **headers: str
    ) -> http.client.HTTPResponse:
        """Send a request; the connection is the response's, and closes with it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=STOP)
        connection.request(method, path, body, {"Connection": "close", **headers})
        return connection.getresponse()

    def get(self, path: str) -> Answer:
        """Fetch JSON."""
        with self.open("GET", path) as response:
            return response.status, json.load(response)

    def add(self, **form: str) -> Answer:
        """Send the page's form."""
        body = urlencode({**form, "csrfmiddlewaretoken": self.token})
        headers = {"Cookie": self.cookie, "Content-Type": FORM}
        with self.open("POST", "/api/users", body, **headers) as response:
            return response.status, json.load(response)


StartDemo = Callable[..., Demo]


@pytest.fixture(scope="module")
def start_demo(
    free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartDemo]:
    """Return a function that starts a demo with ports and a database of its own."""
    with contextlib.ExitStack() as stack:

        def start(**environment: str) -> Demo:
            database = tmp_path_factory.mktemp("demo") / "users.sqlite3"
            own = {
                "DEMO_HTTP_PORT": str(free_port()),
                "DEMO_TCP_PORT": str(free_port()),
                "DEMO_DATABASE": str(database),
            }
            demo = Demo({**own, **environment})
            stack.callback(demo.close)
            return demo

        yield start


@pytest.fixture(scope="module")
def demo(start_demo: StartDemo) -> Demo:
    """Return a demo that is shared by the tests of this file."""
    return start_demo()


@pytest.fixture(scope="module")
def browser(demo: Demo) -> Browser:
    """Return a browser that has opened the printed address."""
    return Browser(int(demo.line(r"Open http://127\.0\.0\.1:(\d+)/")))


# --- the page and its API -----------------------------------------------------------


def test_page_has_its_parts(browser: Browser) -> None:
    """The printed address is a page whose script and style are served."""
    for path in re.findall(r'"(/static/[^"]+)"', browser.html):
        with browser.open("GET", path) as response:
            assert (response.status, bool(response.read())) == (200, True)


def test_list_answers_with_the_first_users(browser: Browser) -> None:
    """A new database has users, so that there is something to see."""
    status, body = browser.get("/api/users")
    assert status == 200
    assert body[0]["name"] == "Ada Lovelace"


def test_call_is_timed(browser: Browser) -> None:
    """Each answer says how many milliseconds the gateway's own call took."""
    for path in ("/api/users", "/api/users/count", "/api/users/999"):
        with browser.open("GET", path) as response:
            timing = response.headers["Server-Timing"]
        assert re.fullmatch(r"service;dur=\d+\.\d{3}", timing)


def test_count_is_the_length_of_the_list(browser: Browser) -> None:
    """The sync view and the async handler agree with the other two."""
    users = browser.get("/api/users")[1]
    assert browser.get("/api/users/count")[1] == len(users)


def test_add_answers_with_the_new_user(browser: Browser) -> None:
    """A user who was added is there from then on."""
    status, body = browser.add(name="  Zoë 🚀 ", email="zoe@example.com")
    assert (status, body["name"]) == (201, "Zoë 🚀")
    assert browser.get(f"/api/users/{body['id']}")[0] == 200


def test_added_user_is_welcomed(demo: Demo, browser: Browser) -> None:
    """Both handlers of the event run: one writes the row, the other logs."""
    user = browser.add(name="Barbara", email="barbara@example.com")[1]
    path, deadline = f"/api/users/{user['id']}", time.monotonic() + STOP
    while not browser.get(path)[1]["welcomed"]:
        assert time.monotonic() < deadline
    assert demo.line("(Barbara) joined") == "Barbara"


def test_refused_address_is_said_of_its_field(browser: Browser) -> None:
    """The model's own validation is a 400 that names the field."""
    status, body = browser.add(name="Nobody", email="nowhere")
    assert status == 400
    assert [error["path"] for error in body["errors"]] == ["email"]


def test_every_wrong_field_is_said(browser: Browser) -> None:
    """An empty form names both fields."""
    status, body = browser.add(name="", email="")
    assert status == 400
    assert {error["path"] for error in body["errors"]} == {"name", "email"}


def test_address_is_taken_once(browser: Browser) -> None:
    """The uniqueness that only the database knows is a validation error too."""
    status, body = browser.add(name="Ada", email="ada@example.com")
    assert (status, body["errors"][0]["path"]) == (400, "email")


def test_form_without_its_token_is_refused(browser: Browser) -> None:
    """Another site cannot send the form."""
    with browser.open("POST", "/api/users", "name=a&email=a@b.cc") as response:
        assert response.status == 403


def test_unknown_user_is_not_found(browser: Browser) -> None:
    """``Http404`` in the users service is a 404 of the gateway."""
    assert browser.get("/api/users/999") == (
        404,
        {"status": "error", "message": "Not found."},
    )


def test_stream_sends_users_one_by_one(browser: Browser) -> None:
    """Each user is an event of its own, sent when the service gave it."""
    with browser.open("GET", "/api/users/stream") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        lines = [line.decode().rstrip() for line in response]
    events = [line.removeprefix("event: ") for line in lines if "event: " in line]
    items = [json.loads(line[6:]) for line in lines if line.startswith("data: ")][:-1]
    users = browser.get("/api/users")[1]
    assert events == ["message"] * len(users) + ["end"]
    assert [item["user"]["id"] for item in items] == [user["id"] for user in users]
    assert all(item["ms"] > 100 for item in items[1:])  # the service rests between


# --- over a broker ------------------------------------------------------------------

BROKERS = ["redis", "nats", "rabbitmq", "mqtt"]


def ports_in_a_row(free_port: Callable[[], int], count: int) -> int:
    """Return the first of some free ports."""
    found = [free_port() for _ in range(count)]
    while found[-1] - found[-count] != count - 1:
        found.append(free_port())
    return found[-count]


@pytest.mark.parametrize("broker", BROKERS)
def test_demo_over_a_broker(
    start_demo: StartDemo, free_port: Callable[[], int], broker: str
) -> None:
    """The same demo runs over a broker that it starts, and ends, itself."""
    port = ports_in_a_row(free_port, 3)
    demo = start_demo(BROKER=broker, DEMO_BROKER_PORT=str(port))
    found = demo.line(r"Open http://127\.0\.0\.1:(\d+)/|(is not installed)")
    if not found:
        give_up("".join(demo.output))
    check_over_a_broker(Browser(int(found)))
    demo.process.send_signal(signal.SIGTERM)
    assert demo.ended() == 0
    assert "Traceback" not in demo.said()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_demo_over_a_broker_that_runs(start_demo: StartDemo, nats_server: NATS) -> None:
    """``BROKER_URL`` names a broker that is somebody else's."""
    demo = start_demo(BROKER="nats", BROKER_URL=nats_server.url)
    found = demo.line(r"Open http://127\.0\.0\.1:(\d+)/")
    check_over_a_broker(Browser(int(found)))
    assert "The broker is process" not in demo.said()


def check_over_a_broker(browser: Browser) -> None:
    """See that requests, streams, errors and events do what they do over TCP."""
    users = browser.get("/api/users")[1]
    assert browser.get("/api/users/count") == (200, len(users))
    assert browser.get("/api/users/999")[0] == 404
    with browser.open("GET", "/api/users/stream") as response:
        events = [line for line in response if line.startswith(b"event: ")]
    assert events == [b"event: message\n"] * len(users) + [b"event: end\n"]
    status, added = browser.add(name="Barbara", email="barbara@example.com")
    assert status == 201
    deadline = time.monotonic() + STOP
    while not browser.get(f"/api/users/{added['id']}")[1]["welcomed"]:
        assert time.monotonic() < deadline


def test_missing_broker_is_one_line(
    start_demo: StartDemo, free_port: Callable[[], int]
) -> None:
    """Where there is no broker and no program of one, that is said."""
    demo = start_demo(BROKER="redis", DEMO_BROKER_PORT=str(free_port()), PATH="")
    assert demo.ended() == 1
    assert re.fullmatch(
        r"BROKER=redis: .*redis-server is not installed.*\n", demo.said()
    )


# --- starting and stopping ----------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_everything(start_demo: StartDemo, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end every process, in order, though a stream is open."""
    demo = start_demo()
    browser = Browser(int(demo.line(r"Open http://127\.0\.0\.1:(\d+)/")))
    with browser.open("GET", "/api/users/stream") as response:
        assert response.readline() == b"event: message\n"
        demo.process.send_signal(number)
        assert demo.ended() == 0
    assert "Traceback" not in demo.said()


@pytest.mark.parametrize("name", ["users service", "gateway"])
def test_lost_service_ends_the_demo(start_demo: StartDemo, name: str) -> None:
    """When one service is killed the other stops, and one line says why."""
    demo = start_demo()
    demo.line("(Open http)")
    os.kill(int(demo.line(rf"The {name} is process (\d+)")), signal.SIGKILL)
    assert demo.ended() == 1
    assert f"The {name} ended by signal 9, so everything stops." in demo.said()


def test_killed_starter_takes_everything_along(start_demo: StartDemo) -> None:
    """When the starter itself is killed, its services stop in order."""
    demo = start_demo()
    demo.line("(Open http)")
    demo.process.kill()
    assert demo.ended() == -signal.SIGKILL
    assert "Traceback" not in demo.said()


def test_taken_port_is_one_line(
    start_demo: StartDemo, free_port: Callable[[], int]
) -> None:
    """A port that somebody has is named, with the variable that chooses another."""
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        demo = start_demo(DEMO_TCP_PORT=str(port))
        assert demo.ended() == 1
    assert re.fullmatch(rf"DEMO_TCP_PORT={port}: .*\n", demo.said())


@pytest.mark.parametrize(
    ("name", "value"),
    [("BROKER", "redis://x"), ("DEMO_HTTP_PORT", "no"), ("DEMO_TCP_PORT", "70000")],
)
def test_wrong_variable_is_one_line(
    start_demo: StartDemo, name: str, value: str
) -> None:
    """A variable that cannot be followed is named, and nothing is started."""
    demo = start_demo(**{name: value})
    assert demo.ended() == 1
    assert re.fullmatch(rf"{name}={value}: .*\n", demo.said())
