"""What the two services say to each other: one object for both ends."""

from datetime import datetime
from typing import Annotated

import msgspec

from django_microservices import Event, Request


class NewUser(msgspec.Struct):
    """What is needed to add a user."""

    name: str
    email: str


class UserOut(msgspec.Struct):
    """A user, as other services see one; ``welcomed`` by the event's first handler."""

    id: int
    name: str
    email: str
    created: datetime
    welcomed: bool


class OneUser(msgspec.Struct):
    """Which user is asked for."""

    id: int


class Pace(msgspec.Struct):
    """How many seconds a stream rests after each item, so that one can watch it."""

    rest: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0


LIST = Request({"cmd": "users.list"}, type(None), list[UserOut])
COUNT = Request({"cmd": "users.count"}, type(None), int)
GET = Request({"cmd": "users.get"}, OneUser, UserOut)
CREATE = Request({"cmd": "users.create"}, NewUser, UserOut)
STREAM = Request({"cmd": "users.stream"}, Pace, UserOut)
CREATED = Event("user_created", UserOut)
