"""The pages in docs/ are complete and true: hooks, interfaces, variables, commands, and a plugin that works as printed."""

from __future__ import annotations

import inspect
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from warm import Warm

from modhook.cube import masks_from, open_cube, weights_from
from modhook.plugin import hookspecs
from modhook.plugin.manager import KINDS

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))
PLUGINS = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")


def test_every_hook_is_documented() -> None:
    """Each hook of hookspecs.py has a row in docs/plugins.md that names its interface, and an example."""
    hooks = [name for name, value in vars(hookspecs).items() if hasattr(value, f"{hookspecs.PROJECT}_spec")]
    assert sorted(hooks) == sorted(f"modhook_{kind}" for kind in KINDS)
    for kind, interface in KINDS.items():
        assert re.search(rf"^\| `modhook_{kind}` \|.*`modhook\.{interface.__name__}` \|$", PLUGINS, re.MULTILINE)
        assert f"@hookimpl\ndef modhook_{kind}():" in PLUGINS


@pytest.mark.parametrize("interface", KINDS.values(), ids=lambda c: c.__name__)
def test_every_member_of_an_interface_is_documented(interface: type) -> None:
    """Each public method, property and class variable of a plugin interface is in its section's table."""
    name = interface.__name__.replace("Model", "Network").lower()
    section = re.search(rf"^## An? {name}\n(.*?)(?=^## )", PLUGINS, re.MULTILINE | re.DOTALL)
    assert section is not None
    declared = set(vars(interface)) | set(inspect.get_annotations(interface))
    for member in declared - {"Options"}:
        if not member.startswith("_"):
            assert re.search(rf"^\|[^|]*`{member}[`(]", section[1], re.MULTILINE), f"{member} is not in its table"
    assert "`Options`" in PLUGINS


def test_variables_page_is_up_to_date() -> None:
    """docs/variables.md is what the plugins declare; `python tests/docs/variables_page.py --write` renews it."""
    import variables_page

    assert variables_page.PAGE.read_text(encoding="utf-8") == variables_page.page()


def test_index_lists_every_page_and_notebook() -> None:
    """docs/README.md links every page, names every notebook, and links nothing that is not there."""
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", index)
    assert {p.name for p in (ROOT / "docs").glob("*.md")} - {"README.md"} <= set(links)
    assert all((ROOT / "docs" / link).is_file() for link in links)
    for notebook in (ROOT / "studies" / "notebooks").glob("*.ipynb"):
        assert notebook.name in index


def test_the_plugin_on_the_page_works(tmp_path: Path, warm: Warm) -> None:
    """The page's file, installed with its entry point, lists, checks, runs and plots, and the numbers are those of its masks."""
    package, (project, study) = tmp_path / "site", re.findall(r"```toml\n(.*?)```", PLUGINS, re.DOTALL)
    about = package / "my_plugin-1.0.dist-info"
    about.mkdir(parents=True)
    (package / "my_plugin.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", PLUGINS, re.DOTALL)))
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plugin\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[modhook]\n" + project.partition("[project.entry-points.modhook]\n")[2].replace('"', "")
    )
    (tmp_path / "logic.toml").write_text(study)
    commands = [
        ["list"],
        ["check", "logic.toml"],
        ["run", "logic.toml"],
        ["plot", "results/logic.zarr", "--figure", "widths"],
    ]
    code = f"""
from modhook.cli import main
for arguments in {commands!r}:
    try:
        main(arguments)
    except SystemExit as stop:
        assert stop.code == 0, arguments
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(package), *sys.path])}
    done = warm.run("-c", code, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    for kind in KINDS:
        assert re.search(rf"^{kind}:\n(  .*\n)*?  \w+ .*\[my-plugin\]$", done.stdout, re.MULTILINE), kind
    path = tmp_path / "results" / "logic.zarr"
    with open_cube(path) as cube:
        used = float(cube["widths"]["used"].sel(seed=1, stage="and"))
        accuracy = float(cube["scores"]["accuracy"].sel(seed=1, stage="and", split="and"))
    masks = {name: mask.numpy() for name, mask in masks_from(path, seed=1, stage="and").items()}
    weights = {name: tensor.numpy() for name, tensor in weights_from(path, seed=1).items()}
    first, last = masks["0.weight"] * weights["0.weight"], masks["2.weight"] * weights["2.weight"]
    right = 0
    for a in (0, 1):
        for b in (0, 1):
            hidden = np.tanh(first @ [a, b, 1, 0] + weights["0.bias"])  # (64,)
            right += int((last @ hidden + weights["2.bias"]).argmax() == (a and b))
    assert accuracy == right / 4
    assert used == sum(masks["0.weight"][i].any() and masks["2.weight"][:, i].any() for i in range(64))
    assert {p.suffix for p in (tmp_path / "results" / "logic-figures").iterdir()} == {".png", ".svg", ".pdf"}
