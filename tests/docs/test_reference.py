"""The reference has a place and an example for every public name, and the examples run as printed."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs" / "site"))

import reference  # noqa: E402

PAGES = sorted(p for p in reference.PAGES.glob("*.md") if p.name != "README.md")
ELSEWHERE = [ROOT / "docs" / "plugins.md", ROOT / "docs" / "objectives.md", ROOT / "docs" / "ask.md"]
"""Further pages whose every Python block other tests run."""


def blocks(page: Path) -> str:
    """Return all Python of a page, on the lines that it has there."""
    text = page.read_text(encoding="utf-8")
    lines = [""] * (text.count("\n") + 1)
    for found in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        start = text.count("\n", 0, found.start(1))
        code = found[1].splitlines()
        lines[start : start + len(code)] = code
    return "\n".join(lines)


def test_every_public_name_has_a_place_and_a_docstring() -> None:
    """Each public name stands on one page of the reference, with a docstring, and nothing else does."""
    assert reference.faults() == []


def test_a_name_without_a_place_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above finds a page's lack, a place without a name, and a class whose member says nothing."""

    class Bare:
        """Says something, unlike its method."""

        def silent(self) -> None: ...

    (tmp_path / "some.md").write_text("# Some\n\n::: modhook.gone\n\n::: modhook.iou\n")
    monkeypatch.setattr(reference, "PAGES", tmp_path)
    faults = reference.faults()
    assert "docs/reference/some.md documents modhook.gone, which is not public." in faults
    assert [f for f in faults if f.startswith("modhook.iomin is public and on no page")]
    assert not [f for f in faults if f.startswith("modhook.iou ")]
    assert reference.undocumented({"modhook.Bare": Bare, "modhook.NOTHING": 3}) == [
        "modhook.Bare.silent",
        "modhook.NOTHING",
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page of the reference run one after the other, in a folder of their own, without a warning."""
    monkeypatch.chdir(tmp_path)
    module = ModuleType("page")  # what ask keeps of a loss is found by its module
    monkeypatch.setitem(sys.modules, "page", module)
    exec(compile(blocks(page), str(page), "exec"), module.__dict__)


def test_every_public_name_is_in_an_example() -> None:
    """Each public name is used, not only named in a comment, by an example that a test runs."""
    used = {path for page in [*PAGES, *ELSEWHERE] for path in _used(blocks(page))}
    hooks = re.findall(r"def (modhook_\w+)\(", blocks(ROOT / "docs" / "plugins.md"))
    used |= {f"modhook.plugin.hookspecs.{hook}" for hook in hooks}
    same = {path: name for name, path in reference.OTHERWISE.items()}
    assert [path for path in reference.names() if same.get(path, path) not in used] == []


def _used(code: str) -> set[str]:
    """Return the dotted names that code uses, by the names under which it imports them."""
    tree = ast.parse(code)
    means = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            means |= {a.asname or a.name: a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            means |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
        elif (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Attribute)
        ):
            means.setdefault(node.targets[0].id, ast.unparse(node.value))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            first, _, rest = ast.unparse(node).partition(".")
            found.add(".".join([means.get(first, first), *([rest] if rest else [])]))
    return found
