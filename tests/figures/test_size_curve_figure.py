"""The figure of the size curve: its lines, marks and areas are the cube's numbers, for one seed and for several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure as MatplotlibFigure

from modhook.cube import Cube, Plan, create, open_cube
from modhook.plugin.manager import plugins
from modhook.plugin.variables import Variable
from modhook_plugins.figures.size_curve import SizeCurve

STAGES, SPLITS, POINTS = ["control", "add", "mul"], ["iid", "add", "mul"], 5
SIZES = np.array([0.01, 0.03, 0.1, 0.3, 1.0])


def made(path: Path, seeds: int, finished: int) -> xr.DataTree:
    """A cube with the analysis's own variables, of which some seeds are filled with random numbers."""
    installed = plugins()
    task = installed.load("tasks", "addmul")(None)
    variables = installed.load("analyses", "size_curve")(None).variables(task)
    accuracy = Variable("scores/accuracy", ("stage", "split"), "float64", "accuracy", attrs={"table": "percent"})
    labels = {
        "scores": {"stage": ["unmasked", *STAGES], "split": SPLITS},
        "size_curve": {"stage": STAGES, "split": SPLITS, "size_point": list(range(1, POINTS + 1))},
    }
    attrs = {"study": {"task": {"name": "addmul"}, "model": {"name": "fnn", "hidden": [4]}}}
    cube = create(path, Plan(attrs, {"seed": list(range(1, seeds + 1))}, (accuracy, *variables), labels))
    for seed in range(1, finished + 1):
        rng, run = np.random.default_rng(seed), {"seed": seed}
        cube.write("scores/accuracy", rng.random((4, 3)), run)
        _write(cube, run, rng)
    return open_cube(path)


def _write(cube: Cube, run: dict[str, Any], rng: np.random.Generator) -> None:
    cube.write("size_curve/density", np.broadcast_to(SIZES, (3, POINTS)).copy(), run)
    cube.write("size_curve/threshold", rng.uniform(0.05, 0.5, 3), run)
    for name, shape in (("score", (3, 3, POINTS)), ("complement", (3, 3, POINTS)), ("cpr", (3, 3)), ("cmd", (3, 3))):
        cube.write(f"size_curve/{name}", rng.random(shape), run)


def lines(axes: Any) -> dict[str, Any]:
    """The labelled lines of a panel."""
    return {line.get_label(): line for line in axes.lines}


def words(figure: MatplotlibFigure) -> str:
    """The line under a figure."""
    return next(t.get_text() for t in figure.texts if t.get_gid() == "note")


@pytest.mark.parametrize("seeds", [1, 3])
def test_panels_show_the_cubes_numbers(tmp_path: Path, seeds: int) -> None:
    """Each stage is on its own split: cut, complement, own mask, unmasked score and areas are means over the seeds."""
    tree = made(tmp_path / "c.zarr", seeds, seeds)
    figure = SizeCurve().draw([tree])
    curve, scores = tree["size_curve"].to_dataset().mean("seed"), tree["scores"]["accuracy"].mean("seed")
    for axes, stage, split in zip(figure.axes, STAGES, ("iid", "add", "mul"), strict=True):
        found, here = lines(axes), curve.sel(stage=stage, split=split)
        assert np.allclose(found["the cut"].get_xdata(), 100 * SIZES)
        assert np.allclose(found["the cut"].get_ydata(), 100 * here["score"])
        assert np.allclose(found["without the cut"].get_ydata(), 100 * here["complement"])
        assert found["without the cut"].get_linestyle() == "--"
        own, whole = (100 * float(scores.sel(stage=s, split=split)) for s in (stage, "unmasked"))
        assert found["the stage's own mask"].get_xdata()[0] == pytest.approx(
            100 * float(curve["threshold"].sel(stage=stage))
        )
        assert found["the stage's own mask"].get_ydata()[0] == pytest.approx(own)
        assert found["unmasked"].get_ydata()[0] == pytest.approx(whole)
        assert f"on {split}, CPR {float(here['cpr']):.2f}" in axes.get_title()
        assert len(axes.collections) == (2 if seeds > 1 else 0), "bands"
    assert figure.axes[0].get_ylabel() == "accuracy [%]"
    assert ("no spread" in words(figure)) == (seeds == 1)


def test_bands_are_the_deviation_over_seeds(tmp_path: Path) -> None:
    """The band around the cut's line reaches one standard deviation (n - 1) to each side; an unfinished seed plays no part."""
    tree = made(tmp_path / "c.zarr", 3, 2)
    figure = SizeCurve().draw([tree])
    values = 100 * tree["size_curve"]["score"].sel(stage="mul", split="mul", seed=[1, 2]).values
    band = figure.axes[2].collections[0].get_paths()[0].vertices
    mean, deviation = values.mean(0), values.std(0, ddof=1)
    for x, low, high in zip(100 * SIZES, mean - deviation, mean + deviation, strict=True):
        found = band[np.isclose(band[:, 0], x), 1]
        assert found.min() == pytest.approx(low)
        assert found.max() == pytest.approx(high)
    assert "mean of 2 of 3 seeds" in words(figure)


def test_two_networks_are_told_apart(tmp_path: Path) -> None:
    """Several cubes share the panels, each in its colour, with the network in the legend."""
    trees = [made(tmp_path / f"{name}.zarr", 1, 1) for name in ("one", "two")]
    figure = SizeCurve().draw(trees)
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert len(labels) == 8
    assert {label.partition(": ")[2] for label in labels} == {
        "the cut",
        "without the cut",
        "the stage's own mask",
        "unmasked",
    }
    inks = {line.get_color() for line in figure.axes[0].lines}
    assert len(inks) == 2
    cpr = float(trees[1]["size_curve"]["cpr"].sel(stage="add", split="add").mean())
    assert figure.axes[1].get_title().splitlines()[0] == "add on add"
    assert f"CPR {cpr:.2f}" in figure.axes[1].get_title().splitlines()[2]
