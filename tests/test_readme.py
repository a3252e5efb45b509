"""The README's code runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import modhook

README = (Path(__file__).parents[1] / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_library_example_runs_and_finds_the_function() -> None:
    """The example trains masks that keep only the asked output's row of the last layer, in at most fifteen lines."""
    example = next(block for block in PYTHON if "fit_masks" in block)
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    names: dict[str, object] = {}
    torch.manual_seed(0)
    exec(example.replace("beta=1e-3)", "beta=1e-3, progress=False)"), names)
    fit = names["fit"]
    assert isinstance(fit, modhook.Fit)
    first, second = fit.masks["2.weight"]
    assert first.sum() > 10
    assert second.sum() == 0


def test_asking_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of `ask`, in at most fifteen lines: verdicts, scores, masks and a report; here with one seed and few steps."""
    example = next(block for block in PYTHON if "modhook.ask(" in block)
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(example.replace("seeds=3, controls=True,", "seeds=1, steps=4, samples=2, progress=False,"), names)
    assert (tmp_path / "results" / "mine-report.html").is_file()


def test_cube_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the cube of the quickstart's smoke variant the xarray example works, and the tables are those that the README quotes."""
    from modhook.cli import main

    root = Path(__file__).parents[1]
    with pytest.raises(SystemExit) as stop:
        main(["run", str(root / "studies/quickstart.toml"), "--variant", "smoke", "--out", str(tmp_path / "results")])
    assert stop.value.code == 0
    from modhook.cube import open_cube
    from modhook.tables import tables

    found = {t.title: t for t in tables(open_cube(tmp_path / "results/quickstart-smoke.zarr"))}
    (block,) = (b for b in README.split("```")[1::2] if "scores/accuracy" in b)
    quoted = re.findall(
        r"^(\S.*?)  1 of 1 seeds; one seed: no spread\n\n (.*)\n .*\n((?: .+\n)+)", block, re.MULTILINE
    )
    assert [title for title, *_ in quoted] == ["scores/accuracy (%)", "overlap/iou_total: IoU of two masks"]
    for title, head, rows in quoted:
        assert head.split() == [found[title].corner, *found[title].columns]
        assert [row.split()[0] for row in rows.splitlines()] == [label for label, _ in found[title].rows]
    monkeypatch.chdir(tmp_path)
    example = next(block for block in PYTHON if "open_datatree" in block)
    exec(example.replace("quickstart.zarr", "quickstart-smoke.zarr"), {})


def test_commands_exist() -> None:
    """Every `modhook` command and study that the README names exists."""
    from modhook.cli.main import commands

    for name in re.findall(r"^modhook (\w+)", README, re.MULTILINE):
        assert name in commands.commands
    for study in re.findall(r"studies/\w+\.toml", README):
        assert (Path(__file__).parents[1] / study).is_file()
