"""Tables of a sweep: one row per point, every number at its place, in every format."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from modhook.cube import Plan, create, open_cube
from modhook.plugin.variables import Variable
from modhook.tables import latex, markdown, print_tables, tables

SIZES, BETAS = ["800x4", "2000x4"], [1e-5, 1e-4, 1e-3]
STAGES, SPLITS = ["control", "add", "mul"], ["iid", "add"]
RNG = np.random.default_rng(0)
SCORES, INVERSE = RNG.random((2, 2, 3, 3, 2)), RNG.random((2, 2, 3, 3, 2))  # (seed, size, beta, stage, split)
HALF = RNG.random((2, 2, 3, 3, 3))
IOU = HALF + HALF.swapaxes(-1, -2)  # (seed, size, beta, stage, other), symmetric
DENSITY, SHARED = RNG.random((2, 2, 3, 3)), RNG.random((2, 2, 3, 3))


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    """A finished cube of two seeds at six sweep points."""
    percent = {"table": "percent"}
    complement = {**percent, "complement_of": "scores/accuracy"}
    number = {"table": "number"}
    values = [
        (Variable("scores/accuracy", ("stage", "split"), "float64", "d", attrs=percent), SCORES),
        (Variable("inverse/accuracy", ("stage", "split"), "float64", "d", attrs=complement), INVERSE),
        (Variable("overlap/iou_total", ("stage", "other"), "float64", "d", attrs=number), IOU),
        (Variable("overlap/density", ("stage",), "float64", "d", attrs=number), DENSITY),
        (Variable("overlap/shared", ("stage",), "float64", "d", attrs=number), SHARED),
    ]
    labels = {g: {"stage": STAGES, "split": SPLITS} for g in ("scores", "inverse")}
    labels["overlap"] = {"stage": STAGES, "other": STAGES}
    path = tmp_path_factory.mktemp("wide") / "c.zarr"
    run_dims = {"seed": [1, 2], "model.hidden": SIZES, "masks.beta": BETAS}
    made = create(path, Plan({}, run_dims, tuple(v for v, _ in values), labels))
    for variable, array in values:
        for at in np.ndindex(2, 2, 3):
            run = {"seed": at[0] + 1, "model.hidden": SIZES[at[1]], "masks.beta": BETAS[at[2]]}
            made.write(variable.name, array[at], run)
    return open_cube(path)


def shown(values: np.ndarray, scale: float, digits: int) -> str:
    """Mean and deviation of two seeds as they are printed."""
    a, b = (scale * v for v in values)
    return f"{(a + b) / 2:.{digits}f} ± {abs(a - b) / 2**0.5:.{digits}f}"


def test_one_table_with_a_row_per_point(cube: xr.DataTree) -> None:
    """Six points give one table per variable, with the points as rows in the study's order and every number at its place."""
    found = tables(cube)
    assert [t.title for t in found] == ["scores/accuracy (%)", "inverse/accuracy (%)", "overlap/iou_total: IoU of two masks", "overlap"]
    for table, values, before in ((found[0], SCORES, ""), (found[1], INVERSE, "not ")):
        assert table.corner == "model.hidden, masks.beta"
        assert table.spans == tuple((before + stage, 2) for stage in STAGES)
        assert table.columns == ("iid", "add") * 3
        assert [label for label, _ in table.rows] == [f"{h}, {b}" for h in SIZES for b in BETAS]
        for n, (_, cells) in enumerate(table.rows):
            here = values[:, n // 3, n % 3].reshape(2, 6)
            assert cells == tuple(shown(here[:, c], 100, 1) for c in range(6))


def test_a_symmetric_matrix_has_each_pair_once(cube: xr.DataTree) -> None:
    """Overlaps are the same both ways, and 1 with itself: three stages are three columns."""
    (table,) = tables(cube, "overlap/iou_total")
    assert table.heads == ("control: add", "control: mul", "add: mul")
    for n, (_, cells) in enumerate(table.rows):
        here = IOU[:, n // 3, n % 3]
        assert cells == tuple(shown(here[:, i, j], 1, 3) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_lists_of_numbers_share_a_table(cube: xr.DataTree) -> None:
    """Variables with one dimension of their own stand side by side under each of its labels, in words and units where they have them."""
    (table,) = tables(cube, "overlap/density")
    assert table.spans == tuple((stage, 2) for stage in STAGES)
    assert table.columns == ("weights kept (%)", "shared") * 3
    expected = [shown(v[:, 1, 2, s], *as_) for s in range(3) for v, as_ in ((DENSITY, (100, 1)), (SHARED, (1, 3)))]
    assert table.rows[-1][1] == tuple(expected)


def test_a_terminal_gets_pieces_that_fit(cube: xr.DataTree) -> None:
    """In 80 columns no number is cut or wrapped: the table goes on below itself, with the points beside each piece."""
    file = io.StringIO()
    print_tables(tables(cube, "scores"), Console(file=file, width=80, force_terminal=True, color_system=None))
    text = file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("2000x4, 0.001") == 2
    for n in np.ndindex(2, 3, 3, 2):
        assert shown(SCORES[(slice(None), *n)], 100, 1) in text
    wide = io.StringIO()
    print_tables(tables(cube, "scores"), Console(file=wide, width=20))
    assert wide.getvalue().count("2000x4, 0.001") == 1, "a file or a pipe gets the table whole"


def test_markdown_and_latex(cube: xr.DataTree) -> None:
    """Markdown says both labels in one, LaTeX has a line above with rules; all rows have as many cells as the head."""
    found = tables(cube, "scores")
    head, _, *rows = [line for line in markdown(found).splitlines() if line.startswith("|")]
    assert (
        head == "| model.hidden, masks.beta | control: iid | control: add | add: iid | add: add | mul: iid | mul: add |"
    )
    assert {row.count("|") for row in rows} == {8}
    text = latex(found)
    assert r"& \multicolumn{2}{c}{control} & \multicolumn{2}{c}{add} & \multicolumn{2}{c}{mul} \\" in text
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-5} \cmidrule(lr){6-7}" in text
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert [len(re.findall(r"(?<!\\)&", line)) for line in lines] == [3] + [6] * 7
