"""What the users service answers: ``runmicroservice`` finds this file."""

import logging
import time
from collections.abc import Iterator
from typing import Annotated

import msgspec
from django.shortcuts import get_object_or_404

from demo_project.contracts import (
    COUNT,
    CREATE,
    CREATED,
    GET,
    LIST,
    STREAM,
    NewUser,
    OneUser,
    Pace,
    UserOut,
)
from django_microservices import Client, Inject, event_pattern, message_pattern

from .models import User

logger = logging.getLogger("django_microservices.demo")


@message_pattern(LIST)
def list_users(_: None) -> list[UserOut]:
    """Answer with every user."""
    return [as_answer(user) for user in User.objects.order_by("id")]


@message_pattern(COUNT, uses_database=True)
async def count_users(_: None) -> int:
    """Answer with how many there are: a coroutine that uses the async ORM."""
    return await User.objects.acount()


@message_pattern(GET)
def get_user(data: OneUser) -> UserOut:
    """Answer with one user; ``Http404`` reaches the caller as such."""
    return as_answer(get_object_or_404(User, pk=data.id))


@message_pattern(CREATE, atomic=True)
def create_user(data: NewUser, events: Annotated[Client, Inject("EVENTS")]) -> UserOut:
    """Add a user; a ``ValidationError`` of the model reaches the caller as such."""
    user = User(name=data.name.strip(), email=data.email.strip())
    user.full_clean()
    user.save()
    answer = as_answer(user)
    events.emit(CREATED, answer, on_commit=True)
    return answer


@message_pattern(STREAM)
def stream_users(data: Pace) -> Iterator[UserOut]:
    """Answer with one user after the other."""
    for user in User.objects.order_by("id").iterator():
        yield as_answer(user)
        time.sleep(data.rest)


@event_pattern(CREATED)
def welcome(data: UserOut) -> None:
    """Do what takes a moment and need not hold up the answer."""
    User.objects.filter(pk=data.id).update(welcomed=True)


@event_pattern(CREATED)
async def announce(data: UserOut) -> None:
    """Hear the same event, beside :func:`welcome`."""
    logger.info("%s joined.", data.name)


def as_answer(user: User) -> UserOut:
    """Return what other services may see of a user."""
    return msgspec.convert(user, UserOut, from_attributes=True)
