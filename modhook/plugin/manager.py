"""Finds plugins and hands out what they bring. There is no global manager: `plugins()` builds one per use.

Each entry point is loaded on its own: a broken one is named, skipped, and is an error only if something it could bring
is asked for.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import attrs
import pluggy

from modhook.errors import ModhookError, PluginError, listing, near_miss
from modhook.plugin import hookspecs, interfaces
from modhook.plugin.code import Found, Place, find, is_code
from modhook.plugin.culprit import told
from modhook.plugin.declared import mistake
from modhook.plugin.hooked import check_hooks
from modhook.plugin.hookspecs import PROJECT, Spec
from modhook.plugin.offered import Offer, offered

KINDS: dict[str, type] = {
    "tasks": interfaces.Task,
    "models": interfaces.Model,
    "analyses": interfaces.Analysis,
    "figures": interfaces.Figure,
    "samplers": interfaces.Sampler,
    "protocols": interfaces.Protocol,
    "trackers": interfaces.Tracker,
}
"""Kinds of things that plugins bring, and the interface each must implement."""

SINGULAR = {"analyses": "analysis"} | {k: k[:-1] for k in KINDS if k != "analyses"}

# Where a name that is not installed would come from; kept to what is published.
KNOWN_ELSEWHERE: dict[tuple[str, str], str] = {}


@attrs.frozen
class Entry:
    """A spec together with the distribution that brings it."""

    kind: str
    spec: Spec
    distribution: str

    def load(self) -> Any:
        """Import the object and check that it implements the interface of its kind. Raises `PluginError`."""
        module, _, attribute = self.spec.target.partition(":")
        what = f"{SINGULAR[self.kind]} {self.spec.name!r} of {self.distribution}"
        try:
            found: Any = importlib.import_module(module)
            for part in attribute.split("."):
                if not hasattr(found, part):
                    raise PluginError(f"there is no {part!r} in it{near_miss(part, vars(found))}")
                found = getattr(found, part)
        except Exception as error:
            raise PluginError(
                f"{what} cannot be loaded from {self.spec.target!r}: {_reason(error)}; repair or uninstall that package."
            ) from error
        if said := mistake(self.kind, found, KINDS[self.kind]):
            raise PluginError(f"{what} {said} ({self.spec.target}); its plugin needs a repair.")
        return found


@attrs.frozen
class Broken:
    """An entry point that could not be used, and why."""

    name: str
    distribution: str
    reason: str
    error: BaseException | None = attrs.field(default=None, eq=False)

    def __str__(self) -> str:
        return f"plugin {self.name!r} of {self.distribution} was skipped: {self.reason}"


class Plugins:
    """Everything the installed plugins bring, by kind and name; and code that a study names itself, where `beside` allows it."""

    def __init__(self, entries: Iterable[Entry | Offer], broken: Iterable[Broken]) -> None:
        self.broken = tuple(broken)
        self.told = False
        """Whether somebody has said already why plugins were skipped."""
        self._place: Place | None = None
        self._found: dict[str, Found] = {}
        self._entries: dict[str, dict[str, Entry | Offer]] = {kind: {} for kind in KINDS}
        for entry in entries:
            known = self._entries[entry.kind].setdefault(entry.spec.name, entry)
            if known is not entry:
                raise PluginError(twice(known, entry))

    def entries(self, kind: str) -> list[Entry | Offer]:
        """Return the entries of a kind, sorted by name."""
        return sorted(self._entries[kind].values(), key=lambda e: e.spec.name)

    def names(self, kind: str) -> list[str]:
        """Return the names of a kind, sorted."""
        return sorted(self._entries[kind])

    def find(self, kind: str, name: str) -> Entry | Offer:
        """Return one entry; an unknown name is a `PluginError` that lists the valid ones and names broken plugins."""
        try:
            return self._entries[kind][name]
        except KeyError:
            valid = self.names(kind)
        if name.endswith(".py"):
            raise PluginError(f"{name!r} is a file; name what is in it, such as '{name}:My{KINDS[kind].__name__}'.")
        text = f"unknown {SINGULAR[kind]} {name!r}{near_miss(name, valid)}"
        if self.broken and self.told:  # what is long was said, and why the name is most likely not there
            raise PluginError(f"{text}; it may come with what was skipped, see above: {listing(b.name for b in self.broken)}.")
        text += f"; valid {kind}: {listing(valid)}"
        if kind in ("tasks", "models") and name == "ask":
            text += (
                "; this one is what modhook.ask was given, in Python: call modhook.ask there again, with analyses=[...]"
            )
        elif source := KNOWN_ELSEWHERE.get((kind, name)):
            text += f"; it is brought by the package {source} (pip install {source})"
        else:
            text += "; others come with the package that brings them (pip install it into this environment, then see modhook list)"
        if self.broken:
            text += "; " + "; ".join(str(b) for b in self.broken)
        raise PluginError(text + ".")

    def load(self, kind: str, name: str) -> Any:
        """Import the class called `name`. Raises `PluginError`."""
        if not self.is_code(kind, name):
            return self.find(kind, name).load()
        thing = self.code(name).thing
        if said := mistake(kind, thing, KINDS[kind]):
            raise PluginError(f"{SINGULAR[kind]} {name!r} {said}.")
        return thing

    def beside(self, folder: Path, whose: str = "the study file", only: Collection[str] | None = None) -> Plugins:
        """Return the same plugins, which also import code by its name (`my_task.py:MyTask`), files relative to a folder.

        For names that the user gave: what a cube names is code of whoever wrote it. `only` limits them.
        """
        made = Plugins([entry for kind in KINDS for entry in self._entries[kind].values()], self.broken)
        made.told = self.told
        made._place = Place(folder, whose, only)
        return made

    @property
    def folder(self) -> Path:
        """The folder that names of files start at: the study's, or else the current one."""
        return Path() if self._place is None else self._place.folder

    def is_code(self, kind: str, name: object) -> bool:
        """Return whether a name leads to code that no installed plugin brings."""
        return is_code(name) and name not in self._entries.get(kind, {})

    def imports(self, name: str) -> bool:
        """Return whether code of this name may be imported."""
        return self._place is not None and (self._place.only is None or name in self._place.only)

    def code(self, name: str, what: str = "Class") -> Found:
        """Return what a name of code leads to, the same at every call. Raises `PluginError`."""
        if self._place is None or not self.imports(name):
            raise PluginError(f"{name!r} is code that no installed plugin brings, and what a cube names is not imported.")
        if name not in self._found:
            self._found[name] = find(name, self._place, what)
        return self._found[name]


def twice(one: Entry | Offer, other: Entry | Offer) -> str:
    """Say that a name is brought twice, and what to do."""
    what, places = f"{SINGULAR[one.kind]} {one.spec.name!r} is brought", f"{one.spec.target} and {other.spec.target}"
    if one.distribution == other.distribution:
        return f"{what} twice by {one.distribution} ({places}); rename one of them there."
    return (
        f"{what} by both {one.distribution} ({one.spec.target}) and {other.distribution} ({other.spec.target}); uninstall one of them."
    )


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, ModhookError) else told(error)


def plugins(entry_points: Iterable[importlib.metadata.EntryPoint] | None = None) -> Plugins:
    """Load every entry point of the group `modhook` and collect the specs, and what is offered in memory (`offering`).

    Raises `PluginError` for duplicates.
    """
    entries, broken = collected(entry_points)
    return Plugins([*entries, *offered()], broken)


def collected(
    entry_points: Iterable[importlib.metadata.EntryPoint] | None = None,
) -> tuple[list[Entry], list[Broken]]:
    """Return what every entry point brings, names that are brought twice among it, and those that could not be used."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    points = importlib.metadata.entry_points(group=PROJECT) if entry_points is None else entry_points
    entries: list[Entry] = []
    broken: list[Broken] = []
    seen: set[tuple[str, str]] = set()
    for point in sorted(points, key=lambda p: (p.name, p.value)):
        distribution = point.dist.name if point.dist else "an unknown package"
        if (point.name, point.value) in seen:  # an editable install can be listed twice
            continue
        seen.add((point.name, point.value))
        try:
            module = point.load()
            check_hooks(manager, module)
            name = manager.register(module, name=f"{distribution}:{point.name}")
            assert name is not None
            manager.check_pending()
        except (Exception, SystemExit) as error:  # some modules exit when imported
            if manager.has_plugin(f"{distribution}:{point.name}"):
                manager.unregister(name=f"{distribution}:{point.name}")
            broken.append(Broken(point.name, distribution, _reason(error), error))
            continue
        try:
            entries += _specs(manager, module, distribution)
        except (Exception, SystemExit) as error:
            broken.append(Broken(point.name, distribution, _reason(error), error))
    return entries, broken


def _specs(manager: pluggy.PluginManager, module: Any, distribution: str) -> list[Entry]:
    """Call one plugin's hooks, alone, so that a failure has one culprit."""
    others = [p for p in manager.get_plugins() if p is not module]
    found: list[Entry] = []
    for kind in KINDS:
        hook = f"modhook_{kind}"
        caller = manager.subset_hook_caller(hook, others)
        given = caller()
        if caller.get_hookimpls() and not given:  # pluggy leaves out what is None
            raise PluginError(f"{hook} returned nothing; it must return a list of modhook.Spec objects")
        for specs in given:
            if isinstance(specs, str) or not isinstance(specs, Iterable):
                raise PluginError(f"{hook} must return a list of modhook.Spec objects, not {specs!r}")
            for spec in specs:
                if not isinstance(spec, Spec):
                    raise PluginError(f"{hook} must return modhook.Spec objects, not {spec!r}")
                found.append(Entry(kind, spec, distribution))
    return found
