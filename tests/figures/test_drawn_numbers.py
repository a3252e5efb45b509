"""What figures show, recomputed by brute force from the masks, weights and predictions of small real cubes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from kept_masks import masks

from modhook.cube import logits_from, weights_from
from modhook_plugins.figures.beta_sensitivity import BetaSensitivity
from modhook_plugins.figures.gradient_cosine import GradientCosine
from modhook_plugins.figures.half_mask import HalfMask
from modhook_plugins.figures.history import History
from modhook_plugins.figures.kept_weights import KeptWeights
from modhook_plugins.figures.mask_histogram import MaskHistogram
from modhook_plugins.figures.mask_images import MaskImages
from modhook_plugins.figures.operation_confusion import OperationConfusion
from modhook_plugins.figures.overlap import AddMulOverlap, TupleOverlap
from modhook_plugins.figures.performance import AddMulPerformance, TuplePerformance
from modhook_plugins.figures.removed_output import RemovedOutput
from modhook_plugins.figures.scan_accuracy import ScanAccuracy
from modhook_plugins.figures.scan_baselines import ScanBaselines
from modhook_plugins.figures.sharing_size import SharingSize
from modhook_plugins.figures.transfer_sharing import TransferSharing
from modhook_tasks.addmul import AddMul, AddMulOptions

Cubes = Callable[[str], xr.DataTree]
Read = Callable[[Any], dict[str, list[float]]]
LAYERS = ["layer1.weight", "layer2.weight", "output.weight"]
BETAS = (1e-4, 1e-3)


def predictions(
    cube: xr.DataTree, seed: int, kept: dict[str, np.ndarray[Any, Any]], beta: float
) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
    """Numbers (N,) that the small add/mul network writes under masks, multiplied out, and its validation batch."""
    task = AddMul(AddMulOptions(train_size=300, valid_size=80))
    batch = task.prepare(task.test_set("iid"), np.random.default_rng(0), training=False)
    weights = {n: w.numpy().astype(float) for n, w in weights_from(cube, seed, beta=beta).items()}
    x = batch["inputs"].numpy().astype(float)
    for layer in ("layer1", "layer2", "output"):
        x = x @ (weights[f"{layer}.weight"] * kept[f"{layer}.weight"]).T + weights[f"{layer}.bias"]
        x = np.maximum(x, 0) if layer != "output" else x
    digits = x.reshape(-1, 2, 10).argmax(-1)
    return digits[:, 0] + 10 * digits[:, 1], task.test_set("iid")


def accuracy(
    cube: xr.DataTree, seed: int, stage: str, split: str, beta: float, inverted: bool = False, only: Any = None
) -> float:
    """Share of right numbers under a stage's mask, its inverse, or on some layers (`only`) alone."""
    kept = masks(cube, seed, stage, beta=beta)
    if inverted:
        kept = {n: ~m for n, m in kept.items()}
    if only is not None:
        kept = {n: m if n in only else np.ones_like(m) for n, m in kept.items()}
    written, problems = predictions(cube, seed, kept, beta)
    right = total = 0
    for number, (a, b), operation in zip(
        written, problems["operands"].tolist(), problems["operation"].tolist(), strict=True
    ):
        if split == "iid" or split == ("add", "mul")[operation]:
            total += 1
            right += number == ((a + b, a * b)[operation] % 100)
    return right / total


def over_seeds(value: Callable[[int], float]) -> tuple[float, float]:
    """Mean and deviation (n - 1) of two seeds, written out."""
    a, b = value(1), value(2)
    return (a + b) / 2, abs(a - b) / math.sqrt(2)


def test_addmul_performance(real: Cubes, bars: Read, whiskers: Callable[[Any], list[float]]) -> None:
    """Bars and whiskers are those of the predictions under each mask and its inverse, one panel per sweep point."""
    cube = real("addmul")
    figure = AddMulPerformance().draw([cube])
    places = [("control", False), ("add", False), ("add", True), ("mul", False), ("mul", True)]
    for axes, beta in zip(figure.axes, BETAS, strict=True):
        assert f"beta {beta:g}" in axes.get_title()
        for container, split in zip([c for c in axes.containers if hasattr(c, "patches")], ("add", "mul"), strict=True):
            wanted = [
                over_seeds(lambda s, g=stage, b=beta, p=split, i=inverted: 100 * accuracy(cube, s, g, p, b, i))
                for stage, inverted in places
            ]
            whole = cube["scores/accuracy"].sel({"masks.beta": beta, "stage": "unmasked", "split": split})
            wanted = [(100 * float(whole.mean()), 100 * float(whole.std(ddof=1))), *wanted]
            assert bars(axes)[f"{split} problems"] == pytest.approx([m for m, _ in wanted])
            if container.errorbar is not None:
                assert whiskers(container) == pytest.approx([d for _, d in wanted], abs=1e-9)


def test_operation_confusion(real: Cubes) -> None:
    """The matrices hold the shares of numbers that are the sum, the product, or neither, counted one by one; inverse masks too."""
    cube = real("addmul")
    figure = OperationConfusion().draw([cube])
    places = [(stage, inverted) for inverted in (False, True) for stage in ("control", "add", "mul")]
    for axes, (stage, inverted) in zip(figure.axes[:6], places, strict=True):
        assert axes.get_title() == f"FNN 9-7, beta 0.0001: {'not' if inverted else 'mask'} {stage}"
        found = np.zeros((2, 2, 3))
        for s in (1, 2):
            kept = {n: m != inverted for n, m in masks(cube, s, stage, beta=BETAS[0]).items()}
            written, problems = predictions(cube, s, kept, BETAS[0])
            for number, (a, b), asked in zip(
                written, problems["operands"].tolist(), problems["operation"].tolist(), strict=True
            ):
                hits = [number == (a + b) % 100, number == a * b % 100]
                found[s - 1, asked] += [*hits, not any(hits)]
        found /= found.sum(-1, keepdims=True)
        assert np.asarray(axes.images[0].get_array()) == pytest.approx(100 * found.mean(0))


def test_addmul_overlap(real: Cubes, bars: Read) -> None:
    """Bars are IoU and IoMin of the masks of addition and multiplication, counted weight by weight."""
    cube = real("addmul")
    axes = AddMulOverlap().draw([cube]).axes[0]
    iou, iomin = np.full((2, len(LAYERS)), np.nan), np.full((2, len(LAYERS)), np.nan)  # (seed, layer)
    for i, layer in enumerate(LAYERS):
        for s in (1, 2):
            a, b = (masks(cube, s, stage, beta=BETAS[0])[layer].ravel().tolist() for stage in ("add", "mul"))
            both = sum(x and y for x, y in zip(a, b, strict=True))
            iou[s - 1, i] = both / sum(x or y for x, y in zip(a, b, strict=True))
            iomin[s - 1, i] = both / min(sum(a), sum(b))
    assert bars(axes)["IoU"] == pytest.approx(iou.mean(0).tolist())
    assert bars(axes)["IoMin"] == pytest.approx(iomin.mean(0).tolist())
    expected = cube["overlap/iou_chance"].sel({"masks.beta": BETAS[0], "stage": "add", "other": "mul"}).mean("seed")
    marks = next(c for c in axes.collections if c.get_label() == "chance")
    assert [float(s[0][1]) for s in marks.get_segments()] == pytest.approx(expected.values.tolist())


def test_tuple_overlap(real: Cubes, bars: Read) -> None:
    """Each mode of an LSTM has a panel, counted weight by weight, and the last one is the mean over both."""
    cube = real("tuple")
    *apart, pooled = TupleOverlap().draw([cube]).axes[:3]  # of four places one stays empty
    names = ("lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.weight_ih_l1", "lstm.weight_hh_l1", "output.weight")
    modes = ("only_one_io", "together")
    counted = np.full((len(modes), 2, len(names)), np.nan)  # (mode, seed, matrix)
    for i, mode in enumerate(modes):
        for s in (1, 2):
            first, second = (masks(cube, s, t, mode=mode) for t in ("tuple1", "tuple2"))
            for j, name in enumerate(names):
                a, b = first[name], second[name]
                counted[i, s - 1, j] = (a & b).sum() / (a | b).sum() if (a | b).any() else np.nan
    assert [axes.get_title() for axes in apart] == ["LSTM 2x5, mode only_one_io", "LSTM 2x5, mode together"]
    for axes, values in zip(apart, counted, strict=True):
        assert bars(axes)["IoU"] == pytest.approx(np.nan_to_num(np.nanmean(values, 0)).tolist())
    assert "2 modes pooled: n up to 4" in pooled.get_title()
    assert bars(pooled)["IoU"] == pytest.approx(np.nanmean(counted, (0, 1)).tolist())
    labels = [t.get_text().replace("\n", " ") for t in pooled.get_xticklabels()]
    assert labels == ["layer 1 in", "layer 1 rec", "layer 2 in", "layer 2 rec", "output"]


def test_tuple_performance(real: Cubes, bars: Read) -> None:
    """Every bar is the score of its stage, or of its inverse, on one pair's sum."""
    cube = real("tuple")
    axes = TuplePerformance().draw([cube]).axes[0]
    at = {"task.mode": "only_one_io", "split": "tuple2"}
    scores, inverse = (cube[f"{g}/accuracy"].sel(at).mean("seed") for g in ("scores", "inverse"))
    wanted = [scores.sel(stage="unmasked"), scores.sel(stage="control"), scores.sel(stage="tuple1"), inverse.sel(stage="tuple1")]
    wanted += [scores.sel(stage="tuple2"), inverse.sel(stage="tuple2")]
    assert bars(axes)["sum of pair 2"] == pytest.approx([100 * float(w) for w in wanted])


def test_kept_weights(real: Cubes, line_points: Read) -> None:
    """Points are the numbers of kept weights, grey lines the layers' sizes."""
    cube = real("addmul")
    axes = KeptWeights().draw([cube]).axes[0]
    for stage in ("control", "add", "mul"):
        wanted = [
            over_seeds(lambda s, g=stage, n=layer: float(masks(cube, s, g, beta=BETAS[0])[n].sum()))[0]
            for layer in LAYERS
        ]
        assert line_points(axes)[stage] == pytest.approx(wanted)
    sizes = next(c for c in axes.collections if c.get_label() == "all weights")
    assert [s[0][1] for s in sizes.get_segments()] == [42 * 9, 9 * 7, 7 * 20]


def shared(cube: xr.DataTree, seed: int, stage: str, other: str, beta: float) -> float:
    """Share of a stage's weights that the other one keeps too, over all layers."""
    mine, its = (masks(cube, seed, g, beta=beta) for g in (stage, other))
    return sum((mine[n] & its[n]).sum() for n in mine) / sum(m.sum() for m in mine.values())


def test_sharing_and_beta(real: Cubes, line_points: Read) -> None:
    """Both figures show pooled sharing, sum |a & b| / sum |a|; one over the number of weights, one over beta."""
    cube = real("addmul")
    (axes,) = SharingSize().draw([cube]).axes
    above, below = BetaSensitivity().draw([cube]).axes
    for stage, other in (("add", "mul"), ("mul", "add")):
        wanted = [100 * over_seeds(lambda s, g=stage, o=other, b=b: shared(cube, s, g, o, b))[0] for b in BETAS]
        assert sorted(line_points(axes)[f"of the weights for {stage}"]) == pytest.approx(sorted(wanted))
        assert line_points(below)[stage] == pytest.approx(wanted)
        right = [100 * over_seeds(lambda s, g=stage, b=b: accuracy(cube, s, g, g, b))[0] for b in BETAS]
        assert line_points(above)[stage] == pytest.approx(right)
    for container in (c for c in axes.containers if hasattr(c, "lines")):
        assert container.lines[0].get_xdata() == pytest.approx([42 * 9 + 9 * 7 + 7 * 20] * 2)
    for panel in (above, below):
        for container in (c for c in panel.containers if hasattr(c, "lines")):
            assert container.lines[0].get_xdata() == pytest.approx(list(BETAS))


def test_half_mask(real: Cubes, bars: Read) -> None:
    """Bars are the accuracy under the whole control mask minus that under its first, or its last layers."""
    cube = real("addmul")
    (axes,) = HalfMask().draw([cube]).axes
    for half, only in (("early", LAYERS[:2]), ("late", LAYERS[2:])):
        wanted = [
            over_seeds(
                lambda s, o=only, b=b: (
                    100 * (accuracy(cube, s, "control", "iid", b) - accuracy(cube, s, "control", "iid", b, only=o))
                )
            )[0]
            for b in BETAS
        ]
        assert bars(axes)[f"{half} layers masked"] == pytest.approx(wanted)


def test_mask_histogram(real: Cubes) -> None:
    """Lines are the densities of sigmoid(logit), counted bin by bin; their integral is 1."""
    cube = real("addmul")
    axes = MaskHistogram().draw([cube]).axes
    counts = np.zeros((2, 500))
    for s in (1, 2):
        for logits in logits_from(cube, s, "control", beta=BETAS[0]).values():
            for keep in torch.sigmoid(logits.double()).ravel().tolist():
                counts[s - 1, min(499, int(keep * 500))] += 1
    density = (500 * counts / counts.sum(1, keepdims=True)).mean(0)
    drawn = np.asarray(axes[0].lines[0].get_ydata())
    assert drawn == pytest.approx(density)
    assert drawn.sum() / 500 == pytest.approx(1)
    logged = np.asarray(axes[2].lines[0].get_ydata())
    assert logged[density > 0] == pytest.approx(density[density > 0])
    assert np.isnan(logged[density == 0]).all()


def test_mask_images(real: Cubes) -> None:
    """Every pixel has the colour of who keeps that weight; small tensors have one weight per pixel."""
    cube = real("addmul")
    figure = MaskImages().draw([cube])
    kept = {g: masks(cube, 1, g, beta=BETAS[0])["layer2.weight"] for g in ("control", "add", "mul")}
    picture = np.asarray(figure.axes[1].images[0].get_array())  # (7, 9, 3)
    assert picture.shape == (7, 9, 3)
    (legend,) = figure.legends
    pairs = zip(legend.get_texts(), legend.get_patches(), strict=True)
    inks = {text.get_text(): patch.get_facecolor()[:3] for text, patch in pairs}
    for (r, c), control in np.ndenumerate(kept["control"]):
        add, mul = bool(kept["add"][r, c]), bool(kept["mul"][r, c])
        label = {(True, True): "several stages", (True, False): "add only", (False, True): "mul only"}.get(
            (add, mul), "control only" if control else "no stage"
        )
        assert picture[r, c] == pytest.approx(inks[label])


def test_scan_figures(real: Cubes, bars: Read) -> None:
    """Bars are the scores of the right stage and split, and dropped output weights counted row by row."""
    cube, scratch = real("scan"), real("scratch")
    scores = 100 * cube["scores/accuracy"].mean("seed")
    (axes,) = ScanAccuracy().draw([cube]).axes
    assert bars(axes)["the split's own mask"] == pytest.approx(
        [float(scores.sel(stage="control", split="turn_left")), float(scores.sel(stage="jump", split="jump"))]
    )
    (axes,) = ScanBaselines().draw([scratch, cube]).axes
    direct = scratch["scores/accuracy"].sel(stage="unmasked", split="jump").mean()
    assert bars(axes)["trained on the split"] == pytest.approx([100 * float(direct)])
    (axes,) = RemovedOutput().draw([cube]).axes
    wanted = np.zeros(cube["removed_output"].sizes["token"])
    for s in (1, 2):
        before, after = (masks(cube, s, g)["output.weight"] for g in ("control", "jump"))
        wanted += [50 * (b & ~a).sum() / b.sum() for b, a in zip(before, after, strict=True)]
    assert bars(axes)["mask jump"] == pytest.approx(wanted.tolist())


def test_transfer_sharing(real: Cubes, bars: Read) -> None:
    """Task 2 is permutation 1 and task 4 permutation 3, counted from 0: bars are the share of its weights that masks before it use."""
    cube = real("transfer")
    (axes,) = TransferSharing().draw([cube]).axes
    assert list(bars(axes)) == ["task 2", "task 4"]
    stages = ["control", "permutation1", "permutation2", "permutation3"]
    for task in (2, 4):
        wanted = []
        for name in ("layer1.weight", "output.weight"):
            values = []
            for s in (1, 2):
                *earlier, new = (masks(cube, s, g)[name] for g in stages[:task])
                used = sum(m.astype(int) for m in earlier) > 0
                values.append((new & used).sum() / new.sum())
            wanted.append(100 * sum(values) / 2)
        assert bars(axes)[f"task {task}"] == pytest.approx(wanted)


def test_gradient_cosine_and_history(real: Cubes, line_points: Read) -> None:
    """Lines are the means over seeds of what was recorded, in order."""
    cube = real("cifar")
    drawn = line_points(GradientCosine().draw([cube]).axes[1])
    total = cube["gradient_cosine/cosine_total"].sel(stage="cat").values
    assert drawn["all weights"] == pytest.approx((total.sum(0) / 2).tolist())
    axes = History().draw([cube]).axes
    loss = cube["history/loss"].sel(stage="control").values
    line = next(x for x in axes[1].lines if x.get_label() == "control")
    assert line.get_ydata() == pytest.approx(loss.sum(0) / 2)
    kept = next(x for x in axes[2].lines if x.get_label() == "control").get_ydata()
    final = [np.concatenate([m.ravel() for m in masks(cube, s, "control").values()]).mean() for s in (1, 2)]
    assert kept[-1] == pytest.approx(100 * sum(final) / 2)
