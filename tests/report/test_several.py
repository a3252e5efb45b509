"""A report on several cubes: every number beside plain numpy on the opened cubes, and one sentence for what cannot be compared."""

from __future__ import annotations

import html
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from tiny_study import STUDY

import modhook
from modhook import Tracker
from modhook.cube import Cube, Plan, create, open_cube, open_for_writing, pack
from modhook.errors import CubeError, UserError
from modhook.plugin.manager import KINDS, Plugins, plugins
from modhook.plugin.variables import Variable
from modhook.report import report_path, write_report
from modhook.report.settings import settings
from modhook.report.sides import sides
from modhook.run import run_study
from modhook.study import load

T_OF_ONE = 12.706204736174698
"""The quantile of Student's T with one degree of freedom at 97.5 %, from a table."""
DASH = "\N{EN DASH}"


def computed(folder: Path, *overrides: str, variant: str | None = "one", text: str = STUDY) -> Path:
    """Compute the small study with other settings, and return its cube."""
    file = folder / "tiny.toml"
    file.write_text(text)
    return run_study(load(file, variant=variant, overrides=overrides, plugins=plugins()), folder, plugins(), Tracker()).path


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds, and what is left without each mask's own weights."""
    text = STUDY.replace("[sweep]", "own_removed = { draws = 1 }\n[sweep]")
    return computed(tmp_path_factory.mktemp("first"), "study.seeds=2", text=text)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same networks, one seed more, and masks that are learned otherwise."""
    return computed(tmp_path_factory.mktemp("second"), "study.seeds=3", "masks.lr=2.0", "masks.samples=4")


@pytest.fixture(scope="module")
def page(first: Path, second: Path, no_figures: Plugins, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report on both, without figures."""
    return reported([first, second], no_figures, tmp_path_factory.mktemp("page"))


def reported(cubes: list[Path], installed: Plugins, folder: Path) -> str:
    """The page on these cubes."""
    return write_report(cubes, folder / "r.html", installed).read_text(encoding="utf-8")


def section(page: str, name: str) -> str:
    """The HTML of one section."""
    found = re.search(rf'<section[^>]* aria-labelledby="{name}">.*?</section>', page, re.DOTALL)
    assert found is not None, name
    return found[0]


def rows(text: str) -> dict[tuple[str, ...], list[str]]:
    """Cells of every row of the tables in a text, by the row's labels; a label that stands over several rows is each one's."""
    found, over = {}, ""
    for row in re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL):
        if re.search(r'scope="col"', row):
            continue
        labels = [plain(x) for x in re.findall(r"<th[^>]*>(.*?)</th>", row, re.DOTALL)]
        over = labels.pop(0) if 'scope="rowgroup"' in row else over
        found[tuple(filter(None, (over, *labels)))] = [plain(x) for x in re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)]
    return found


def plain(text: str) -> str:
    """The words of a piece of HTML."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def bits(cube: Path, seed: int, stage: str) -> dict[str, Any]:
    """The masks of a run as the cube's bytes have them, {parameter: bool (weights,)}."""
    with xr.open_datatree(cube, engine="zarr", chunks=None) as tree:
        layout = tree["masks/layout0"]
        packed = np.asarray(layout["bits"].sel(seed=seed, stage=stage).values)
        flat = np.unpackbits(packed).astype(bool)
        found = {}
        for i, name in enumerate(layout["parameter"].values):
            start, count = int(layout["mask_offset"][i]), int(layout["count"][i])
            if int(layout["masked"][i]):
                found[str(name)] = flat[start : start + count]
        return found


def chance_of(sizes: list[tuple[int, int, int]]) -> float:
    """E |A and B| / |A or B| for random masks, (weights, kept, kept) per tensor: a sum over every number of weights in common."""
    law = np.ones(1)
    for n, a, b in sizes:
        whole = math.comb(n, b)
        law = np.convolve(law, [math.comb(a, k) * math.comb(n - a, b - k) / whole for k in range(min(a, b) + 1)])
    both, kept = np.arange(len(law)), sum(a + b for _, a, b in sizes)
    return float((law * both / (kept - both)).sum())


def test_scores_stand_side_by_side(page: str, first: Path, second: Path) -> None:
    """Each number is the mean over the cube's seeds, with Student's interval of the mean between 0 and 1, and the number of seeds."""
    table = rows(section(page, "scores"))
    for path, column, n in ((first, 0, 2), (second, 1, 3)):
        with xr.open_datatree(path, engine="zarr", chunks=None) as tree:
            every = {"": tree["scores/accuracy"].load(), "not ": tree["inverse/accuracy"].load()}
        for prefix, scores in every.items():
            for stage in scores["stage"].values:
                for split in scores["split"].values:
                    values = scores.sel(stage=stage, split=split).values
                    text = table[f"{prefix}{stage}", str(split)][column]
                    assert text.startswith(f"{100 * values.mean():.1f} ")
                    assert text.endswith(f"n {n}")
                    if n == 2:
                        half = T_OF_ONE * values.std(ddof=1) / math.sqrt(2)
                        low, high = max(0, values.mean() - half), min(1, values.mean() + half)
                        assert f" {100 * low:.1f}{DASH}{100 * high:.1f} " in text
    kept = [np.concatenate(list(bits(second, s, "add").values())).mean() for s in (1, 2, 3)]
    digits = 0 if np.mean(kept) >= 0.095 else 1
    assert table["add", "weights kept [%]"][1].startswith(f"{100 * np.mean(kept):.{digits}f} ")
    assert table["add", "weights kept [%]"][1].endswith("n 3")


def test_overlaps_are_those_of_the_bits(page: str, first: Path, second: Path) -> None:
    """IoU and chance of every mask of the one with every mask of the other: mean over the seeds in common, from the cubes' bytes."""
    text = section(page, "overlaps")
    table = rows(text)
    stages = ("control", "add", "mul")
    for ours in stages:
        for theirs, cell in zip(stages, table[ours,], strict=True):
            found, expected = [], []
            for seed in (1, 2):
                a, b = bits(first, seed, ours), bits(second, seed, theirs)
                both = sum(int((a[n] & b[n]).sum()) for n in a)
                found.append(both / sum(int((a[n] | b[n]).sum()) for n in a))
                if ours == "add":
                    expected.append([(len(a[n]), int(a[n].sum()), int(b[n].sum())) for n in a])
            assert cell.startswith(f"{np.mean(found):.3f} ")
            assert cell.endswith("n 2")
            if ours == theirs == "add":
                assert f"chance {np.mean([chance_of(s) for s in expected]):.3f}, n 2" in cell
    assert "of one trained network" in plain(text), "base training is the same"


def test_settings_that_differ_are_one_table(page: str, first: Path) -> None:
    """Settings that differ stand side by side, and those that agree are told once; an analysis that one lacks is a dash."""
    text = section(page, "settings")
    differ, _, agree = text.partition("<details>")
    assert {key: row for key, row in rows(differ).items() if key != ("computed: date",)} == {  # midnight may lie between them
        ("study.seeds",): ["2", "3"],
        ("masks.samples",): ["2", "4"],
        ("masks.lr",): ["0.8", "2.0"],
        ("analyses",): ["inverse, own_removed, sharing", "inverse, sharing"],
        ("analyses.own_removed.draws",): ["1", DASH],
    }
    for shown in ("train.steps 6", "version of torch", "data: train", "model.hidden [12, 8]"):
        assert shown in plain(agree)
        assert shown not in plain(differ)
    assert "masks.lr" not in plain(agree)
    with open_cube(first) as tree:
        assert tree.attrs["data"]["0"]["train"] in plain(agree)


def test_verdicts_stand_side_by_side(page: str) -> None:
    """A study with something to compare with has a row per function; one without says that it has none."""
    text = section(page, "verdicts")
    assert set(rows(text)) == {("add", "tiny-one (1)"), ("mul", "tiny-one (1)")}
    assert all(len(cells) == 6 for cells in rows(text).values())
    assert "tiny-one (2) has no verdicts: no controls to compare with." in plain(text)


def test_a_sweep_beside_a_study_of_one_of_its_points(real: Path, one: Path, no_figures: Plugins, tmp_path: Path) -> None:
    """Points that are the same setting are compared, swept or not: here the same run, whose masks are equal."""
    page = reported([real, one], no_figures, tmp_path)
    text = section(page, "overlaps")
    assert "At masks.beta = 0.0001." in plain(text)
    assert [cells[i].split()[0] for i, cells in enumerate(rows(text).values())] == ["1.000"] * 3
    assert "1 of 2 settings of masks.beta are in one of the studies alone." in plain(text)
    heads = [plain(x) for x in re.findall(r'<th scope="col">(.*?)</th>', section(page, "scores"))]
    assert heads[2:] == ["tiny, masks.beta = 0.0001", "tiny, masks.beta = 0.001", "tiny-one"]
    assert ("masks.beta",) in rows(section(page, "settings"))


def test_many_points_have_a_row_each(make: Callable[..., Cube], tmp_path: Path, no_figures: Plugins) -> None:
    """Two sweeps of five points are ten rows, with the numbers under their stages and splits."""
    kinds = ("a", "b", "c", "d", "e")
    for name, value in (("x", 0.25), ("y", 0.5)):
        make(tmp_path / f"{name}.zarr", np.full((1, 4, 3), value), None, kinds)
    page = reported([tmp_path / "x.zarr", tmp_path / "y.zarr"], no_figures, tmp_path)
    table = rows(section(page, "scores"))
    assert len(table) == 10
    assert table["y, model.kind = c",] == ["50.0"] * 12
    assert "n 1" in plain(section(page, "scores"))
    assert "neither study has masks" in plain(section(page, "overlaps"))


def test_networks_of_other_shapes(first: Path, tmp_path: Path, no_figures: Plugins) -> None:
    """Where only some parameters have one shape, those alone are counted and named; where none has, a sentence says so."""
    (tmp_path / "wider").mkdir()
    (tmp_path / "lstm").mkdir()
    wider = computed(tmp_path / "wider", "model.hidden=[12,9]")
    text = section(reported([first, wider], no_figures, tmp_path), "overlaps")
    a, b = bits(first, 1, "mul"), bits(wider, 1, "mul")
    with open_cube(first) as one, open_cube(wider) as two:
        shapes = [dict(zip(t["masks/layout0/parameter"].values, t["masks/layout0/shape"].values, strict=True)) for t in (one, two)]
    same = [n for n in a if shapes[0][n] == shapes[1].get(n)]
    assert 0 < len(same) < len(a)
    iou = sum(int((a[n] & b[n]).sum()) for n in same) / sum(int((a[n] | b[n]).sum()) for n in same)
    assert rows(text)["mul",][2].startswith(f"{iou:.3f} ")
    assert f"Over {same[0]}" in plain(text)
    assert "trained to other weights" in plain(text)
    lstm = computed(tmp_path / "lstm", variant="one", text=STUDY.replace('"fnn"\nhidden = [12, 8]', '"lstm"\nhidden = 5'))
    text = section(reported([first, lstm], no_figures, tmp_path), "overlaps")
    assert "Nothing to compare: no masked parameter has one name and shape in both" in plain(text)
    assert rows(text) == {}


def test_packs_and_cubes_of_another_version(first: Path, second: Path, page: str, tmp_path: Path, no_figures: Plugins) -> None:
    """A pack has the same numbers; without weights it is not known whether the networks are the same. Versions are settings, too."""
    packed = pack(second, tmp_path / "tiny-one.zip").path
    other = reported([first, packed], no_figures, tmp_path)
    for name in ("scores", "verdicts", "settings"):
        assert section(other, name) == section(page, name)
    assert rows(section(other, "overlaps")) == rows(section(page, "overlaps"))
    assert "is not known" in plain(section(other, "overlaps"))
    with open_cube(first) as tree, open_cube(packed) as old:
        old.attrs["versions"] = {"modhook": "0.0.9", "torch": tree.attrs["versions"]["torch"]}
        told = dict(settings(sides([(tree, first), (old, packed)])).differ)
    assert told["version of modhook"] == (modhook.__version__, "0.0.9")
    assert told["version of python"][1] == DASH
    assert "version of torch" not in told


def test_an_unfinished_study_is_said_so(first: Path, second: Path, tmp_path: Path, no_figures: Plugins) -> None:
    """Its finished stages are compared, the others are dashes, and a sentence says how many are done."""
    copy = tmp_path / "part.zarr"
    shutil.copytree(first, copy)
    cube = open_for_writing(copy)
    for run in cube.runs():
        cube.forget(run, ["mul"])
    page = reported([copy, second], no_figures, tmp_path)
    assert "part is not finished: 6 of 8 stages done" in plain(section(page, "findings"))
    table = rows(section(page, "scores"))
    assert table["mul", "iid"][0] == DASH
    assert table["mul", "iid"][1] != DASH
    assert rows(section(page, "overlaps"))["mul",] == [DASH] * 3


def test_mistakes_are_one_sentence_and_write_nothing(
    first: Path, make: Callable[..., Cube], tmp_path: Path, no_figures: Plugins
) -> None:
    """The same cube twice, however it is written; one in which nothing is done; one that has no score in common; no cube at all."""
    (tmp_path / "link.zarr").symlink_to(first)
    empty = make(tmp_path / "empty.zarr", np.full((1, 4, 3), np.nan)).path
    foreign = tmp_path / "foreign.zarr"
    told = Variable("scores/bleu", ("stage", "split"), "float64", "b", attrs={"table": "number"})
    made = create(foreign, Plan({}, {"seed": [1]}, (told,), {"scores": {"stage": ["unmasked"], "split": ["long"]}}))
    made.write("scores/bleu", np.array([0.5]), {"seed": 1}, stage="unmasked")
    made.set_status({"seed": 1}, "unmasked", "done")
    before = {p.name for p in tmp_path.iterdir()}
    cases: list[tuple[list[Any], type[Exception], str]] = [
        ([first, first], UserError, "is given twice; name each cube once"),
        ([first, str(first) + "/"], UserError, "is given twice"),
        ([first, tmp_path / "link.zarr"], UserError, f"is given twice, the same as {re.escape(str(first))}"),
        ([first, first.parent / ".." / first.parent.name / first.name], UserError, "is given twice"),
        ([first, f"file://{first}"], UserError, "is given twice"),
        ([first, empty], CubeError, r"empty\.zarr has no finished stage yet"),
        ([first, foreign], CubeError, "cannot be compared with the others: it has accuracy on .*, and they have bleu on long"),
        ([first, tmp_path / "none.zarr"], CubeError, "there is no cube"),
        ([], UserError, "a report needs a cube"),
    ]
    for cubes, error, text in cases:
        with pytest.raises(error, match=text) as raised:
            write_report(cubes, tmp_path / "r.html", no_figures)
        assert "\n" not in str(raised.value)
    assert {p.name for p in tmp_path.iterdir()} == before


def test_figures_of_both_together_and_of_each(first: Path, real: Path, no_figures: Plugins, tmp_path: Path) -> None:
    """A figure that applies is drawn of all cubes together and of each; nothing of where the cubes lie gets into the file."""
    entries = [e for kind in KINDS if kind != "figures" for e in no_figures.entries(kind)]
    few = Plugins([*entries, plugins().find("figures", "addmul_performance")], ())
    page = reported([first, real], few, tmp_path)
    assert page.count('class="figures"') == page.count("<code>addmul_performance</code>") == 3
    assert page.index('id="figures"') < page.index('id="study-1"') < page.index('id="study-2"')
    assert str(first.parent) not in page
    assert reported([first, real], few, tmp_path) == page


def test_command_and_call(make: Callable[..., Cube], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`modhook report A B` and `modhook.report([A, B])` write one file, beside the first cube and called after all."""
    from modhook.cli import main

    cubes = [str(make(tmp_path / f"{name}.zarr", np.full((2, 4, 3), 0.5)).path) for name in ("a", "b")]
    with pytest.raises(SystemExit) as stop:
        main(["report", *cubes])
    out, err = capfd.readouterr()
    path = tmp_path / "a-and-b-report.html"
    assert (stop.value.code, out, err) == (0, f"{path}\n", "")
    call: Any = modhook.report
    assert call(cubes, out=tmp_path / "called.html").read_bytes() == path.read_bytes()
    many = [tmp_path / f"{'long' * 12}{i}.zarr" for i in range(4)]
    assert report_path(many).name == f"{many[0].stem}-and-3-others-report.html"
    assert report_path(cubes[0]) == tmp_path / "a-report.html"
