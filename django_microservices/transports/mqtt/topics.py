"""Names of topics and topic filters: which are allowed, and which filters overlap."""

import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ...wire.messages import Subscription
from ...wire.patterns import MQTT
from ...wire.text import shown
from .properties import LARGEST_LENGTH, LONGEST_TEXT, problem_of

REPLY_SUFFIX = "/reply"
"""Behind a topic: where its answers are published (``nest-wire.md`` A.6)."""
SHARE = "$share/"


def check_topic(name: str) -> str:
    """Return the name of a topic that a caller may publish to.

    Raises ``ValueError``: a broker ends the connection of a client that publishes to
    anything else, and with it every call under way.
    """
    if not name:
        problem: str | None = "is empty"
    elif "+" in name or "#" in name:
        problem = "has a wildcard in it"
    elif name.startswith("$"):
        problem = "begins with '$', which is for the broker's own"
    else:
        problem = problem_of(name, LONGEST_TEXT - len(REPLY_SUFFIX))
    if problem is not None:
        message = f"{shown(name)!r} cannot be a topic: it {problem}."
        raise ValueError(message)
    return name


def is_below(topic: str, root: str) -> bool:
    """Whether a topic is ``root``, or one of those below it."""
    return topic == root or topic.startswith(f"{root}/")


class Filter(NamedTuple):
    """A topic filter as it is subscribed, and the subscription that it stands for.

    ``is_of_events`` says that a handler of events is among those that want it.
    ``identifier`` is the same for the same text in every process, since a session that
    is kept tells it of messages that came before.
    """

    text: str
    subscription: Subscription
    qos: int
    is_of_events: bool = True

    @property
    def identifier(self) -> int:
        """The subscription identifier of MQTT 5."""
        return zlib.crc32(self.text.encode()) % LARGEST_LENGTH + 1

    @property
    def is_shared(self) -> bool:
        """Whether the members of a group share what it brings."""
        return self.text.startswith(SHARE)

    @property
    def has_wildcards(self) -> bool:
        """Whether it stands for more than one topic."""
        return "+" in self.text or "#" in self.text

    def matches(self, topic: str) -> bool:
        """Whether it brings the messages of ``topic``."""
        return MQTT.matches(self.text, topic)


def filters_of(
    subscriptions: Iterable[Subscription], group: str, default_qos: int
) -> list[Filter]:
    """Return what to subscribe, each text once, with the highest QoS asked for.

    A handler's ``queue=`` is a group of its own, and ``queue=""`` none. Raises
    ``ValueError`` for a pattern that is no topic filter.
    """
    filters: dict[str, Filter] = {}
    for subscription in subscriptions:
        queue = subscription.options.get("queue")
        text = filter_text(
            subscription.pattern.route, group if queue is None else queue
        )
        qos, is_event = _qos_of(subscription, default_qos), subscription.kind == "event"
        known = filters.setdefault(text, Filter(text, subscription, qos, is_event))
        filters[text] = known._replace(
            qos=max(qos, known.qos), is_of_events=known.is_of_events or is_event
        )
    return list(filters.values())


def _qos_of(subscription: Subscription, default: int) -> int:
    qos: Any = subscription.options.get("qos")
    if qos is None:
        return default
    if qos not in {0, 1, 2}:
        message = f"{subscription.pattern.route!r}: qos={qos!r} is not 0, 1 or 2."
        raise ValueError(message)
    return int(qos)


def filter_text(pattern: str, group: str) -> str:
    """Return the filter to subscribe for a handler's pattern."""
    given = pattern
    if pattern.startswith(SHARE):
        group, _, pattern = pattern.removeprefix(SHARE).partition("/")
        check_group(group or "/")
    levels = pattern.split("/")
    is_filter = pattern and all(
        level in {"+", "#"} or not ("+" in level or "#" in level) for level in levels
    )
    problem = problem_of(given, LONGEST_TEXT - len(SHARE) - len(group))
    if not is_filter or "#" in levels[:-1] or problem is not None:
        message = f"{shown(given)!r} is not a topic filter of MQTT."
        raise ValueError(message)
    return f"{SHARE}{group}/{pattern}" if group else pattern


def check_group(name: str) -> str:
    """Return the name of a group; raise ``ValueError`` for what cannot be one."""
    if any(character in name for character in "/+#") or problem_of(name, 1024):
        message = f"group: {shown(name)!r} has a character that no group may have."
        raise ValueError(message)
    return name


def separated(filters: Sequence[Filter]) -> list[list[Filter]]:
    """Part filters so that no two of a part match the same topic; at least one part.

    The order does not depend on that of the handlers.
    """
    parts: list[list[Filter]] = [[]]
    for one in sorted(filters):
        free = next((part for part in parts if not _overlaps(one, part)), None)
        if free is None:
            parts.append([one])
        else:
            free.append(one)
    return parts


def _overlaps(one: Filter, part: Iterable[Filter]) -> bool:
    return any(MQTT.overlaps(one.text, other.text) for other in part)
