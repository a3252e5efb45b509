"""Python on the pages runs, block after block, or says that it is a fragment; no page uses a name that it does not have."""

from __future__ import annotations

import ast
import builtins
import importlib.util
import re
import warnings
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch

import modhook

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
RUN = ("units", "masks", "real")
"""Pages of docs/ that are run here, in few steps; other tests run the README, `ask`, objectives, plugins and the reference."""
FRAGMENT = "# a fragment"


def blocks(page: Path) -> list[str]:
    """Return the Python of a page, fragments left out."""
    found = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [code for code in found if not code.startswith(FRAGMENT)]


def undefined(codes: list[str]) -> list[str]:
    """Return the names that code uses, and neither it nor what stands before it makes."""
    known, lacking = set(dir(builtins)), list[str]()
    for code in codes:
        nodes = list(ast.walk(ast.parse(code)))
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                known.add(node.name)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                known |= {(a.asname or a.name).partition(".")[0] for a in node.names}
            elif isinstance(node, ast.ExceptHandler) and node.name:
                known.add(node.name)
            elif isinstance(node, ast.arg):
                known.add(node.arg)
            elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                known.add(node.id)
        lacking += [n.id for n in nodes if isinstance(n, ast.Name) and n.id not in known]
    return lacking


def test_no_page_uses_a_name_that_it_does_not_have() -> None:
    """Every page that there is; the check finds what is missing."""
    assert undefined(["def f(x):\n    return x + y", "f(z)\nz = f(1)"]) == ["y"]
    assert {str(p.relative_to(ROOT)): found for p in PAGES if (found := undefined(blocks(p)))} == {}


@pytest.mark.parametrize("page", RUN)
def test_examples_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they stand there, in a folder of their own, with fewer steps and samples."""
    fit = modhook.fit_masks

    def few(*given: Any, **more: Any) -> modhook.Fit:
        return fit(*given, **{**more, "steps": 3, "samples": 2, "progress": False})

    monkeypatch.setattr(modhook, "fit_masks", few)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", modhook.ModhookWarning)  # of masks learned in few steps
        for code in blocks(ROOT / "docs" / f"{page}.md"):
            lines = [x for x in code.splitlines() if "dendrogram" not in x or importlib.util.find_spec("scipy")]
            exec(compile("\n".join(lines), page, "exec"), names)
    plt.close("all")
