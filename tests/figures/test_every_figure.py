"""Every figure on cubes of the studies as published: half-finished, empty, of another study; and how long drawing takes."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.transforms import Bbox
from synthetic_cubes import synthetic_cube

from modhook.cube import open_cube
from modhook.plugin.manager import plugins
from modhook.report.drawing import applies, draw, missing_variables
from modhook_plugins.figures.networks import layer_labels, networks

STUDIES = Path(__file__).parents[2] / "studies"
SMALL: dict[str, tuple[str, ...]] = {
    "addmul_beta": (
        '"sweep.masks.beta"=[1e-5, 1e-3]',
        "analyses.mask_images={}",
        "analyses.operation_confusion={}",
        "analyses.size_curve={}",
        "analyses.layers={}",
        "controls.shuffled=true",
        "controls.untrained=true",
        "controls.random={draws=2}",
        "controls.seed_ceiling={seeds=2}",
    ),
    "tuple_fnn": (),
    "scan": (),
    "scan_baselines": (),
    "scan_transformer": ("analyses.heads={}",),
    "transfer": (),
    "cifar10_cnn": ('task.removed=["cat", "ship"]',),
    "cifar10_stability": ("task.pairs=2",),
    "cifar10_gradient_cosine": (),
}
if importlib.util.find_spec("mathematics_dataset") is not None:  # the extra `mathematics`
    SMALL["maths_sort"] = ()


@pytest.fixture(scope="module")
def cubes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], xr.DataTree]:
    """Return a study's cube of two seeds of which some are finished; made on first use."""
    folder, known = tmp_path_factory.mktemp("synthetic"), {}

    def cube(name: str, finished: int) -> xr.DataTree:
        if (name, finished) not in known:
            path = folder / f"{name}-{finished}.zarr"
            # The published data of maths_sort are not to be had everywhere, and scan has scan_transformer's other figures.
            variant = "smoke" if name in ("maths_sort", "scan_transformer") else None
            synthetic_cube(path, STUDIES / f"{name}.toml", SMALL[name], 2, (1, 2)[finished:], variant)
            known[name, finished] = open_cube(path)
        return known[name, finished]

    return cube


def note(figure: Any) -> str:
    """The line under a figure."""
    return next(t.get_text() for t in figure.texts if t.get_gid() == "note")


def written_over(figure: Any) -> list[tuple[str, str]]:
    """Pairs of texts within one panel of which more than a quarter lies under the other."""
    figure.draw_without_rendering()
    found = []
    for axes in figure.axes:
        for pair in itertools.combinations([t for t in axes.texts if t.get_text()], 2):
            a, b = (t.get_window_extent() for t in pair)
            common = Bbox.intersection(a, b)
            if common and common.width * common.height > 0.25 * min(a.width * a.height, b.width * b.height):
                found.append((pair[0].get_text(), pair[1].get_text()))
    return found


def applying(trees: Sequence[xr.DataTree]) -> dict[str, Any]:
    """Every installed figure that can be drawn from the cubes."""
    installed = plugins()
    made = {name: installed.load("figures", name)() for name in installed.names("figures")}
    return {name: figure for name, figure in made.items() if applies(figure, trees)}


def together(cubes: Callable[[str, int], xr.DataTree], name: str, finished: int) -> list[xr.DataTree]:
    """The cubes of a study's figures: SCAN's baselines are compared with SCAN."""
    return [cubes("scan", finished), cubes(name, finished)] if name == "scan_baselines" else [cubes(name, finished)]


def test_all_are_tried(cubes: Callable[[str, int], xr.DataTree]) -> None:
    """The studies of this file have the variables of every figure, but `parts`, which reads masks, and these have none."""
    found = {f for name in SMALL for f in applying(together(cubes, name, 1))}
    assert found | {"maths_hard", "parts"} == set(plugins().names("figures"))
    assert ("maths_hard" in found) == ("maths_sort" in SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_half_finished_and_empty_cubes_plot(name: str, cubes: Callable[[str, int], xr.DataTree]) -> None:
    """With one of two seeds there is no spread, with none a labelled gap; both are said, and nothing warns."""
    for figure in applying(together(cubes, name, 1)).values():
        drawn = figure.draw(together(cubes, name, 1))
        drawn.draw_without_rendering()
        assert "1 of 2" in note(drawn) or "seed 2 of 2" in note(drawn)
        assert "no spread" in note(drawn)
        empty = figure.draw(together(cubes, name, 0))
        assert "no run has finished yet" in note(empty)
        assert not written_over(empty)


@pytest.mark.parametrize("name", ["mask_histogram", "kept_weights", "half_mask"])
def test_missing_variables_name_the_cube_and_the_analysis(name: str, cubes: Callable[[str, int], xr.DataTree]) -> None:
    """The second of two cubes lacks the variable: that cube, the variable and the command that computes it are named."""
    figure = plugins().load("figures", name)()
    lacking = {"mask_histogram": "transfer", "kept_weights": "cifar10_stability", "half_mask": "transfer"}[name]
    analysis = "sharing" if name == "kept_weights" else name
    tree = cubes(lacking, 1)
    text = missing_variables(figure, [cubes("cifar10_cnn", 1), tree])
    path = tree.encoding["source"]
    assert figure.requires[0] in text
    assert text.endswith(f"run `modhook analyse {path} {analysis}`")
    unmasked = cubes("scan_baselines", 1)
    assert "no installed analysis writes that" in missing_variables(figure, [unmasked])
    foreign = xr.DataTree.from_dict({"/": xr.Dataset(attrs={"study": {"task": {"name": "of_another_package"}}})})
    assert "`modhook analyse the cube NAME` with the analysis that writes" in missing_variables(figure, [foreign])


def test_a_figure_applies_where_nothing_is_missing(cubes: Callable[[str, int], xr.DataTree]) -> None:
    """The quick question and the one that composes a remedy have one answer, for every figure and cube."""
    installed = plugins()
    for tree in (cubes("tuple_fnn", 1), cubes("scan_baselines", 1), cubes("transfer", 1)):
        for name in installed.names("figures"):
            figure = installed.load("figures", name)()
            assert applies(figure, [tree]) == (not missing_variables(figure, [tree])), name


def test_figures_that_compare_studies_say_what_they_need(cubes: Callable[[str, int], xr.DataTree]) -> None:
    """A wrong task, a missing sweep, a missing second study: each is said, with the study file to take."""
    load = plugins().load
    tree = cubes("tuple_fnn", 1)
    assert "for the task addmul, and that of" in missing_variables(load("figures", "addmul_overlap")(), [tree])
    scratch = missing_variables(load("figures", "scan_baselines")(), [cubes("scan", 1)])
    assert "studies/scan_baselines.toml" in scratch
    masks = missing_variables(load("figures", "scan_baselines")(), [cubes("scan_baselines", 1)])
    assert "studies/scan.toml" in masks


def test_labels_tell_networks_apart(cubes: Callable[[str, int], xr.DataTree]) -> None:
    """Points of a sweep are told apart by what differs; the same cube twice by number; a crowd is thinned and said so."""
    tree = cubes("addmul_beta", 1)
    found, left = networks([tree])
    assert [n.label for n in found] == [
        f"FNN {size}, beta {beta}" for size in ("800x4", "2000x4") for beta in ("1e-05", "0.001")
    ]
    assert left == ""
    few, left = networks([tree], limit=2)
    assert [n.label for n in few] == ["FNN 800x4, beta 1e-05", "FNN 2000x4, beta 0.001"]
    assert left == "2 of 4 networks"
    twice, _ = networks([cubes("scan", 1), cubes("scan", 1)])
    assert [n.label for n in twice] == ["LSTM (1)", "LSTM (2)"]


def test_layer_labels() -> None:
    """Names are shortened where that keeps them distinct."""
    names = [
        "encoder.0.self_attn.in_proj_weight",
        "decoder.weight_hh_l1",
        "conv1.weight",
        "conv1.bias",
        "a.weight",
        "a",
    ]
    assert layer_labels(names) == ["enc1 attn qkv", "dec layer 2 rec", "conv 1", "conv1 bias", "a.weight", "a"]


def test_ten_seeds_are_drawn_no_more_than_twice_per_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every figure of a study of ten seeds, once its layout is settled, is drawn at most twice for its file, be that PNG, SVG or PDF."""
    tree = open_cube(synthetic_cube(tmp_path / "ten.zarr", STUDIES / "addmul_fnn.toml"))
    draws: list[Any] = []
    drawing = MatplotlibFigure.draw
    monkeypatch.setattr(MatplotlibFigure, "draw", lambda self, *a, **k: draws.append(self) or drawing(self, *a, **k))
    figures = applying([tree])
    assert len(figures) >= 8
    for (name, figure), kind in zip(figures.items(), itertools.cycle(("png", "svg", "pdf")), strict=False):
        (file,) = draw(figure, [tree], tmp_path, name, (kind,), prepare=lambda _: draws.clear())
        assert file.stat().st_size > 5000
        assert len(draws) <= 2, name
