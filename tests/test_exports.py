"""The public names: sorted, lazy, importable, and the same in every list."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import django_microservices

ROOT = Path(django_microservices.__file__).parent
PLACES: dict[str, str] = vars(django_microservices)["_PLACES"]

# isort's order, which ruff keeps: constants, classes, functions.
NAMES = django_microservices.__all__


def typed_places() -> dict[str, str]:
    """Where the imports for type checkers find each name."""
    tree = ast.parse((ROOT / "__init__.py").read_text())
    (branch,) = (node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.name: node.module or ""
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def rank(name: str) -> tuple[int, str]:
    """Sort as isort does."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def test_names_are_sorted() -> None:
    """``__all__`` is sorted, and names nothing twice."""
    assert sorted(set(NAMES), key=rank) == NAMES


def test_lists_agree() -> None:
    """What is imported lazily is what type checkers see, and what is public."""
    assert typed_places() == PLACES
    assert set(NAMES) == set(PLACES)


@pytest.mark.parametrize("name", NAMES)
def test_name_is_importable(name: str) -> None:
    """Each public name is what its file defines."""
    module = importlib.import_module(f"django_microservices.{PLACES[name]}")
    assert getattr(django_microservices, name) is getattr(module, name)


def test_wrong_name_is_an_attribute_error() -> None:
    """A name that does not exist is refused as any module refuses it."""
    with pytest.raises(AttributeError, match="has no attribute 'Klient'"):
        getattr(django_microservices, "Klient")  # noqa: B009 - mypy knows that it is not


def test_wrong_import_is_an_import_error() -> None:
    """A wrong name in an import statement is the usual ImportError."""
    with pytest.raises(ImportError, match="Klient"):
        exec("from django_microservices import Klient", {})


UNWANTED = (
    "asyncio",
    "django.db.models",
    "django_microservices.conf",
    "msgspec",
    "redis",
    "ssl",
    "uvloop",
)


def test_import_is_lazy() -> None:
    """Importing the package imports no Django model, no driver and no settings."""
    code = f"""
import sys, django_microservices
print([name for name in {UNWANTED!r} if name in sys.modules])
"""
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        text=True,
        cwd=ROOT.parent,
    )
    assert found.stdout.strip() == "[]"
