"""Overlaps and their chance, recomputed from the raw masks."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modhook import Masks
from modhook.cube import masks_from, open_cube
from modhook_plugins.analyses.sharing import Sharing

STAGES = ["control", "add", "mul"]


def bits(cube: Any) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
    """Flat masks by stage and tensor."""
    return {
        s: {n: m.numpy().ravel() for n, m in masks_from(cube, seed=1, stage=s).items()} for s in STAGES
    }  # (N,) each


def exact_iou(n: int, a: int, b: int) -> float:
    """The expected IoU of one tensor's random masks, with integers alone."""
    ways = [(k, math.comb(a, k) * math.comb(n - a, b - k)) for k in range(max(0, a + b - n), min(a, b) + 1)]
    return float(sum(Fraction(k * w, a + b - k) for k, w in ways) / math.comb(n, b))


def test_measures_and_chance_per_tensor(addmul_cube: Path) -> None:
    """Each tensor's overlaps equal counts, their chance exact binomials, and the ratios the one over the other."""
    with open_cube(addmul_cube) as cube:
        masks, found = bits(cube), cube["overlap"].sel(seed=1).load()
        for name in masks["add"]:
            at = found.sel(parameter=name)
            n = len(masks["add"][name])
            kept = {s: int(masks[s][name].sum()) for s in STAGES}
            assert float(at["size"]) == n
            for a in STAGES:
                for b in STAGES:
                    pair = at.sel(stage=a, other=b)
                    both = int((masks[a][name] & masks[b][name]).sum())
                    iou, iomin = both / (kept[a] + kept[b] - both), both / min(kept[a], kept[b])
                    assert float(pair["iou"]) == pytest.approx(iou)
                    assert float(pair["iomin"]) == pytest.approx(iomin)
                    if a == b:
                        for missing in ("iou_chance", "iomin_chance", "iou_ratio", "iomin_ratio"):
                            assert np.isnan(pair[missing])
                        continue
                    assert float(pair["iou_chance"]) == pytest.approx(exact_iou(n, kept[a], kept[b]), rel=1e-9)
                    expected = kept[a] * kept[b] / n
                    assert float(pair["iomin_chance"]) == pytest.approx(expected / min(kept[a], kept[b]))
                    assert float(pair["iou_ratio"]) == pytest.approx(iou / exact_iou(n, kept[a], kept[b]), rel=1e-9)
                    assert float(pair["iomin_ratio"]) == pytest.approx(both / expected)
            for a, b in (("add", "mul"), ("mul", "add")):
                one = at.sel(stage=a)
                assert float(one["shared"]) == pytest.approx((masks[a][name] & masks[b][name]).sum() / kept[a])
                assert float(one["shared_chance"]) == pytest.approx(kept[b] / n)
                assert float(one["remaining_chance"]) == pytest.approx(kept[a] / n)
            assert np.isnan(at["shared_chance"].sel(stage="control"))
            assert np.isnan(at["remaining_chance"].sel(stage="control"))


def test_totals_by_chance_equal_shuffled_masks(addmul_cube: Path) -> None:
    """Shuffling the weights of every tensor gives, on average, the stored chance of every total (4 standard errors)."""
    rng = np.random.default_rng(0)
    with open_cube(addmul_cube) as cube:
        masks, found = bits(cube), cube["overlap"].sel(seed=1).load()
        a, b = (np.concatenate(list(masks[s].values())) for s in ("add", "mul"))
        drawn = []
        for _ in range(1500):
            x, y = (np.concatenate([rng.permutation(m) for m in masks[s].values()]) for s in ("add", "mul"))
            both = (x & y).sum()
            drawn.append((both / (x | y).sum(), both / min(x.sum(), y.sum()), both / x.sum()))
        mean, error = np.mean(drawn, 0), np.std(drawn, 0) / len(drawn) ** 0.5
        pair = found.sel(stage="add", other="mul")
        stored = [pair["iou_chance_total"], pair["iomin_chance_total"], found["shared_chance_total"].sel(stage="add")]
        assert (abs(np.array([float(v) for v in stored]) - mean) < 4 * error).all()
        assert float(pair["iou_ratio_total"]) == pytest.approx((a & b).sum() / (a | b).sum() / float(stored[0]))
        assert float(found["shared_ratio_total"].sel(stage="add")) == pytest.approx(
            (a & b).sum() / a.sum() / float(stored[2])
        )
        assert np.isnan(np.diagonal(found["iou_chance_total"])).all()
        assert abs(mean[0] - found["iou_total"].sel(stage="add", other="mul")) > 4 * error[0], "chance must differ"


def test_shared_by_chance_with_several_others() -> None:
    """With three sub-functions the union of the others is 1 - (1 - b / N)(1 - c / N) of a tensor, without a control too."""
    torch.manual_seed(0)
    shapes = {"x.weight": (8, 5), "y.weight": (3, 8)}

    class Run:
        """A finished run of a task without a control."""

        stages = ("a", "b", "c")
        task = type("Task", (), {"control": False})

        def __init__(self) -> None:
            self.masks = {s: Masks({n: torch.rand(*shape) < 0.4 for n, shape in shapes.items()}) for s in self.stages}

        def coordinates(self, variable: str) -> dict[str, list[str]]:
            return {"parameter": ["other", *shapes]}

    run = Run()
    found = Sharing().compute(run)  # type: ignore[arg-type]
    expected = kept_in_all = 0.0
    for p, n in enumerate(shapes, 1):
        size, kept = run.masks["a"][n].numel(), [int(run.masks[s][n].sum()) for s in run.stages]
        by_chance = 1 - (1 - kept[1] / size) * (1 - kept[2] / size)
        assert found["overlap/shared_chance"][0, p] == pytest.approx(by_chance)
        others = run.masks["b"][n] | run.masks["c"][n]
        assert found["overlap/shared"][0, p] == pytest.approx(int((run.masks["a"][n] & others).sum()) / kept[0])
        expected, kept_in_all = expected + kept[0] * by_chance, kept_in_all + kept[0]
    assert found["overlap/shared_chance_total"][0] == pytest.approx(expected / kept_in_all)
    assert np.isnan(found["overlap/remaining"]).all(), "without a control nothing remains of it"
    assert np.isnan(found["overlap/iou_chance"][:, :, 0]).all(), "a tensor that this network does not have is NaN"
