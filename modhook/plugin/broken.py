"""Everything that keeps what is installed from being used, for authors of plugins: `modhook list --broken`."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable

from modhook.errors import PluginError
from modhook.plugin.manager import SINGULAR, Broken, Entry, collected, twice


def find_broken(
    kinds: Iterable[str] = tuple(SINGULAR), entry_points: Iterable[importlib.metadata.EntryPoint] | None = None
) -> list[Broken]:
    """Load everything that every plugin brings, and return what cannot be loaded, each with one sentence.

    These are entry points whose module or hooks fail, names that are brought twice, and specs whose object is not there, cannot be
    imported, or is not what its kind asks for.
    """
    entries, found = collected(entry_points)
    known: dict[tuple[str, str], Entry] = {}
    for entry in (e for e in entries if e.kind in set(kinds)):
        what = f"{SINGULAR[entry.kind]} {entry.spec.name}"
        first = known.setdefault((entry.kind, entry.spec.name), entry)
        if first is not entry:
            found.append(Broken(what, entry.distribution, twice(first, entry).rstrip(".")))
            continue
        try:
            entry.load()
        except PluginError as error:
            found.append(Broken(what, entry.distribution, str(error).rstrip("."), error.__cause__))
    return found
