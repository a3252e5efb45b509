"""Which names the reference must have, and which it has: for the site's hooks, and for the tests, without mkdocs."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import re
from pathlib import Path
from typing import Any

import modhook
from modhook.plugin import hookspecs

DOCS = Path(__file__).parents[1]
PAGES = DOCS / "reference"
PARTS = ("chance", "export", "findings", "objectives", "style", "testing")
"""Public modules, as `modhook.NAME`: what their `__all__` names, or what they define, is public, too."""
OTHERWISE = {"modhook.plot": "modhook.plotting.plot.Plot", "modhook.report": "modhook.report.write.report"}
"""What is documented under the name of its class, or of the function that a module is called for."""
_DIRECTIVE = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)


def names() -> dict[str, Any]:
    """Return everything public by the path under which the reference has it."""
    found = {f"modhook.{name}": getattr(modhook, name) for name in modhook.__all__}
    for part in PARTS:
        owner = found.setdefault(f"modhook.{part}", None) or importlib.import_module(f"modhook.{part}")
        found |= {f"modhook.{part}": owner}
        found |= {f"modhook.{part}.{name}": getattr(owner, name) for name in _public(owner)}
    hooks = [name for name, value in vars(hookspecs).items() if hasattr(value, f"{hookspecs.PROJECT}_spec")]
    found |= {f"modhook.plugin.hookspecs.{name}": getattr(hookspecs, name) for name in hooks}
    return {OTHERWISE.get(path, path): value for path, value in found.items()}


def places() -> dict[str, str]:
    """Return the pages of the reference by what they document, `{path: file name}`."""
    return {path: page.name for page in sorted(PAGES.glob("*.md")) for path in directives(page)}


def directives(page: Path) -> list[str]:
    """Return what one page documents."""
    return _DIRECTIVE.findall(page.read_text(encoding="utf-8"))


def faults() -> list[str]:
    """Return what is wrong with the reference, one sentence each: a name without a place or a docstring, a place without a name."""
    public, places_ = names(), places()
    lost = [
        f"{path} is public and on no page of docs/reference: write `::: {path}` on one."
        for path in public.keys() - places_
    ]
    gone = [
        f"docs/reference/{places_[path]} documents {path}, which is not public." for path in places_.keys() - public
    ]
    bare = [f"{path} is public and has no docstring." for path in undocumented(public)]
    return sorted([*lost, *gone, *bare])


def undocumented(public: dict[str, Any]) -> list[str]:
    """Return the names, and the public members of classes among them, that nothing is said of."""
    bare = []
    for path, value in public.items():
        object_ = (
            inspect.ismodule(value) or inspect.isclass(value) or inspect.isroutine(value) or path in OTHERWISE.values()
        )
        if not (value.__doc__ if object_ else _said_of(path.rpartition(".")[2])):
            bare.append(path)
        if inspect.isclass(value):
            members = {
                n: m
                for n, m in vars(value).items()
                if n[0] != "_" and (inspect.isroutine(m) or isinstance(m, property))
            }
            bare += [
                f"{path}.{name}" for name, member in members.items() if not inspect.getdoc(getattr(value, name, member))
            ]
    return bare


def _public(module: Any) -> list[str]:
    own = getattr(module, "__all__", None)
    if own is not None:
        return list(own)
    return [n for n, v in vars(module).items() if n[0] != "_" and getattr(v, "__module__", None) == module.__name__]


def _said_of(name: str) -> bool:
    """Return whether a docstring stands under the constant somewhere in modhook."""
    for source in Path(modhook.__file__).parent.rglob("*.py"):
        text = source.read_text(encoding="utf-8")
        if not re.search(rf"^{name}\b.*=", text, re.MULTILINE):
            continue
        body = ast.parse(text).body
        for one, after in itertools.pairwise(body):
            targets = (
                one.targets if isinstance(one, ast.Assign) else [one.target] if isinstance(one, ast.AnnAssign) else []
            )
            if name in (t.id for t in targets if isinstance(t, ast.Name)):
                return (
                    isinstance(after, ast.Expr)
                    and isinstance(after.value, ast.Constant)
                    and isinstance(after.value.value, str)
                )
    return False
