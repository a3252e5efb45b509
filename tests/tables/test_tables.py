"""Tables in all formats: their numbers recomputed, labels with signs that formats use themselves, and what is chosen."""

from __future__ import annotations

import csv
import html
import io
import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from markdown_it import MarkdownIt
from rich.console import Console

from modhook.cli import main
from modhook.cube import Plan, create, open_cube
from modhook.errors import UserError
from modhook.plugin.variables import Variable
from modhook.tables import as_csv, latex, markdown, print_tables, table_names, tables

NASTY = "a_b|c&d 100% $x$ {y} #1 *z* <b>~^\\"
STAGES = ["control", NASTY]
SPLITS = ["iid", "ad_d"]
RNG = np.random.default_rng(0)
SCORES, INVERSE = RNG.random((3, 2, 2)), RNG.random((3, 2, 2))  # (seed, stage, split)
SHARES, COUNTS = RNG.random((3, 2, 2, 3)), RNG.random((3, 2)) * 1e6  # (seed, stage, true, said), (seed, stage)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cube of three seeds, the last without a second stage, with variables of every shape that is tabulated."""
    percent = {"table": "percent"}
    variables = (
        Variable("scores/accuracy", ("stage", "split"), "float64", "d", attrs=percent),
        Variable(
            "inverse/accuracy",
            ("stage", "split"),
            "float64",
            "d",
            attrs={**percent, "complement_of": "scores/accuracy"},
        ),
        Variable("confusion/share", ("stage", "true", "said"), "float64", "d", attrs=percent),
        Variable("kept/count", ("stage",), "float64", "d", units="weights", attrs={"table": "number"}),
        Variable("kept/plain", ("stage",), "float64", "not tabulated"),
    )
    own = {"stage": STAGES}
    labels = {
        "scores": {**own, "split": SPLITS},
        "inverse": {**own, "split": SPLITS},
        "confusion": {**own, "true": ["x", "y"], "said": ["x", "y", "none"]},
        "kept": own,
    }
    where = tmp_path_factory.mktemp("tables") / "c.zarr"
    made = create(where, Plan({"study": {}}, {"seed": [1, 2, 3], "masks.beta": [1e-5]}, variables, labels))
    for i in range(3):
        for j, stage in enumerate(STAGES):
            if (i, j) != (2, 1):
                run = {"seed": i + 1, "masks.beta": 1e-5}
                made.write("scores/accuracy", SCORES[i, j], run, stage=stage)
                made.write("inverse/accuracy", INVERSE[i, j], run, stage=stage)
                made.write("confusion/share", SHARES[i, j], run, stage=stage)
                made.write("kept/count", COUNTS[i, j], run, stage=stage)
    return where


@pytest.fixture
def cube(path: Path) -> xr.DataTree:
    """The cube, opened."""
    return open_cube(path)


def shown(values: np.ndarray, scale: float = 100, digits: int = 1) -> str:
    """Mean and standard deviation as they are printed."""
    return f"{scale * values.mean():.{digits}f} ± {scale * values.std(ddof=1):.{digits}f}"


def test_rows_of_masks_and_their_inverses(cube: xr.DataTree) -> None:
    """The table of inverse scores has each stage's own score above that of its inverse, over the seeds that have one."""
    (table,) = tables(cube, "inverse")
    assert [label for label, _ in table.rows] == ["control", "not control", NASTY, f"not {NASTY}"]
    expected = [shown(SCORES[:, 0, 1]), shown(INVERSE[:, 0, 1])]
    expected += [f"{shown(values[:2, 1, 1])} (2 of 3)" for values in (SCORES, INVERSE)]
    assert [cells[1] for _, cells in table.rows] == expected
    assert table.note == "2 to 3 of 3 seeds; mean ± standard deviation"
    assert table.title == "inverse/accuracy at masks.beta = 1e-05 (%)"


def test_one_matrix_per_further_dimension(cube: xr.DataTree) -> None:
    """Three own dimensions give one matrix for each label of the first."""
    first, second = tables(cube, "confusion/share")
    assert first.title == "confusion/share at masks.beta = 1e-05, stage control (%)"
    assert [cells for _, cells in first.rows] == [tuple(shown(SHARES[:, 0, t, s]) for s in range(3)) for t in range(2)]
    assert [cells for _, cells in second.rows] == [
        tuple(shown(SHARES[:2, 1, t, s]) for s in range(3)) for t in range(2)
    ]


def test_csv_has_every_number_in_full(cube: xr.DataTree) -> None:
    """Mean, standard deviation (n - 1) and n of every tabulated variable, exact, in its own unit; labels as they are."""
    rows = list(csv.DictReader(io.StringIO(as_csv(cube))))
    assert list(rows[0]) == ["variable", "masks.beta", "stage", "split", "true", "said", "mean", "std", "n", "unit"]
    assert len(rows) == 4 + 4 + 12 + 2
    for row in rows:
        j = STAGES.index(row["stage"])
        seeds = slice(3 if j == 0 else 2)
        if row["variable"] == "kept/count":
            values, unit = COUNTS[seeds, j], "weights"
            assert (row["split"], row["true"]) == ("", "")
        elif row["variable"] == "confusion/share":
            values, unit = SHARES[seeds, j, "xy".index(row["true"]), ["x", "y", "none"].index(row["said"])], "1"
        else:
            values = (SCORES if row["variable"] == "scores/accuracy" else INVERSE)[seeds, j, SPLITS.index(row["split"])]
            unit = "1"
        assert float(row["mean"]) == pytest.approx(values.mean(), rel=1e-15)
        assert float(row["std"]) == pytest.approx(values.std(ddof=1), rel=1e-12)
        assert (int(row["n"]), row["unit"], float(row["masks.beta"])) == (len(values), unit, 1e-5)


def test_csv_of_seeds_that_are_missing(tmp_path: Path) -> None:
    """Without a value the mean is empty, and with one the standard deviation."""
    variable = Variable("scores/accuracy", ("stage", "split"), "float64", "d", attrs={"table": "percent"})
    labels = {"scores": {"stage": ["a", "b"], "split": ["s"]}}
    made = create(tmp_path / "c.zarr", Plan({}, {"seed": [1, 2]}, (variable,), labels))
    made.write("scores/accuracy", np.array([0.25]), {"seed": 2}, stage="a")
    assert as_csv(open_cube(tmp_path / "c.zarr")).splitlines() == [
        "variable,stage,split,mean,std,n,unit",
        "scores/accuracy,a,s,0.25,,1,1",
        "scores/accuracy,b,s,,,0,1",
    ]


def test_markdown_shows_labels_as_they_are(cube: xr.DataTree) -> None:
    """A Markdown reader gives back the very labels and cells, and takes none of them for markup."""
    read = MarkdownIt("commonmark").enable("table").render(markdown(tables(cube)))
    found = [
        [[html.unescape(c) for c in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)] for row in block]
        for block in (re.findall(r"<tr>(.*?)</tr>", part, re.DOTALL) for part in read.split("<table>")[1:])
    ]
    expected = [[[t.corner, *t.columns], *([label, *cells] for label, cells in t.rows)] for t in tables(cube)]
    assert found == expected
    assert "<em>" not in read
    assert "<b>" not in read


def test_latex_is_escaped(cube: xr.DataTree) -> None:
    """Every sign that LaTeX takes for a command is escaped, and each row has as many cells as the head."""
    text = latex(tables(cube, "inverse"))
    assert r"a\_b\textbar{}c\&d 100\% \$x\$ \{y\} \#1 *z* \textless{}b\textgreater{}\textasciitilde{}" in text
    assert r"\textasciicircum{}\textbackslash{} &" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [2] * 5
    assert shown(SCORES[:, 0, 0]).replace("±", r"$\pm$") in rows[1]
    assert text.count(r"\begin{tabular}{lrr}") == text.count(r"\end{tabular}") == 1
    body = text.replace("% needs", "")
    assert not re.search(r"(?<!\\)[#%_~^]", body), "no bare sign is left"


def test_a_pipe_gets_whole_tables(cube: xr.DataTree) -> None:
    """What is no terminal is not cut at 80 columns."""
    file = io.StringIO()
    print_tables(tables(cube), Console(file=file, width=20))
    assert "…" not in file.getvalue()
    assert NASTY in file.getvalue()
    assert shown(SHARES[:, 0, 0, 2]) in file.getvalue()


def test_names(cube: xr.DataTree) -> None:
    """Groups and variables can be asked for; a name that is neither is an error with the valid ones."""
    assert table_names(cube) == [
        "scores",
        "scores/accuracy",
        "inverse",
        "inverse/accuracy",
        "confusion",
        "confusion/share",
        "kept",
        "kept/count",
    ]
    assert [t.title for t in tables(cube, "kept/count")] == ["kept at masks.beta = 1e-05"]
    with pytest.raises(UserError, match=r"no table 'scroes' \(did you mean 'scores'\?\); this cube has: scores, "):
        tables(cube, "scroes")
    with pytest.raises(UserError, match=r"no table 'kept/plain'"):
        as_csv(cube, "kept/plain")


@pytest.mark.parametrize("kind", ["text", "markdown", "csv", "latex"])
def test_the_command_prints_what_the_functions_give(path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    """`modhook show --format` writes the tables, and nothing else, to standard output."""
    with pytest.raises(SystemExit) as stop:
        main(["show", str(path), "--format", kind, "--table", "scores"])
    out, err = capfd.readouterr()
    assert (stop.value.code, err) == (0, "")
    with open_cube(path) as tree:
        if kind == "text":
            assert "scores/accuracy at masks.beta = 1e-05 (%)" in out
            assert "inverse" not in out
        else:
            found = tables(tree, "scores")
            assert out == {"csv": as_csv(tree, "scores"), "markdown": markdown(found), "latex": latex(found)}[kind]
