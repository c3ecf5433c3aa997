"""From a message to a handler's arguments: closures, chosen once by its shape."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from ..wire.context import MessageContext
from .injection import Arguments, Part, Run

Bind = Callable[[Any, MessageContext[Any]], Arguments]
AsyncBind = Callable[..., Awaitable[Arguments]]

_NO_NAMES: dict[str, Any] = {}


class Parameter(NamedTuple):
    """What a pipe is told of the parameter whose value it gets.

    ``kind`` is ``"payload"``, or ``"key"`` for the single member ``key``.
    """

    name: str
    annotation: Any
    kind: str
    key: str | None = None


class Source(NamedTuple):
    """Where one argument comes from.

    ``part`` is called with the data, the context and the members that were read, and
    ``pipes`` get what it returns. ``shape`` is a word for the kind of source, and
    ``read`` what a whole payload is read with.
    """

    name: str
    part: Part
    shape: str
    is_keyword: bool = False
    parameter: Parameter | None = None
    pipes: tuple[Part, ...] = ()
    read: Any = None

    @property
    def parts(self) -> tuple[Part, ...]:
        """Every step to the value."""
        return (self.part, *self.pipes)

    def fill(self, *message: Any) -> Any:
        """Return the argument."""
        value = self.part.call(*message)
        for pipe in self.pipes:
            value = pipe.call(value, self.parameter)
        return value

    async def afill(self, run: Run, *message: Any) -> Any:
        """Return the argument, having run each step where it belongs."""
        value = await self.part.acall(run, *message)
        for pipe in self.pipes:
            value = await pipe.acall(run, value, self.parameter)
        return value


def bind_for(sources: Sequence[Source], members: Part) -> Bind:
    """Return the sync binding: of the commonest shapes one without a loop."""
    if not any(source.pipes or source.is_keyword for source in sources):
        match [source.shape for source in sources]:
            case []:
                return lambda data, context: ((), _NO_NAMES)  # noqa: ARG005
            case ["context"]:
                return lambda data, context: ((context,), _NO_NAMES)  # noqa: ARG005
            case ["payload"]:
                return _payload(sources[0].read)
            case ["payload", "context"]:
                return _payload_and_context(sources[0].read)
            case shapes if set(shapes) == {"key"}:
                return _keys(members.call)
    return _any_shape(sources, members.call)


def _payload(read: Callable[[Any], Any]) -> Bind:
    def bind(data: Any, context: Any) -> Arguments:  # noqa: ARG001
        return (read(data),), _NO_NAMES

    return bind


def _payload_and_context(read: Callable[[Any], Any]) -> Bind:
    def bind(data: Any, context: Any) -> Arguments:
        return (read(data), context), _NO_NAMES

    return bind


def _keys(read_members: Callable[[Any], tuple[Any, ...]]) -> Bind:
    def bind(data: Any, context: Any) -> Arguments:  # noqa: ARG001
        return read_members(data), _NO_NAMES

    return bind


def _any_shape(sources: Sequence[Source], read_members: Callable[[Any], Any]) -> Bind:
    places = [source.fill for source in sources if not source.is_keyword]
    names = {source.name: source.fill for source in sources if source.is_keyword}

    def bind(data: Any, context: Any) -> Arguments:
        members = read_members(data)
        return (
            tuple([fill(data, context, members) for fill in places]),
            {name: fill(data, context, members) for name, fill in names.items()},
        )

    return bind


def refuse(data: Any, context: Any) -> Arguments:  # noqa: ARG001
    """Stand for ``bind`` where a factory or pipe is async."""
    message = "This handler's pipes or factories are async: await plan.abind(...)."
    raise RuntimeError(message)


async def at_once(function: Callable[..., Any], *args: Any) -> Any:
    """Run a sync step where there is no pool to run it on."""
    return function(*args)


def abind_for(sources: Sequence[Source], members: Part) -> AsyncBind:
    """Return the binding for the loop, whatever the shape."""

    async def abind(data: Any, context: Any, run: Run = at_once) -> Arguments:
        found = await members.acall(run, data)
        args, kwargs = [], {}
        for source in sources:
            value = await source.afill(run, data, context, found)
            if source.is_keyword:
                kwargs[source.name] = value
            else:
                args.append(value)
        return tuple(args), kwargs

    return abind
