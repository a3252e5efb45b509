"""Looks up what a study names - task, model, analyses, sampler, protocol - and structures the options of each."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import Any

from modhook.errors import PluginError, UserError
from modhook.plugin.code import Place, find
from modhook.plugin.culprit import told
from modhook.plugin.folder import names_relative_to
from modhook.plugin.interfaces import Model
from modhook.plugin.manager import KINDS, Plugins
from modhook.study.problems import Problems
from modhook.study.strict import plain
from modhook.study.structure import structured, structured_by, unknown_key
from modhook.study.study import Named
from modhook.values.text import Path, written


def plugin_class(kind: str, name: Any, path: Path, plugins: Plugins, problems: Problems) -> Any:
    """Return a plugin's class, or None after noting what is wrong."""
    if not isinstance(name, str) or not name:
        problems.add(path, f"{written(name)} is not a name in quotes")
        return None
    try:
        return plugins.load(kind, name)
    except PluginError as error:
        problems.add(path, str(error).rstrip("."))
        problems.cause = error.__cause__
        return None


def named(
    kind: str, table: Any, path: Path, plugins: Plugins, problems: Problems
) -> tuple[Named, Any] | None:
    """Return a task's or a model's name and options, and the object made from them (None for a callable)."""
    if not isinstance(table, Mapping):
        problems.add(path, f"{written(table)} is not a table; write [{path[0]}]")
        return None
    rest = {key: value for key, value in table.items() if key != "name"}
    if "name" not in table:
        problems.add((*path, "name"), f"missing; valid {kind}: {', '.join(plugins.names(kind)) or 'none'}")
        return None
    name = table["name"]
    if kind == "models" and plugins.is_code(kind, name) and not _is_model(name, plugins):
        options = structured_by(plain, rest, path, problems)
        good = not plugins.imports(name) or _callable(name, rest, path, plugins, problems)
        return (Named(name, options), None) if good and options is not None else None
    cls = plugin_class(kind, name, (*path, "name"), plugins, problems)
    with names_relative_to(plugins.folder):
        made = None if cls is None else make(cls, rest, path, problems)
    return None if made is None else (Named(name, made[0]), made[1])


def make(cls: Any, table: Any, path: Path, problems: Problems) -> tuple[Any, Any] | None:
    """Return a plugin's options and the plugin made from them; what its constructor refuses is the study's mistake."""
    options = structured(cls.Options, table, path, problems)
    if options is None:
        return None
    try:
        return options, cls(options)
    except UserError as error:
        problems.add(path, str(error))
    except Exception as error:
        problems.add(
            path,
            f"{cls.__name__} fails on these options: {told(error)}; a mistake of its plugin",
        )
        problems.cause = error
    return None


def find_callable(target: str) -> Callable[..., Any]:
    """Import `package.module:callable` or `file.py:callable`, a network that is no plugin; files relative to the current folder.

    The current directory can be imported from, as with `python -m`, but comes last, so that no file there hides an
    installed package. A study file's own folder cannot.

    Raises:
        UserError: the module cannot be imported, has no such attribute, or the attribute cannot be called.
    """
    return _called(target, find(target, Place(FilePath(), "the current folder"), "callable").thing)


def _called(target: str, found: Any) -> Callable[..., Any]:
    """Return what can be called to make a network. Raises `UserError`."""
    if "torch" in sys.modules and isinstance(found, sys.modules["torch"].nn.Module):
        raise UserError(f"{target!r} is a network itself; name a class, or a function that returns a new one")
    if isinstance(found, type) and (kind := next((k for k in KINDS.values() if issubclass(found, k)), None)):
        raise UserError(f"{target!r} is a modhook.{kind.__name__}, which makes no network")
    if not callable(found):
        raise UserError(f"{target!r} is {type(found).__name__} and cannot be called")
    return found  # type: ignore[no-any-return]


def _is_model(name: str, plugins: Plugins) -> bool:
    """Return whether code that may be looked at is a `modhook.Model`, and no callable."""
    if not plugins.imports(name):
        return False
    try:
        thing = plugins.code(name, "callable").thing
    except PluginError:
        return False  # said where it is looked at as a callable
    return isinstance(thing, type) and issubclass(thing, Model)


def _callable(target: str, keywords: Mapping[str, Any], path: Path, plugins: Plugins, problems: Problems) -> bool:
    """Check that the callable exists and takes these keywords."""
    try:
        signature = inspect.signature(_called(target, plugins.code(target, "callable").thing))
    except UserError as error:
        problems.add((*path, "name"), str(error))
        problems.cause = error.__cause__
        return False
    except (ValueError, TypeError):
        return True  # written in C: it says itself what it takes
    takes = signature.parameters.values()
    by_name = [p.name for p in takes if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    unknown = [] if any(p.kind is p.VAR_KEYWORD for p in takes) else [k for k in keywords if k not in by_name]
    for key in unknown:
        problems.add((*path, key), unknown_key(key, by_name), known=False)
    try:
        signature.bind(**{k: v for k, v in keywords.items() if k not in unknown})
    except TypeError as error:
        problems.add(path, f"{target} cannot be called with these keys: {error}")
        return False
    return not unknown
