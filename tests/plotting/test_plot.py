"""`modhook.plot`: every figure shows the numbers that it is given, says what it cannot draw, and leaves pyplot and settings alone."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure
from torch import Tensor, nn

import modhook
from modhook import Fit, Masks, UserError

FUNCTIONS = {
    "add": Masks({"a": torch.tensor([1, 1, 1, 0, 0, 0]).bool(), "b": torch.tensor([1, 0]).bool()}),
    "mul": Masks({"a": torch.tensor([0, 1, 1, 1, 0, 0]).bool(), "b": torch.tensor([1, 0]).bool()}),
    "max": Masks({"a": torch.tensor([0, 0, 0, 0, 0, 1]).bool(), "b": torch.tensor([0, 1]).bool()}),
}


@pytest.fixture(scope="module")
def fit() -> Fit:
    """A short fit."""
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    x = torch.randn(8, 4)

    def loss(net: Any, batch: Any) -> Tensor:
        return nn.functional.mse_loss(net(batch[0]), batch[1])

    batch = (x, model(x).detach())
    return modhook.fit_masks(model, [batch], loss, samples=2, steps=9, lr=0.5, progress=False)


def bars(axes: Any, way: str = "get_height") -> list[float]:
    """Lengths of a panel's bars."""
    return [getattr(p, way)() for c in axes.containers for p in c.patches]


def words(figure: Figure) -> str:
    """Everything that a figure says."""
    texts = [t.get_text() for t in figure.findobj(mpl.text.Text)]
    return "\n".join(texts)


def test_density_bars_are_the_shares() -> None:
    """One bar per tensor and function, as long as the share that is kept, in percent; the whole is in the title or legend."""
    figure = modhook.plot(FUNCTIONS["add"])
    assert bars(figure.axes[0], "get_width") == pytest.approx([50, 50])
    assert "Weights kept: 50 % in all" in words(figure)
    several = modhook.plot(FUNCTIONS)
    assert bars(several.axes[0], "get_width") == pytest.approx([50, 50, 50, 50, 100 / 6, 50])
    assert "max: 25 % in all" in words(several)
    many = Masks({f"layer{i}": torch.arange(4) < i % 4 for i in range(90)})
    line = modhook.plot.density(many).axes[0].lines[0]
    assert line.get_ydata().tolist() == [25.0 * (i % 4) for i in range(90)]


def test_a_fit_is_its_history(fit: Fit) -> None:
    """The lines are the recorded numbers, the same from a fit and from its history, and the size is said."""
    for given in (fit, fit.history):
        figure = modhook.plot(given)
        by_title = {a.get_title(): a.lines[0] for a in figure.axes}
        assert np.allclose(by_title["loss"].get_ydata(), fit.history["loss"])
        assert np.allclose(by_title["weights kept [%]"].get_ydata(), 100 * fit.history["density"])
        assert np.allclose(by_title["gradient norm"].get_ydata(), fit.history["gradient_norm"])
    assert f"of {fit.masks.size} weights kept" in words(modhook.plot(fit))


def test_a_curve_is_score_against_size(fit: Fit) -> None:
    """Score and complement over the share kept in percent, threshold, unmasked score and areas where the curve has them."""
    batch = torch.ones(2, 4)
    curve = fit.curve([batch], lambda net, x: net(x)[:, 0].detach(), points=4)
    figure = modhook.plot(curve)
    cut, rest, *others = figure.axes[0].lines
    assert np.allclose(cut.get_xdata(), 100 * curve["density"])
    assert np.allclose(cut.get_ydata(), curve["score"])
    assert np.allclose(rest.get_ydata(), curve["complement"])
    assert rest.get_linestyle() == "--"
    places = {o.get_label(): (o.get_xdata()[0], o.get_ydata()[0]) for o in others}
    assert places["unmasked"][1] == curve.attrs["unmasked"]
    assert places["the sampler's threshold"][0] == pytest.approx(100 * curve.attrs["threshold"])
    assert f"CPR {curve.attrs['cpr']:.3f}, CMD {curve.attrs['cmd']:.3f}" in words(figure)


def test_parts_are_bars_over_their_functions() -> None:
    """Bars, marks of chance and joined dots are those of the dataset, by the number of functions; few of many are said."""
    data = modhook.parts(FUNCTIONS)
    for given in (data, FUNCTIONS):
        figure = modhook.plot.parts(given)
        _, panel, sizes, dots = figure.axes
        order = sorted(range(7), key=lambda i: (int(data["degree"][i]), -int(data["exclusive"][i])))
        assert bars(panel) == data["exclusive"].values[order].tolist()
        marks = [s[0][1] for s in panel.collections[0].get_segments()]
        assert np.allclose(marks, data["exclusive_chance"].values[order])
        joined = [tuple(line.get_ydata()) for line in dots.lines]
        members = [np.flatnonzero(m) for m in data["member"].values[order]]
        assert joined == [(m.min(), m.max()) for m in members]
        assert bars(sizes, "get_width") == data["kept"].values.tolist()
    shared = modhook.plot(data, shared=True, most=3)
    assert sorted(bars(shared.axes[1])) == sorted(data["shared"].values.tolist())[-3:]
    assert "the 3 largest of 7 subsets" in words(shared)


def test_overlaps_are_a_matrix_with_chance() -> None:
    """Every cell has its IoU, and in brackets that of chance, which the diagonal has none of."""
    data = modhook.overlaps(FUNCTIONS)
    figure = modhook.plot(data)
    assert np.allclose(figure.axes[0].images[0].get_array(), data["iou"])
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert texts[0] == "1.00"
    assert texts[1] == f"{float(data['iou'][0, 1]):.2f}\n({float(data['iou_chance'][0, 1]):.2f})"


def test_a_dendrogram_joins_by_average_linkage() -> None:
    """The joints stand at the mean distance between the members, computed by hand."""
    pytest.importorskip("scipy")
    iou = modhook.overlaps(FUNCTIONS)["iou"].values
    figure = modhook.plot.dendrogram(FUNCTIONS)
    joints = sorted(max(line.get_xdata()) for line in figure.axes[0].lines[:2])
    assert joints == pytest.approx([1 - iou[0, 1], ((1 - iou[0, 2]) + (1 - iou[1, 2])) / 2])
    chance = modhook.overlaps(FUNCTIONS)["iou_chance"].values
    assert figure.axes[0].lines[2].get_xdata()[0] == pytest.approx(
        1 - np.mean([chance[0, 1], chance[0, 2], chance[1, 2]])
    )
    nothing = Masks({n: torch.zeros_like(m) for n, m in FUNCTIONS["add"].items()})
    with pytest.raises(UserError, match="'x' and 'y' both keep nothing"):
        modhook.plot.dendrogram({"x": nothing, "y": nothing})
    with pytest.raises(UserError, match="at least two functions"):
        modhook.plot.dendrogram({"x": FUNCTIONS["add"]})


def test_without_scipy_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything else is drawn without scipy; the dendrogram names the extra."""
    for name in [n for n in sys.modules if n.split(".")[0] == "scipy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "scipy", None)
    modhook.plot.overlaps(FUNCTIONS)
    with pytest.raises(UserError, match=r'needs scipy.*pip install "modhook\[dendrogram\]"'):
        modhook.plot.dendrogram(FUNCTIONS)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (3, "modhook.plot draws Masks, .*not 3"),
        ({}, "modhook.plot draws Masks"),
        ({"a": 3}, "modhook.plot draws Masks"),
        (xr.Dataset({"x": 1}), "none that modhook.plot knows: .* this one has x"),
        (xr.Dataset({"loss": ("step", [np.nan])}, {"step": [1]}), "there is no history to draw"),
        ({"a": FUNCTIONS["add"], "b": Masks({"c": torch.ones(1).bool()})}, "cover different parameters"),
    ],
)
def test_what_cannot_be_drawn_is_said(what: Any, message: str) -> None:
    """Another object, an empty mapping, a foreign dataset, a history of nothing: one sentence each."""
    with pytest.raises(UserError, match=message):
        modhook.plot(what)


@pytest.mark.parametrize(("name", "given"), [("curve", 3), ("parts", xr.Dataset()), ("overlaps", xr.Dataset())])
def test_a_wrong_dataset_for_a_figure_is_said(name: str, given: Any) -> None:
    """A figure asked for by name says which dataset it takes."""
    with pytest.raises(UserError, match=r"what (fit\.curve|modhook\.)|what modhook"):
        getattr(modhook.plot, name)(given)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: modhook.plot(FUNCTIONS, zz=1), "plot.density has no option 'zz'; it has none"),
        (lambda: modhook.plot(modhook.parts(FUNCTIONS), share=True), r"plot.parts has no option 'share' \(did you mean 'shared'\?\)"),
        (lambda: modhook.plot.history(FUNCTIONS["add"]), "plot.history draws a Fit or its history, not "),
    ],
)
def test_options_and_objects_of_another_figure_are_said(draw: Any, message: str) -> None:
    """An option that a figure does not have, and masks where a fit belongs, are one sentence each."""
    with pytest.raises(UserError, match=message):
        draw()


def test_notebooks_show_it_and_settings_do_not_matter() -> None:
    """A figure is a PNG to a notebook, the same under a user's settings, which are left alone; pyplot is not imported."""
    before = modhook.plot(FUNCTIONS)._repr_png_()
    assert before.startswith(b"\x89PNG")
    with mpl.rc_context({"axes.facecolor": "black", "font.size": 30, "axes.grid": False}):
        changed = modhook.plot(FUNCTIONS)._repr_png_()
        assert mpl.rcParams["font.size"] == 30
    assert changed == before
    code = (
        "import sys, torch, modhook; m = modhook.Masks({'w': torch.ones(2).bool()}); "
        "assert 'matplotlib' not in sys.modules; modhook.plot(m); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_layers_and_heads_in_one_picture() -> None:
    """A panel per function shows each layer's parts, and each head, by the very shares of the tables; what is not there is grey."""
    layer = nn.TransformerEncoderLayer(8, 4, 6)
    model = nn.ModuleDict({"embed": nn.Embedding(3, 8), "encoder": nn.TransformerEncoder(layer, 24, enable_nested_tensor=False)})
    masks = {}
    for seed, name in enumerate(("one", "two")):
        g = torch.Generator().manual_seed(seed)
        masks[name] = Masks({n: torch.rand(p.shape, generator=g) < 0.3 for n, p in model.named_parameters()}, model)
    figure = modhook.plot.layers(masks)
    texts = [t.get_text() for t in figure.axes[0].get_xticklabels()]
    rows = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert texts == ["(itself)", "self_attn", "self_attn.out_proj", "linear1", "linear2", "norm1", "norm2"]
    assert rows == ["embed", *(f"encoder.layers.{i}" for i in range(24))]
    for axes, one in zip(figure.axes, masks.values(), strict=False):
        drawn = np.ma.filled(axes.images[0].get_array(), np.nan)
        assert np.isnan(drawn[0, 1:]).all()
        assert np.isnan(drawn[1:, 0]).all()
        part = one.select("encoder.layers.7.linear2")
        assert drawn[8, 4] == pytest.approx(100 * part.density)
    heads = modhook.plot.heads(masks["two"])
    drawn = np.ma.filled(heads.axes[0].images[0].get_array(), np.nan)
    assert drawn.shape == (24, 4)
    assert drawn[5].tolist() == pytest.approx((100 * masks["two"].heads()["density"][20:24]).tolist())
    assert [t.get_text() for t in heads.axes[0].get_yticklabels()][:2] == ["0.self_attn", "1.self_attn"]
    with pytest.raises(UserError, match="these masks cover no attention"):
        modhook.plot.heads(masks["one"].select("embed"))
    with pytest.raises(UserError, match=r"give masks, or {function: masks}, not 3"):
        modhook.plot.layers(3)  # type: ignore[arg-type]
