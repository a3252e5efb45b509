"""The trend of a sweep: what it draws beside the cube's numbers, and that no label breaks it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from modhook.cube import Cube, open_cube
from modhook.plotting.settings import defaults
from modhook.report.facts import Facts
from modhook.report.pictures import trend
from modhook.report.trend import Trend

VALUES = np.random.default_rng(3).uniform(size=(3, 4, 3))  # seed, stage, split
STAGES, SPLITS = ["unmasked", "control", "add", "mul"], ["iid", "add", "mul"]


def test_lines_are_means_over_seeds(make: Callable[..., Cube], tmp_path: Path) -> None:
    """Each stage on the split of its name, or else on the first; numbers in order, on a logarithmic axis where they span much."""
    cube = make(tmp_path / "c.zarr", VALUES, None, (0.1, 0.001, 0.01))
    cube.write("scores/accuracy", np.array([0.0, 1.0, 0.5]), {"seed": 2, "model.kind": 0.001}, stage="add")
    with open_cube(cube.path) as tree, defaults("x"):
        axes = Trend(Facts(tree, cube.path)).draw([tree]).axes[0]
    assert axes.get_xscale() == "log"
    lines = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    assert [str(line.get_label()) for line in lines] == ["unmasked, on iid", "control, on iid", "add, on add", "mul, on mul"]
    for i, line in enumerate(lines):
        values = VALUES[:, i, SPLITS.index(STAGES[i]) if STAGES[i] in SPLITS else 0]
        expected = np.full(3, 100 * values.mean())
        if STAGES[i] == "add":
            expected[0] = 100 * np.mean([values[0], 1.0, values[2]])
        assert list(line.get_xdata()) == [0.001, 0.01, 0.1]
        np.testing.assert_allclose(np.asarray(line.get_ydata(), dtype=float), expected, rtol=1e-12)


@pytest.mark.parametrize("text", ["$x^", "endless" * 60, "two\nlines", "<b>"])
def test_no_label_breaks_it(text: str, make: Callable[..., Cube], tmp_path: Path) -> None:
    """Labels of a study are words, whatever matplotlib or the page could take them for, and leave room for the figure."""
    with open_cube(make(tmp_path / "c.zarr", VALUES, None, ("a", text)).path) as tree:
        (picture,), failed = trend(Facts(tree, tmp_path))
    assert failed == []
    assert picture.markup is not None
    assert picture.height < 4 * picture.width
    assert "<b>" not in picture.markup


def test_without_a_sweep_there_is_none(make: Callable[..., Cube], tmp_path: Path) -> None:
    """One point has no trend."""
    with open_cube(make(tmp_path / "c.zarr", VALUES).path) as tree:
        assert trend(Facts(tree, tmp_path)) == ([], [])


def test_one_that_fails_is_said_so(make: Callable[..., Cube], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report is written all the same, with the reason."""

    def broken(self: Trend, cubes: object) -> None:
        raise KeyError("no reason")

    monkeypatch.setattr(Trend, "draw", broken)
    with open_cube(make(tmp_path / "c.zarr", VALUES, None, ("a", "b")).path) as tree:
        drawn, (failed,) = trend(Facts(tree, tmp_path))
    assert drawn == []
    assert failed.name == "sweep_trend"
    assert failed.reason.startswith("KeyError: 'no reason'")
