"""Looks up what a study names - task, model, analyses, sampler, protocol - and structures the options of each."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from modhook.errors import PluginError, UserError
from modhook.plugin.culprit import told
from modhook.plugin.manager import Plugins
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
    kind: str, table: Any, path: Path, plugins: Plugins, problems: Problems, imports: bool = True
) -> tuple[Named, Any] | None:
    """Return a task's or a model's name and options, and the object made from them (None for a callable).

    Without `imports` a callable is taken as it is named: looking at it would run its module's code.
    """
    if not isinstance(table, Mapping):
        problems.add(path, f"{written(table)} is not a table; write [{path[0]}]")
        return None
    rest = {key: value for key, value in table.items() if key != "name"}
    if "name" not in table:
        problems.add((*path, "name"), f"missing; valid {kind}: {', '.join(plugins.names(kind)) or 'none'}")
        return None
    name = table["name"]
    if kind == "models" and isinstance(name, str) and ":" in name:
        options = structured_by(plain, rest, path, problems)
        good = not imports or _callable(name, rest, path, problems)
        return (Named(name, options), None) if good and options is not None else None
    cls = plugin_class(kind, name, (*path, "name"), plugins, problems)
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
    """Import `package.module:callable`, a network that is no plugin.

    The current directory can be imported from, as with `python -m`, but comes last, so that no file there hides an
    installed package. The study file's own folder cannot.

    Raises:
        UserError: the module cannot be imported, has no such attribute, or the attribute cannot be called.
    """
    module, _, attribute = target.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")]):
        raise UserError(f"{target!r} must be 'package.module:callable'")
    here = os.getcwd()
    if not {"", here} & set(sys.path):
        sys.path.append(here)
    try:
        found: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        looked = (
            "; it is looked for among installed packages and in the current directory"
            if isinstance(error, ImportError)
            else ""
        )
        raise UserError(f"module {module!r} cannot be imported: {told(error)}{looked}") from error
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise UserError(f"module {module!r} has no {attribute!r}") from error
    if not callable(found):
        raise UserError(f"{target!r} is {type(found).__name__} and cannot be called")
    return found  # type: ignore[no-any-return]


def _callable(target: str, keywords: Mapping[str, Any], path: Path, problems: Problems) -> bool:
    """Check that the callable exists and takes these keywords."""
    try:
        signature = inspect.signature(find_callable(target))
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
