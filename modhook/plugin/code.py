"""Code that a study names by itself: `my_task.py:MyTask`, a file beside it, or `package.module:Class`; no plugin is installed.

It runs with the user's rights, so it is imported only where the user's own study or command names it: what a cube names stays a
name (`Plugins.beside` says whose names count). Every file carries a digest, by which a cube knows what it was computed with.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.machinery
import importlib.util
import keyword
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import attrs

from modhook.errors import PluginError, listing, near_file, near_miss
from modhook.plugin.culprit import belongs_to_a_library, told


@attrs.frozen
class Place:
    """Where the files are that names lead to, and which names may be imported."""

    folder: Path
    whose: str = "the study file"
    """What names of files are relative to, in words."""
    only: Collection[str] | None = None
    """The names that may be imported; None for any."""


@attrs.frozen
class Found:
    """What a name leads to."""

    thing: Any
    files: Mapping[str, str]
    """{file: digest} of its own file and of those beside it that it imports; empty where it lies in an installed package."""


def is_code(name: object) -> bool:
    """Return whether a name leads to code, `FILE.py:NAME` or `PACKAGE.MODULE:NAME`, where no installed plugin has that name."""
    return isinstance(name, str) and ":" in name


def short(name: str) -> str:
    """Return what a cube calls an analysis: its own name, or that of its class."""
    return name.rpartition(":")[2]


def find(name: str, place: Place, what: str = "Class") -> Found:
    """Import what a name leads to. Raises `PluginError`: no such file, module or attribute, or one that cannot be imported."""
    where, _, attribute = name.rpartition(":")
    named = all(part.isidentifier() for part in attribute.split("."))
    if where.endswith(".py") and named:
        path = place.folder / Path(where).expanduser()
        module, files = _from_file(path, place.whose)
        return Found(_attribute(module, attribute, str(path)), files)
    if not named or not all(part.isidentifier() for part in where.split(".")):
        raise PluginError(f"{name!r} must be 'package.module:{what}', or 'file.py:{what}'")
    module = _from_path(where, attribute, place)
    return Found(_attribute(module, attribute, f"module {where!r}"), _files_of(module))


# -- modules


def _from_path(where: str, attribute: str, place: Place) -> ModuleType:
    """Import a module. The current directory can be imported from, but comes last, so that no file hides what is installed."""
    here = os.getcwd()
    if not {"", here} & set(sys.path):
        sys.path.append(here)
    try:
        return importlib.import_module(where)
    except (Exception, SystemExit) as error:
        hint = ""
        if isinstance(error, ImportError):
            hint = "; it is looked for among installed packages and in the current directory"
            if (place.folder / (file := where.replace(".", "/") + ".py")).is_file():
                hint = f" (did you mean {f'{file}:{attribute}'!r}?)"
        raise PluginError(f"module {where!r} cannot be imported: {told(error)}{hint}") from error


def _files_of(module: ModuleType) -> dict[str, str]:
    """Return the digests of a module's files; nothing for an installed package, which has a version."""
    file = getattr(module, "__file__", None)
    if not file or not file.endswith(".py") or belongs_to_a_library(file):
        return {}
    path = Path(file).absolute()
    depth = len(module.__name__.split(".")) - (path.name != "__init__.py")
    return _digests(path, path.parents[min(depth, len(path.parents) - 1)])


def _attribute(module: ModuleType, attribute: str, where: str) -> Any:
    found: Any = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            own = [n for n, v in vars(found).items() if getattr(v, "__module__", None) == module.__name__]
            near = near_miss(part, own) or near_miss(part, [n for n in vars(found) if not n.startswith("_")])
            near = near or (f"; it defines {listing(own, 8)}" if own else "")
            raise PluginError(f"{where} has no {attribute!r}{near}") from None
    return found


# -- files


_loaded: dict[Path, tuple[dict[str, str], ModuleType]] = {}
_folders: list[str] = []
"""Folders of such files on Python's path; the latest comes first, and all come after what is installed."""


class _Source(importlib.machinery.SourceFileLoader):
    """Compiles the file as it is now: no bytecode is read, or left beside it."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _from_file(path: Path, whose: str) -> tuple[ModuleType, dict[str, str]]:
    """Import a file, anew where it or a file that it imports has changed."""
    try:
        path.read_bytes()
    except FileNotFoundError:
        near = near_file(path, (".py",))
        raise PluginError(f"there is no file {str(path)!r}{near}; the name is relative to {whose}") from None
    except (OSError, ValueError) as error:
        raise PluginError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    real = path.absolute()
    files = _digests(real, real.parent)
    if real in _loaded and _loaded[real][0] == files:
        return _loaded[real][1], files
    _make_room(real, files)
    name = _module_name(real)
    spec = importlib.util.spec_from_file_location(name, real, loader=_Source(name, str(real)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # decorators of classes look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise PluginError(f"{path} cannot be imported: {told(error)}") from error
    _loaded[real] = files, module
    return module, files


def _make_room(path: Path, files: Mapping[str, str]) -> None:
    """Let a file import those beside it: as they are now, and not namesakes beside another study."""
    folder = str(path.parent)
    for other in _folders:
        if other in sys.path:
            sys.path.remove(other)
    _folders[:] = [folder, *(f for f in _folders if f != folder)]
    sys.path += [f for f in _folders if f not in sys.path]
    for file in files:
        name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        there = getattr(sys.modules.get(name), "__file__", None)
        if there and not belongs_to_a_library(there):
            del sys.modules[name]


def _module_name(path: Path) -> str:
    """Return the file's own name, by which child processes find it too, or one that hides nothing where that is taken."""
    name = path.stem
    if name.isidentifier() and not keyword.iskeyword(name) and name not in sys.modules:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            spec = None
        if spec is None or spec.origin == str(path):
            return name
    return f"modhook_file_{re.sub(r'[^A-Za-z0-9_]', '_', name)}_{_digest(str(path).encode())[:8]}"


def _digests(path: Path, root: Path) -> dict[str, str]:
    """Return {name: digest} of a file and of all files below `root` that it imports, straight or through others."""
    found: dict[str, str] = {}
    waiting = [path]
    while waiting:
        file = waiting.pop()
        name = file.relative_to(root).as_posix()
        if name not in found:
            data = file.read_bytes()
            found[name] = _digest(data)
            waiting += _imported(data, file, root)
    return dict(sorted(found.items()))


def _imported(data: bytes, file: Path, root: Path) -> Iterator[Path]:
    """Yield the files below `root` that a source names in its import statements."""
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError, RecursionError):
        return  # importing it says so
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets, start = [alias.name for alias in node.names], root
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            targets = [f"{base}.{alias.name}".strip(".") for alias in node.names]
            start = file.parents[node.level - 1] if node.level else root
        else:
            continue
        for target in targets:
            inside = start
            for part in target.split("."):
                for candidate in (inside / part / "__init__.py", inside / f"{part}.py"):
                    if candidate.is_file() and not belongs_to_a_library(str(candidate)):
                        yield candidate
                inside = inside / part


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
