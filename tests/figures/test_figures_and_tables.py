"""Tables and figures: their numbers recomputed, half-finished cubes, and files that open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from modhook.cube import Plan, create, open_cube
from modhook.plugin.variables import Variable
from modhook.report.drawing import draw
from modhook.tables import tables
from modhook_plugins.figures.common import spread
from modhook_plugins.figures.performance import AddMulPerformance
from modhook_plugins.figures.scan_accuracy import ScanAccuracy


def cube(
    path: Path,
    task: str,
    values: np.ndarray[Any, Any],
    stages: list[str],
    splits: list[str],
    groups: tuple[str, ...] = ("scores",),
) -> xr.DataTree:
    """A cube with given accuracies (seed, stage, split); NaN stays unwritten."""
    attrs = {"study": {"study": {"name": "x"}, "task": {"name": task}}}
    variables = tuple(
        Variable(f"{g}/accuracy", ("stage", "split"), "float64", "accuracy", attrs={"table": "percent"}) for g in groups
    )
    labels = {g: {"stage": stages, "split": splits} for g in groups}
    made = create(path, Plan(attrs, {"seed": list(range(1, len(values) + 1))}, variables, labels))
    for i, row in enumerate(values):
        for j, stage in enumerate(stages):
            if not np.isnan(row[j]).all():
                for g in groups:
                    made.write(f"{g}/accuracy", row[j], {"seed": i + 1}, stage=stage)
    return open_cube(path)


SCAN_STAGES = ["unmasked", "control", "jump", "length", "turn_left"]
SCAN_SPLITS = ["simple", "jump", "length", "turn_left"]


def bars(figure: Any) -> dict[str, list[float]]:
    """Heights of the bars by legend label."""
    axes = figure.axes[0]
    return {c.get_label(): [round(b.get_height(), 6) for b in c] for c in axes.containers if hasattr(c, "patches")}


def note(figure: Any) -> str:
    """The line under a figure."""
    return next(t.get_text() for t in figure.texts if t.get_gid() == "note")


def test_scan_figure_shows_the_means(tmp_path: Path) -> None:
    """Bars are the mean accuracy in percent of the stage they stand for, and whiskers the deviation with n - 1."""
    values = np.random.default_rng(0).random((3, 5, 4))
    figure = ScanAccuracy().draw([cube(tmp_path / "c.zarr", "scan", values, SCAN_STAGES, SCAN_SPLITS)])
    found, mean = bars(figure), 100 * values.mean(0)
    assert found["before masking"] == pytest.approx(mean[0].tolist())
    assert found["control's mask"] == pytest.approx(mean[1].tolist())
    assert found["the split's own mask"] == pytest.approx([mean[1, 0], mean[2, 1], mean[3, 2], mean[4, 3]])
    one = spread(xr.DataArray(values[:, 0, 0]))
    assert (one.count, one.deviation) == (3, pytest.approx(values[:, 0, 0].std(ddof=1)))
    assert "3 of 3 seeds" in note(figure)


def test_addmul_figure_shows_scores_and_inverse(tmp_path: Path) -> None:
    """The bars of `not add` come from the inverse scores, the others from the scores; the first are the network without a mask."""
    values = np.random.default_rng(1).random((2, 4, 3))
    stages, splits = ["control", "add", "mul", "unmasked"], ["iid", "add", "mul"]
    tree = cube(tmp_path / "c.zarr", "addmul", values, stages, splits, ("scores", "inverse"))
    found, mean = bars(AddMulPerformance().draw([tree])), 100 * values.mean(0)
    assert found["add problems"] == pytest.approx([mean[3, 1], mean[0, 1], mean[1, 1], mean[1, 1], mean[2, 1], mean[2, 1]])
    assert found["mul problems"] == pytest.approx([mean[3, 2], mean[0, 2], mean[1, 2], mean[1, 2], mean[2, 2], mean[2, 2]])
    without = cube(tmp_path / "w.zarr", "addmul", values[:, :3], stages[:3], splits, ("scores", "inverse"))
    assert len(bars(AddMulPerformance().draw([without]))["add problems"]) == 5


def test_half_finished_cubes_plot_and_tabulate(tmp_path: Path) -> None:
    """Missing runs are left out, and figure and table say how many seeds they show."""
    values = np.full((3, 5, 4), np.nan)
    values[0, :2] = 0.5
    tree = cube(tmp_path / "c.zarr", "scan", values, SCAN_STAGES, SCAN_SPLITS)
    figure = ScanAccuracy().draw([tree])
    assert "1 of 3 seeds: no spread" in note(figure)
    assert sum(t.get_text() == "none" for t in figure.axes[0].texts) == 3
    (table,) = tables(tree)
    assert dict(table.rows)["control"] == ("50.0",) * 4
    assert dict(table.rows)["length"] == ("-",) * 4
    assert "1 of 3 seeds" in table.note
    empty = cube(tmp_path / "e.zarr", "scan", np.full((2, 5, 4), np.nan), SCAN_STAGES, SCAN_SPLITS)
    assert "no run has finished" in note(ScanAccuracy().draw([empty]))
    assert tables(empty)[0].note == "no run has finished yet, or none with a finite number"


def test_table_cells_are_mean_and_deviation(tmp_path: Path) -> None:
    """A cell is the mean over seeds and the standard deviation with n - 1, in percent."""
    values = np.random.default_rng(2).random((4, 2, 1))
    (table,) = tables(cube(tmp_path / "c.zarr", "addmul", values, ["control", "add"], ["iid"]))
    x = 100 * values[:, 1, 0]
    assert dict(table.rows)["add"] == (f"{x.mean():.1f} ± {x.std(ddof=1):.1f}",)


def test_files(tmp_path: Path) -> None:
    """PNG, SVG and PDF are written, and drawing twice writes the same SVG."""
    tree = cube(tmp_path / "c.zarr", "scan", np.full((1, 5, 4), 0.25), SCAN_STAGES, SCAN_SPLITS)
    files = draw(ScanAccuracy(), [tree], tmp_path / "f", "scan_accuracy", ("png", "svg", "pdf"))
    heads = [f.read_bytes()[:5] for f in files]
    assert heads[0][1:4] == b"PNG"
    assert heads[1] == b"<?xml"
    assert heads[2] == b"%PDF-"
    (again,) = draw(ScanAccuracy(), [tree], tmp_path / "g", "scan_accuracy", ("svg",))
    assert again.read_bytes() == files[1].read_bytes()


def test_attributes_are_json(tmp_path: Path) -> None:
    """What figures read of a cube's attributes is plain JSON."""
    tree = cube(tmp_path / "c.zarr", "scan", np.zeros((1, 5, 4)), SCAN_STAGES, SCAN_SPLITS)
    assert json.loads(json.dumps(tree.attrs["study"]))["task"]["name"] == "scan"
