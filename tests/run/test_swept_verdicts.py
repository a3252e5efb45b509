"""Findings and figures of controls in a study with a sweep: every point has its own, as if it were a study of its own."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import xarray as xr
from control_task import STUDY, installed

import modhook
from modhook import Tracker, UserError, iou
from modhook.cube import masks_from, open_cube
from modhook.findings import VERDICTS, judge, measured, points, verdict
from modhook.report import write_report
from modhook.run import run_study
from modhook.study import restore
from modhook_plugins.figures.controls import Controls
from modhook_plugins.figures.parts import Parts
from modhook_plugins.figures.seed_ceiling import SeedCeiling

CONTROLS = {"shuffled": {"stages": ["low", "high"]}, "own_removed": {"draws": 2}, "random": {"draws": 2}, "seed_ceiling": {"seeds": 2}}


def computed(folder: Path, **sections: Any) -> xr.DataTree:
    """Compute the small study with changes, of two seeds, and open its cube."""
    table = copy.deepcopy(STUDY)
    table["study"]["seeds"] = 2
    table["task"]["copies"] = False
    for section, values in {"controls": CONTROLS, **sections}.items():
        table.setdefault(section, {}).update(values)
    table["train"]["steps"], table["masks"]["steps"] = 60, sections.get("masks", {}).get("steps", 20)
    everything = installed()
    outcome = run_study(restore(table, plugins=everything), folder, everything, Tracker())
    assert not outcome.failed
    return open_cube(outcome.path)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    """Two points, of which one learns for half as long."""
    return computed(tmp_path_factory.mktemp("swept"), sweep={"masks.steps": [20, 10]})


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    """The shorter point as a study of its own."""
    return computed(tmp_path_factory.mktemp("alone"), masks={"steps": 10})


def test_a_point_is_what_its_own_study_says(swept: xr.DataTree, alone: xr.DataTree) -> None:
    """Every number behind the verdicts of one point equals that of a study without the sweep, the change of the density too."""
    assert points(swept) == [{"masks.steps": 20}, {"masks.steps": 10}]
    assert points(alone) == [{}]
    for one, other in zip(measured(swept, point={"masks.steps": 10}), measured(alone), strict=True):
        for field in attrs.fields(type(one)):
            a, b = getattr(one, field.name), getattr(other, field.name)
            if field.name in ("others", "controls"):
                a, b = ({k: attrs.astuple(v) if attrs.has(type(v)) else v for k, v in x.items()} for x in (a, b))
                assert a.keys() == b.keys()
                a, b = list(a.values()), list(b.values())
            np.testing.assert_equal(a, b, err_msg=field.name)
        assert np.isfinite(one.moved).all()
    with pytest.raises(UserError, match=r"the cube has no masks\.steps = 15; it has 20, 10"):
        measured(swept, point={"masks.steps": 15})
    with pytest.raises(UserError, match=r"no sweep over 'masks\.lr'"):
        measured(swept, point={"masks.lr": 1})


def test_the_report_has_a_row_per_point_and_function(swept: xr.DataTree, tmp_path: Path) -> None:
    """One table: the verdicts of each function at each point, under the point's setting."""
    page = write_report(swept.encoding["source"], tmp_path / "r.html", installed()).read_text(encoding="utf-8")
    opening = page[page.index('id="verdicts"') :]
    table = opening[: opening.index("</table>")]
    for point in points(swept):
        for one in measured(swept, point=point):
            row = table[table.index(f"masks.steps = {point['masks.steps']}: {one.function}<") :]
            row = row[: row.index("</tr>")]
            found = judge(one)
            assert [cell.partition("<")[0] for cell in row.split(">") if cell.partition("<")[0] in ("yes", "no", "cannot tell")] == [
                verdict(found, name) for name in VERDICTS
            ]


def test_the_figure_of_controls_draws_the_cube_s_numbers(swept: xr.DataTree, alone: xr.DataTree) -> None:
    """Bars are means over seeds of the scores at equal size, and geometric means of sizes, of each point on the split of the function."""
    data, own = modhook.compared(swept, **{"masks.steps": 10}), modhook.compared(alone)
    xr.testing.assert_identical(data, own)
    figure = Controls().draw([swept])
    drawn = [bars for axes in figure.axes for bars in axes.containers if hasattr(bars, "patches")]
    assert [a.get_title().splitlines()[-1] for a in figure.axes] == ["Score at equal size", "Size at equal score"] * 2
    group, scores = swept["controls"], swept["scores/accuracy"]
    where = {"masks.steps": 20}
    heights = {bars.get_label(): [p.get_height() for p in bars.patches] for bars in drawn[:3]}
    for f, name in enumerate(("low", "high")):
        expected = {
            "the function's mask": scores.sel(**where, stage=name, split=name),
            "random mask": swept["random/draws/accuracy"].sel(**where, stage=name, split=name).mean("draw"),
            "shuffled network": group["equal_size/accuracy"].sel(**where, stage=f"{name} (shuffled)", split=name),
        }
        for label, values in expected.items():
            assert heights[label][f] == pytest.approx(100 * float(values.mean()))
        sizes = group["equal_score"].sel(**where, stage=f"{name} (shuffled)").values
        reached = sizes[np.isfinite(sizes)]
        bar = next(b for b in drawn[3:5] if b.get_label() == "shuffled network").patches[f]
        if len(reached):
            assert bar.get_y() + bar.get_height() == pytest.approx(100 * np.exp(np.log(reached).mean()))
        said = [t.get_text() for t in figure.axes[1].texts]
        assert sum(t.startswith("in ") or t == "no size is enough" for t in said) == sum(
            int(n) < 2 for n in modhook.compared(swept, **where)["reached"].sel(against="shuffled").values
        )
    assert "2 of 2 seeds" in next(t.get_text() for t in figure.texts if t.get_gid() == "note")


def test_the_ceiling_of_each_tensor_is_that_of_its_masks(alone: xr.DataTree) -> None:
    """IoU of one tensor's two masks, counted by hand; the figure draws its mean over seeds, with chance."""
    found = alone["seed_ceiling/parameter_iou"]
    for seed in (1, 2):
        for stage in ("low", "high"):
            one, other = (masks_from(alone, seed, label) for label in (stage, f"{stage} (mask seed 2)"))
            for name in one:
                expected = iou(one.select(name), other.select(name)) if (one[name] | other[name]).any() else np.nan
                np.testing.assert_allclose(float(found.sel(seed=seed, stage=stage, parameter=name)), expected)
    figure = SeedCeiling().draw([alone])
    bars = {c.get_label(): c for c in figure.axes[1].containers if hasattr(c, "patches")}
    np.testing.assert_allclose([p.get_height() for p in bars["low"].patches], found.sel(stage="low").mean("seed").values)


def test_parts_of_a_cube_are_those_of_its_masks(swept: xr.DataTree, alone: xr.DataTree) -> None:
    """Bars are means over the seeds of exclusive weights, counted by hand; several points have no one figure."""
    assert Parts().lacks([alone]) == ""
    assert "parts of one network" in Parts().lacks([swept])
    figure = Parts().draw([alone])
    counts = []
    for seed in (1, 2):
        low, high = (masks_from(alone, seed, stage) for stage in ("low", "high"))
        counts.append([(low - high).kept(), (high - low).kept(), (low & high).kept()])
    bars = next(c for c in figure.axes[1].containers if c.get_label() == "measured")
    assert sorted(p.get_height() for p in bars.patches) == pytest.approx(sorted(np.mean(counts, axis=0)))
    assert "mean over 2 seeds" in figure._supxlabel.get_text()
