"""The streams and consumers that a service needs: made where they are missing."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ...exceptions import TransportRefused
from ...wire.patterns import NATS
from .api import API, NOT_FOUND, JetStreamError, nanoseconds

logger = logging.getLogger(__name__)


class StreamOptions(NamedTuple):
    """A stream as it is made where it is missing; ``max_age`` in seconds (0: ever).

    ``later`` is where events wait whose time has not come.
    """

    name: str
    subjects: Sequence[str]
    storage: str
    replicas: int
    max_age: float = 0
    later: str = ""

    def config(self, *, schedules: bool) -> dict[str, Any]:
        """Return what JetStream is told."""
        config = {
            "name": self.name,
            "subjects": [*self.subjects],
            "storage": self.storage,
            "num_replicas": self.replicas,
            "max_age": nanoseconds(self.max_age),
        }
        if self.later and schedules:
            config["subjects"] = [*self.subjects, f"{self.later}.>"]
            config["allow_msg_schedules"] = True
        return config


async def make_stream(api: API, options: StreamOptions) -> None:
    """Have a stream; one that is there is left as it is, whoever made it.

    Raises :class:`TransportRefused` where it does not take our subjects.
    """
    found = await _info(api, f"STREAM.INFO.{options.name}")
    if found is None:
        try:
            config = options.config(schedules=api.schedules)
            found = await api.ask(f"STREAM.CREATE.{options.name}", config)
            logger.info("Made the stream %r.", options.name)
        except JetStreamError as error:
            # Somebody else was faster?
            found = await _info(api, f"STREAM.INFO.{options.name}")
            if found is None:
                message = f"The stream {options.name!r} cannot be made: {error}"
                raise TransportRefused(message) from error
    _check(options, found["config"])


async def _info(api: API, name: str) -> dict[str, Any] | None:
    try:
        return await api.ask(name)
    except JetStreamError as error:
        if error.code == NOT_FOUND:
            return None
        raise TransportRefused(str(error)) from error


def _check(options: StreamOptions, config: Mapping[str, Any]) -> None:
    there = config.get("subjects") or []
    for subject in options.subjects:
        if not any(covers(known, subject) for known in there):
            message = (
                f"The stream {options.name!r} is there and takes {there}, but not "
                f"{subject!r}: add it to the stream, or name another one."
            )
            raise TransportRefused(message)


def covers(wide: str, narrow: str) -> bool:
    """Whether ``wide`` matches every subject that ``narrow`` matches."""
    if wide == narrow:
        return True
    row, other = wide.split("."), narrow.split(".")
    for position, token in enumerate(row):
        if token == NATS.multi:
            return len(other) > position
        if position >= len(other) or other[position] == NATS.multi:
            return False
        if token not in {NATS.single, other[position]}:
            return False
    return len(row) == len(other)


class ConsumerOptions(NamedTuple):
    """A durable consumer; ``ack_wait`` in seconds."""

    ack_wait: float
    deliver_policy: str
    max_ack_pending: int | None

    def config(self, name: str, subject: str, description: str) -> dict[str, Any]:
        """Return what JetStream is told."""
        return {
            "durable_name": name,
            "name": name,
            "description": description,
            "filter_subject": subject,
            "ack_policy": "explicit",
            "ack_wait": nanoseconds(self.ack_wait),
            "deliver_policy": self.deliver_policy,
            "max_deliver": -1,  # it is counted here, so that nothing goes unburied
            "max_ack_pending": self.max_ack_pending or 0,
        }


_BEGUN_WITH = ("deliver_policy", "opt_start_seq", "opt_start_time")
"""What of a consumer counts once, when it is made, and can never change."""


async def make_consumer(api: API, stream: str, config: Mapping[str, Any]) -> None:
    """Have a consumer as our options say; one that is there goes on where it was.

    Raises :class:`TransportRefused` for what JetStream cannot change.
    """
    name = config["name"]
    try:
        await _create(api, stream, config)
    except JetStreamError:
        found = await _info(api, f"CONSUMER.INFO.{stream}.{name}")
        there = {} if found is None else found["config"]
        begun = {key: there[key] for key in _BEGUN_WITH if key in there}
        try:
            await _create(api, stream, {**config, **begun})
        except JetStreamError as error:
            options = ", ".join(ConsumerOptions._fields)
            message = f"The consumer {name!r} (options {options}): {error}"
            raise TransportRefused(message) from error


async def _create(api: API, stream: str, config: Mapping[str, Any]) -> None:
    question = {"stream_name": stream, "config": config}
    await api.ask(f"CONSUMER.CREATE.{stream}.{config['name']}", question)
