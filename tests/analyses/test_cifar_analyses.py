"""The analyses of the CIFAR-10 studies, recomputed from masks and weights by other means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from modhook.cube import masks_from, open_cube, weights_from
from modhook_plugins.analyses.logit_adjustment import constant
from modhook_tasks.cifar10.base import CLASSES
from modhook_tasks.cifar10.removal import Cifar10, Cifar10Options
from modhook_tasks.cifar10.stability import Cifar10Stability, StabilityOptions

STUDY = """
[study]
name = "s"
[task]
name = "TASK"
source = "generated"
MORE
[model]
name = "cnn"
channels = [6, 6]
dropout = [0.0, 0.0]
[train]
steps = 60
batch = 32
lr = 0.02
validate_every = 0
[masks]
steps = 8
samples = 2
lr = 0.8
exclude = []
[analyses]
ANALYSES
"""


def _run(folder: Path, task: str, more: str, analyses: str, seeds: int = 1) -> Path:
    from modhook.cli import main

    text = STUDY.replace("TASK", task).replace("MORE", more).replace("ANALYSES", analyses)
    (folder / "s.toml").write_text(text)
    with pytest.raises(SystemExit) as stop:
        main(["run", str(folder / "s.toml"), "--out", str(folder), "--set", f"study.seeds={seeds}"])
    assert stop.value.code == 0
    return folder / "s.zarr"


def _network(weights: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """Return the logits (N, 10) of the two-layer network, written out."""
    x = F.max_pool2d(F.conv2d(images, weights["conv1.weight"], weights["conv1.bias"], padding=1).relu(), 2)
    x = F.conv2d(x, weights["conv2.weight"], weights["conv2.bias"], padding=1).relu().mean((2, 3))
    return x @ weights["output.weight"].T + weights["output.bias"]


def test_class_removal(tmp_path: Path) -> None:
    """Confusion counted image by image; drops by the formulas of the paper; a removed class' row is its own."""
    cube_at = _run(tmp_path, "cifar10", 'removed = ["cat", "ship"]', "class_removal = {}\ngradient_cosine = "
                   '{ order = ["output", "conv2", "conv1"] }')  # fmt: skip
    task = Cifar10(Cifar10Options(source="generated", removed=("cat", "ship")))
    task.load()
    batch = task.prepare(task.test_set("valid"), np.random.default_rng(0), False)
    labels = batch["label"].tolist()
    with open_cube(cube_at) as cube:
        assert cube.attrs["study"]["task"]["source"] == "generated"  # nobody takes made-up images for real ones
        found = cube["class_removal"].sel(seed=1)
        weights = weights_from(cube, seed=1)
        shares = {}
        for stage in ("control", "cat", "ship"):
            masks = masks_from(cube, seed=1, stage=stage)
            said = _network({n: w * masks[n] for n, w in weights.items()}, batch["image"]).argmax(-1).tolist()
            counts = [
                [sum(t == a and s == b for t, s in zip(labels, said, strict=True)) for b in range(10)]
                for a in range(10)
            ]
            shares[stage] = np.array([[n / sum(row) for n in row] for row in counts])
            np.testing.assert_allclose(found["confusion"].sel(stage=stage), shares[stage])
            np.testing.assert_allclose(found["difference"].sel(stage=stage), shares[stage] - shares["control"])
        for stage in ("cat", "ship"):
            before, after = np.diag(shares["control"]), np.diag(shares[stage])
            drops = {c: (b - a) / b for c, b, a in zip(CLASSES, before, after, strict=True) if b > 0}
            target = drops.pop(stage, np.nan)
            np.testing.assert_allclose(found["target_drop"].sel(stage=stage), target)
            np.testing.assert_allclose(found["other_drop"].sel(stage=stage), max(drops.values()))
            share = max([0, *drops.values()]) / target if target > 0 else np.nan
            np.testing.assert_allclose(found["other_share"].sel(stage=stage), share)
            lost = {c: b - a for c, b, a in zip(CLASSES, before, after, strict=True)}
            np.testing.assert_allclose(found["target_points"].sel(stage=stage), lost.pop(stage))
            np.testing.assert_allclose(found["other_points"].sel(stage=stage), max([0, *lost.values()]))
        assert len(np.unique(found["confusion"])) > 10, "the network must do something, or the comparison shows nothing"

        # Gradient cosine: the same gradients by autograd over the written-out network, all images at once.
        kept = masks_from(cube, seed=1, stage="cat")

        def gradient(*layers: str) -> dict[str, torch.Tensor]:
            at = {n: (w * kept[n] if n.split(".")[0] in layers else w).requires_grad_() for n, w in weights.items()}
            loss = F.cross_entropy(_network(at, batch["image"]), batch["label"].long())
            return dict(zip(at, torch.autograd.grad(loss, list(at.values())), strict=True))

        whole, half = gradient(), gradient("output", "conv2")
        pairs = {n: (whole[n][kept[n]].double(), half[n][kept[n]].double()) for n in kept}
        cosine = cube["gradient_cosine"].sel(seed=1, stage="cat", masked="conv2")
        for n, (a, b) in pairs.items():
            expected = float(a @ b / (a.norm() * b.norm()))
            assert float(cosine["cosine"].sel(parameter=n)) == pytest.approx(expected, abs=1e-4, nan_ok=True)
        a, b = (torch.cat(side) for side in zip(*pairs.values(), strict=True))
        assert float(cosine["cosine_total"]) == pytest.approx(float(a @ b / (a.norm() * b.norm())), abs=1e-4)


def test_stability(tmp_path: Path) -> None:
    """IoU of the two masks of a pair, weight by weight; the two see other data and noise, and differ."""
    cube_at = _run(tmp_path, "cifar10_stability", "pairs = 1", "stability = {}")
    task = Cifar10Stability(StabilityOptions(source="generated", pairs=1))
    (name,) = task.sets
    with open_cube(cube_at) as cube:
        a, b = (masks_from(cube, seed=1, stage=f"{name} {i}") for i in (1, 2))
        both = either = 0
        for n in a:
            for x, y in zip(a[n].flatten().tolist(), b[n].flatten().tolist(), strict=True):
                both, either = both + (x and y), either + (x or y)
        assert float(cube["stability"]["iou_total"].sel(seed=1, function=name)) == pytest.approx(both / either)
        assert both < either
        assert str(cube["stability"]["classes"].sel(seed=1, function=name).item()) == ", ".join(name.split("-"))


def test_stability_with_pairs_of_its_own_for_every_seed(tmp_path: Path) -> None:
    """Each seed learns on its own pair, which the cube names; later masks copy the first one's output layer, bit for bit."""
    options = 'pairs = 2\nredraw = true\ncopied = ["output.*"]'
    task = Cifar10Stability(StabilityOptions(source="generated", pairs=2, redraw=True))
    with open_cube(_run(tmp_path, "cifar10_stability", options, "stability = {}", seeds=2)) as cube:
        classes = cube["stability"]["classes"]
        for seed in (1, 2):
            expected = [", ".join(pair) for pair in task.for_seed(seed).sets.values()]
            assert [str(x) for x in classes.sel(seed=seed).values] == expected
            first = masks_from(cube, seed=seed, stage="pair 1 a")
            assert not first["output.weight"].all()
            for stage in ("pair 1 b", "pair 2 a", "pair 2 b"):
                later = masks_from(cube, seed=seed, stage=stage)
                assert torch.equal(later["output.weight"], first["output.weight"])
                assert torch.equal(later["output.bias"], first["output.bias"])
                assert not torch.equal(later["conv1.weight"], first["conv1.weight"])
        assert classes.sel(seed=1).values.tolist() != classes.sel(seed=2).values.tolist()


def test_logit_adjustment(tmp_path: Path) -> None:
    """The constant by trying every one that matters, image by image; what is right with it; the margin's AUC by counting pairs."""
    cube_at = _run(tmp_path, "cifar10", 'removed = ["cat", "ship"]', "logit_adjustment = {}")
    task = Cifar10(Cifar10Options(source="generated", removed=("cat", "ship")))
    task.load()
    batch = task.prepare(task.test_set("valid"), np.random.default_rng(0), False)
    labels = batch["label"].numpy()
    with open_cube(cube_at) as cube:
        found, weights = cube["logit_adjustment"].sel(seed=1), weights_from(cube, seed=1)
        logits = {
            stage: _network({n: w * m[n] for n, w in weights.items()}, batch["image"]).double().numpy()
            for stage in ("control", "cat", "ship")
            for m in [masks_from(cube, seed=1, stage=stage)]
        }
        assert np.isnan(found["added"].sel(stage="control"))
    right = [(logits["control"].argmax(1) == labels)[labels == c].mean() for c in range(10)]
    for stage in ("cat", "ship"):
        c, x = CLASSES.index(stage), logits[stage].copy()
        wanted = int((logits["control"].argmax(1) == c).sum())
        x[:, c] += float(found["added"].sel(stage=stage))
        assert (x.argmax(1) == c).sum() == wanted
        drops = [1 - (x.argmax(1) == labels)[labels == k].mean() / right[k] if right[k] else np.nan for k in range(10)]
        target = drops.pop(c)
        np.testing.assert_allclose(found["target_drop"].sel(stage=stage), target)
        np.testing.assert_allclose(found["other_drop"].sel(stage=stage), np.nanmax(drops))
        share = max(0, np.nanmax(drops)) / target if target > 0 else np.nan
        np.testing.assert_allclose(found["other_share"].sel(stage=stage), share)
        for name, values in (("auc", logits[stage]), ("control_auc", logits["control"])):
            m = [row[c] - max(v for k, v in enumerate(row) if k != c) for row in values.tolist()]
            inside, outside = ([v for v, label in zip(m, labels, strict=True) if bool(label == c) is of] for of in (True, False))
            pairs = [(a > b) + (a == b) / 2 for a in inside for b in outside]
            assert float(found[name].sel(stage=stage)) == pytest.approx(np.mean(pairs))


def test_the_constant_of_all_and_of_none() -> None:
    """A class that the control never predicts is predicted for no image, and one that it always predicts for all."""
    margins = np.array([3.0, -1.0, 0.5, -4.0])
    for count in range(5):
        assert (margins + constant(margins, count) > 0).sum() == count
