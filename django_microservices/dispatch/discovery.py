"""The handlers of a project, looked for once."""

from collections.abc import Iterator
from types import ModuleType

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured

from .handlers import Handler, ResolveClient
from .registry import discover, modules_named

Names = tuple[str, ...] | None


class Discovery:
    """What apps and modules define, by the names under which a server asks for them.

    ``None`` are all installed apps. ``modules`` are the names of those looked at.
    """

    def __init__(self, resolve_client: ResolveClient) -> None:
        self._resolve_client = resolve_client
        self._found: dict[Names, list[Handler]] = {}
        self.modules: set[str] = set()

    def handlers(self, server: str, names: Names, path: str) -> list[Handler]:
        """Return the handlers that a server offers; ``path`` is where it names them.

        Raises ``ImproperlyConfigured``.
        """
        if names not in self._found:
            modules = list(_modules(names, path))
            self.modules |= {module.__name__ for module in modules}
            self._found[names] = discover(modules, self._resolve_client)
        return [
            handler
            for handler in self._found[names]
            if handler.servers is None or server in handler.servers
        ]

    def all(self) -> list[Handler]:
        """Return every handler that a server looked at so far, offered by it or not."""
        return [handler for handlers in self._found.values() for handler in handlers]

    def clear(self) -> None:
        """Look anew."""
        self._found.clear()
        self.modules.clear()


def _modules(names: Names, path: str) -> Iterator[ModuleType]:
    if names is None:
        names = tuple(app.name for app in apps.get_app_configs())
    for name in names:
        try:
            yield from modules_named(name)
        except ModuleNotFoundError as error:
            if not f"{name}.".startswith(f"{error.name}."):
                raise  # it is there, and imports what is not
            message = f"{path}: {name!r} is neither an installed app nor a module."
            raise ImproperlyConfigured(message) from error
