"""The changelog is kept."""

import re

from django_microservices import __version__

from .blocks import ROOT

_ENTRY = re.compile(r"^## \[(?P<version>[^]]+)\](?: - (?P<date>.+))?$", re.MULTILINE)
_KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def entries() -> list[re.Match[str]]:
    """Return the headings of versions, the newest first."""
    return list(_ENTRY.finditer((ROOT / "CHANGELOG.md").read_text()))


def test_top_entry_is_this_version() -> None:
    """The top entry is the version of the package, or what comes after it."""
    assert entries()[0]["version"] in {__version__, "Unreleased"}


def test_entries_are_dated() -> None:
    """Each released version has its day, and only the newest may have none."""
    for entry in entries()[1:]:
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", entry["date"] or "")
    assert re.fullmatch(
        r"Unreleased|\d{4}-\d\d-\d\d", entries()[0]["date"] or "Unreleased"
    )


def test_kinds_of_changes() -> None:
    """Changes are sorted by the kinds of Keep a Changelog."""
    text = (ROOT / "CHANGELOG.md").read_text()
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= _KINDS
