"""What makes figures comparable by eye: one scale per quantity, plain counts, true places, order, one name for the control."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure as MatplotlibFigure
from synthetic_cubes import synthetic_cube

from modhook.cube import open_cube
from modhook.plugin.manager import plugins
from modhook.report.drawing import applies, by_rank, missing_variables
from modhook_plugins.figures.scales import count_axes, count_text, one_scale

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    """An add/mul cube over two sizes and three betas, which the study does not sort."""
    overrides = ('"sweep.masks.beta"=[1e-3, 1e-5, 1e-4]', "analyses.operation_confusion={}", "analyses.mask_images={}")
    path = tmp_path_factory.mktemp("swept") / "beta.zarr"
    return open_cube(synthetic_cube(path, STUDIES / "addmul_beta.toml", overrides, 2))


def drawn(name: str, *cubes: xr.DataTree) -> MatplotlibFigure:
    """One of the installed figures."""
    figure: MatplotlibFigure = plugins().load("figures", name)().draw(list(cubes))
    return figure


@pytest.mark.parametrize("name", ["addmul_performance", "addmul_overlap", "kept_weights", "history"])
def test_panels_of_one_quantity_have_one_scale(name: str, swept: xr.DataTree) -> None:
    """A bar or point that is higher in one panel than in another stands for the larger number."""
    found: dict[str, set[Any]] = {}
    columns = 4 if name == "history" else 1  # its columns are quantities
    for i, axes in enumerate(a for a in drawn(name, swept).axes if a.axison):
        quantity = axes.get_title() if columns > 1 else axes.get_ylabel()
        found.setdefault(quantity, set()).add((*axes.get_ylim(), axes.get_yscale()))
        assert i < 24
    assert {len(limits) for limits in found.values()} == {1}


def test_no_panel_hides_what_another_one_shows() -> None:
    """The common scale reaches from the least to the largest of all panels; an empty panel plays no part."""
    one, two, empty = MatplotlibFigure().subplots(3)
    one.plot([0, 1], [-5, 2])
    two.plot([0, 1], [0, 40])
    empty.set_ylim(-1000, 1000)
    one_scale([one, two, empty])
    for axes in (one, two, empty):
        low, high = axes.get_ylim()
        assert -10 < low <= -5
        assert 40 <= high < 50


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "0.5"), (0.1, "0.1"), (1, "1"), (200, "200"), (5000, "5k"), (1.5e6, "1.5M"), (2e9, "2G")]
)
def test_counts_are_written_as_counts(value: float, text: str) -> None:
    """A mean of half a weight is 0.5, and no "500m"."""
    assert count_text(value) == text


def test_ticks_of_small_means() -> None:
    """Means over seeds that lie below one weight get ticks without a prefix, and all panels are logarithmic or none is."""
    every = list(MatplotlibFigure().subplots(2))
    every[0].plot([0, 1], [0.3, 0.9])
    every[1].plot([0, 1], [500, 70_000])
    count_axes(every, "y")
    assert [axes.get_yscale() for axes in every] == ["log", "log"]
    for axes in every:
        axes.figure.draw_without_rendering()
        for tick in axes.get_yticklabels():
            assert re.fullmatch(r"[\d.e-]+[kMG]?", tick.get_text())


def test_beta_is_a_number(swept: xr.DataTree) -> None:
    """Points lie at their beta, lines go from the smallest to the largest, in whatever order the study names them."""
    for axes in drawn("beta_sensitivity", swept).axes:
        assert axes.get_xscale() == "log"
        for container in (c for c in axes.containers if hasattr(c, "lines")):
            assert container.lines[0].get_xdata().tolist() == [1e-5, 1e-4, 1e-3]


def test_one_point_is_no_comparison(tmp_path: Path, swept: xr.DataTree) -> None:
    """A single beta, or a single size, gives no figure with a lone point; it is said what is needed."""
    one = synthetic_cube(tmp_path / "one.zarr", STUDIES / "quickstart.toml", ('"sweep.masks.beta"=[1e-4]',), 1)
    tree = open_cube(one)
    for name, needs in (("sharing_size", "several sizes"), ("beta_sensitivity", "sweeps masks.beta")):
        figure = plugins().load("figures", name)()
        assert needs in missing_variables(figure, [tree])
        assert not missing_variables(figure, [swept])


def test_results_come_before_diagnostics(swept: xr.DataTree) -> None:
    """What the study asks is drawn first, how the computation went last."""
    named = [(n, plugins().load("figures", n)()) for n in plugins().names("figures")]
    order = [name for name, figure in by_rank(named) if applies(figure, [swept])]
    assert order == [
        "addmul_performance",
        "beta_sensitivity",
        "sharing_size",
        "operation_confusion",
        "addmul_overlap",
        "kept_weights",
        "mask_images",
        "history",
    ]


def test_the_control_has_one_name(swept: xr.DataTree) -> None:
    """No figure calls the control's mask by a second name."""
    for name in plugins().names("figures"):
        figure = plugins().load("figures", name)()
        if applies(figure, [swept]):
            shown = figure.draw([swept])
            texts = [t.get_text() for t in shown.findobj(lambda artist: hasattr(artist, "get_text"))]
            assert any("control" in text for text in texts) or name in ("addmul_overlap", "sharing_size")
            for text in texts:
                assert not re.search(r"\b(full|whole|reference|baseline)\b", text), (name, text)
    for entry in plugins().entries("figures"):
        assert not re.search(r"\b(full|whole|reference|baseline)\b", entry.spec.summary), entry.spec.name


def test_deviations_at_one_place_are_all_seen(swept: xr.DataTree) -> None:
    """Bars of deviation at the same beta differ in width, so that the last does not hide the others."""
    for axes in drawn("beta_sensitivity", swept).axes:
        bars = [c.lines[2][0] for c in axes.containers if hasattr(c, "lines")]
        widths = [float(np.ravel(b.get_linewidth())[0]) for b in bars]
        assert widths == sorted(widths, reverse=True)
        assert len(set(widths)) == len(widths)


@pytest.mark.parametrize(("size", "said"), [(1_000_000, True), (5_000, False)])
def test_known_problems_are_said(size: int, said: bool, tmp_path: Path) -> None:
    """Accuracies on problems that all occur in training are not taken for accuracies on new ones."""
    path = synthetic_cube(tmp_path / "c.zarr", STUDIES / "quickstart.toml", (f"task.train_size={size}",), 1)
    texts = [t.get_text() for t in drawn("addmul_performance", open_cube(path)).texts]
    assert any("all problems occur in training" in text for text in texts) == said
