"""Imports point one way: read from the source, so that a lazy import inside a function counts too."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "modhook": ROOT / "modhook",
    "modhook_plugins": ROOT / "plugins" / "modhook_plugins",
    "modhook_tasks": ROOT / "tasks_plugins" / "modhook_tasks",
}
# What a room of the core may never import, straight or through others: everything that is built on it.
ABOVE = {
    "errors": {"*"},
    "values": {"plugin", "masks", "noise", "stacked", "fit", "steps", "study", "cube", "run", "cli"},
    "network": {"plugin", "masks", "noise", "stacked", "fit", "steps", "study", "cube", "run", "cli"},
    "unit": {"plugin", "masks", "noise", "stacked", "fit", "steps", "study", "cube", "run", "cli"},
    "plugin": {"masks", "noise", "stacked", "fit", "steps", "study", "cube", "run", "cli"},
    "noise": {"plugin", "masks", "stacked", "fit", "steps", "study", "cube", "run", "cli"},
    "masks": {"plugin", "noise", "stacked", "fit", "steps", "study", "cube", "run", "cli"},
    "stacked": {"fit", "steps", "study", "cube", "run", "cli"},
    "steps": {"masks", "stacked", "fit", "study", "cube", "run", "cli"},
    "objectives": {"plugin", "masks", "noise", "steps", "fit", "study", "cube", "run", "cli"},
    "fit": {"study", "cube", "run", "cli"},
    "study": {"masks", "stacked", "fit", "steps", "cube", "run", "cli"},
    "cube": {"stacked", "fit", "steps", "study", "run", "cli"},
    "plotting": {"study", "cube", "run", "report", "asking", "cli"},
    "run": {"launch", "report", "findings", "asking", "watching", "cli"},
    "findings": {"run", "report", "launch", "asking", "cli"},
    "report": {"run", "asking", "cli"},
    "launch": {"asking", "cli"},
    "watching": {"launch", "report", "findings", "asking", "cli"},
    "asking": {"cli"},
    "testing": {"launch", "asking", "watching", "cli"},
}
LOOSE = {"__init__", "__main__", "errors"}
"""All that may lie in the core outside a room."""


@attrs.frozen
class Import:
    """One import: from which module, which module, on which line."""

    source: str
    target: str
    line: int
    typing_only: bool


def _modules(package: str) -> dict[str, Path]:
    root = PACKAGES[package]
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = [package, *path.relative_to(root).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = {name: path for package in PACKAGES for name, path in _modules(package).items()}


def _is_typing(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _statements(node: ast.AST, typing_only: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        inside = typing_only or (isinstance(node, ast.If) and _is_typing(node.test) and child in node.body)
        yield child, inside
        yield from _statements(child, inside)


def _imports(module: str) -> Iterator[Import]:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    for node, typing_only in _statements(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno, typing_only)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} is a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield Import(module, full if full in MODULES else str(node.module), node.lineno, typing_only)


IMPORTS = [found for module in MODULES for found in _imports(module)]


def _room(module: str) -> str:
    """Return the part of the core that a module belongs to: `modhook.run.context` is in `run`; `modhook` itself in ''."""
    return module.split(".")[1] if "." in module else ""


def _in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _cycle(graph: dict[str, set[str]]) -> list[str]:
    """Return one cycle of a graph, or an empty list."""
    done: set[str] = set()

    def visit(node: str, trail: list[str]) -> list[str]:
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node in done:
            return []
        for target in sorted(graph.get(node, ())):
            if found := visit(target, [*trail, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := visit(node, []))), [])


def _graph(name_of: object, package: str, *, typing: bool = False) -> dict[str, set[str]]:
    assert callable(name_of)
    graph: dict[str, set[str]] = {}
    for one in IMPORTS:
        if _in(one.source, package) and _in(one.target, package) and (typing or not one.typing_only):
            source, target = name_of(one.source), name_of(one.target)
            graph.setdefault(source, set())
            if source != target and target:
                graph[source].add(target)
    return graph


def test_the_source_is_read() -> None:
    """The tests below look at the real packages: all three, with imports of every form."""
    assert {"modhook.errors", "modhook.study.loading", "modhook_plugins.register", "modhook_tasks.register"} <= set(
        MODULES
    )
    pairs = {(one.source, one.target) for one in IMPORTS}
    assert ("modhook.study.loading", "modhook.study.grid") in pairs
    assert any(one.typing_only for one in IMPORTS)


def test_the_cycle_finder_finds() -> None:
    """A cycle is found and shown as a path; a diamond is none."""
    assert _cycle({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}) == []
    assert _cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_core_never_imports_a_plugin() -> None:
    """The core knows no task, network or figure: not by import, nor by a module's name in a text."""
    wrong = [
        one
        for one in IMPORTS
        if _in(one.source, "modhook") and one.target.startswith(("modhook_plugins", "modhook_tasks"))
    ]
    assert wrong == []
    for module in _modules("modhook"):
        for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not node.value.startswith(("modhook_plugins.", "modhook_tasks.")), f"{module}:{node.lineno}"


def test_plugins_do_not_import_the_other_package() -> None:
    """First-party tasks and other plugins could be two distributions."""
    wrong = [
        one
        for one in IMPORTS
        if (_in(one.source, "modhook_plugins") and _in(one.target, "modhook_tasks"))
        or (_in(one.source, "modhook_tasks") and _in(one.target, "modhook_plugins"))
    ]
    assert wrong == []


def test_plugins_do_not_reach_into_the_machinery() -> None:
    """No plugin imports the command line, the study's reader or the manager."""
    closed = ("modhook.cli", "modhook.study", "modhook.run", "modhook.plugin.manager")
    wrong = [
        one
        for one in IMPORTS
        if not _in(one.source, "modhook") and not one.typing_only and any(_in(one.target, c) for c in closed)
    ]
    assert wrong == []


def test_rooms_have_no_cycle() -> None:
    """The rooms of the core are built on each other in one order."""
    assert _cycle(_graph(_room, "modhook")) == []


def test_rooms_have_no_cycle_of_types() -> None:
    """Nor does a room take its types from one that is built on it."""
    assert _cycle(_graph(_room, "modhook", typing=True)) == []


def test_every_file_has_a_room() -> None:
    """The top of the core holds what everything uses, and nothing else lies loose there."""
    loose = {path.stem for path in PACKAGES["modhook"].glob("*.py")}
    assert loose == LOOSE


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_modules_have_no_cycle(package: str) -> None:
    """No module imports itself through others, even inside a function."""
    assert _cycle(_graph(lambda module: module, package)) == []


@pytest.mark.parametrize("room", sorted(ABOVE))
def test_room_imports_nothing_above_it(room: str) -> None:
    """cli -> run -> {study, fit, cube}, fit -> stacked -> masks, everything -> errors; never the other way."""
    graph = _graph(_room, "modhook")
    reached, waiting = set(), [room]
    while waiting:
        for target in graph.get(waiting.pop(), set()) - reached:
            reached.add(target)
            waiting.append(target)
    assert any(_room(module) == room for module in MODULES), f"modhook has no {room}"
    assert (reached if ABOVE[room] == {"*"} else reached & ABOVE[room]) == set()


def test_core_does_not_go_through_the_public_names() -> None:
    """`import modhook` inside the core could hide a cycle: only the version is taken from it."""
    for module in _modules("modhook"):
        for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "modhook":
                assert node.attr == "__version__", f"{module}:{node.lineno} uses modhook.{node.attr}"


LIGHT = [
    "modhook",
    "modhook.errors",
    "modhook.plugin.hookspecs",
    "modhook.plugin.contract",
    "modhook.plugin.interfaces",
    "modhook.plugin.manager",
    "modhook.study",
    "modhook.cli",
]


@pytest.mark.parametrize("module", LIGHT)
def test_import_has_no_side_effect(module: str, tmp_path: Path) -> None:
    """Importing loads no heavy library, writes and prints nothing, and leaves path, warnings and signals as they are."""
    code = f"""
import signal, sys, threading, warnings
before = list(sys.path), list(warnings.filters), [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
import {module}
after = list(sys.path), list(warnings.filters), [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
assert before == after
assert threading.active_count() == 1
heavy = {{"torch", "xarray", "zarr", "pandas", "matplotlib", "safetensors", "jinja2", "tomlkit", "dask", "distributed"}} & set(
    sys.modules
)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
