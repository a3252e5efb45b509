"""What a run records on the way: per parameter, and by the clock."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import modhook.run.layout
from modhook import Masks, Sampler, fit_masks
from modhook.cube import masks_from, open_cube
from modhook.run.layout import plan

Run = Callable[..., tuple[int, str, str]]
PARTS = ("parameter_gradient_norm", "parameter_density", "remaining")


class Plain(Sampler):
    """No noise: each weight times the sigmoid of its logit."""

    def apply(self, weight: torch.Tensor, logits: torch.Tensor, generators: Any) -> torch.Tensor:
        return (weight * logits.sigmoid()).expand(len(generators), *weight.shape)


def test_what_a_fit_measures_per_parameter() -> None:
    """Gradient norms, densities and what remains of a reference are those of a plain loop over a copy, in float64."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double().eval()
    x, y = torch.randn(8, 4, dtype=torch.float64), torch.randn(8, 2, dtype=torch.float64)
    names = ["0.weight", "2.weight"]
    start = {n: torch.randn_like(net.get_parameter(n)) for n in names}
    reference = Masks({n: torch.rand(net.get_parameter(n).shape) < 0.6 for n in names})

    fit = fit_masks(
        net,
        [(x, y)],
        lambda m, b: F.mse_loss(m(b[0]), b[1]),
        samples=2,
        steps=3,
        lr=0.7,
        beta=0.3,
        init=start,
        sampler=Plain(),
        optimizer="sgd",
        clip=0.01,
        reference=reference,
        progress=False,
    )

    logits = {n: t.clone() for n, t in start.items()}
    velocity = {n: torch.zeros_like(t) for n, t in start.items()}  # SGD's momentum is 0.9
    for step in range(3):
        for t in logits.values():
            t.requires_grad_()
        losses = []
        for k in range(2):
            twin = copy.deepcopy(net)
            weights = {n: twin.get_parameter(n).detach() * logits[n].sigmoid() for n in names}
            half = slice(4 * k, 4 * k + 4)
            losses.append(F.mse_loss(torch.func.functional_call(twin, weights, (x[half],)), y[half]))
        gradients = dict(zip(names, torch.autograd.grad(sum(losses) / 2, list(logits.values())), strict=True))
        pulled = {n: g + 0.3 / 8 for n, g in gradients.items()}
        norm = torch.cat([g.flatten() for g in pulled.values()]).norm()
        velocity = {n: 0.9 * velocity[n] + g * 0.01 / (norm + 1e-6) for n, g in pulled.items()}
        logits = {n: (t - 0.7 * velocity[n]).detach() for n, t in logits.items()}
        row = fit.history.isel(step=step)
        assert list(row["parameter"].values) == names
        for n in names:
            kept, at = logits[n] >= 0, row.sel(parameter=n)
            assert float(at["parameter_gradient_norm"]) == pytest.approx(float(gradients[n].norm()), rel=1e-9)
            assert float(at["parameter_density"]) == float(kept.double().mean())
            assert float(at["remaining"]) == int((kept & reference[n]).sum()) / int(reference[n].sum())
    assert (fit.history["ms_per_step"] > 0).all()
    alone = fit_masks(net, [(x, y)], lambda m, b: F.mse_loss(m(b[0]), b[1]), samples=2, steps=3, progress=False)
    assert alone.history["remaining"].equals(alone.history["parameter_density"]), "without a reference: of all weights"


def test_the_cube_has_it_and_only_the_clock_differs(
    tiny: Path, tmp_path: Path, modhook_run: Run, contents: Any
) -> None:
    """The last step's values are those of the stored masks; `remaining` looks at the control; times are in `timing` alone."""
    for out in ("one", "two"):
        code, _, err = modhook_run("run", tiny, "--out", tmp_path / out, "--set", "study.seeds=1")
        assert code == 0, err
    assert contents(tmp_path / "one/tiny.zarr") == contents(tmp_path / "two/tiny.zarr")
    with open_cube(tmp_path / "one/tiny.zarr") as cube:
        control = masks_from(cube, seed=1, stage="control")
        for stage in ("control", "add", "mul"):
            masks, last = masks_from(cube, seed=1, stage=stage), cube["history"].sel(seed=1, stage=stage).isel(step=-1)
            for name in masks:
                at, within = last.sel(parameter=name), masks[name]
                assert float(at["parameter_density"]) == np.float32(float(within.double().mean()))
                base = torch.ones_like(within) if stage == "control" else control[name]
                share = float((within & base).sum()) / float(base.sum())
                assert float(at["remaining"]) == np.float32(share)
            norms = cube["history/parameter_gradient_norm"].sel(seed=1, stage=stage)
            assert (norms > 0).any()
            assert np.isfinite(norms).all()
            assert (cube["timing/ms_per_step"].sel(seed=1, stage=stage) > 0).all()
        assert cube["timing/ms_per_step"].sel(seed=1, stage="unmasked").isnull().all()
        assert (cube["timing/train_ms_per_step"] > 0).all()
        assert not [name for name in cube["history"].data_vars if "ms" in str(name)]


def test_a_cube_of_an_older_version_goes_on(
    tiny: Path, tmp_path: Path, modhook_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cube that was laid out without these variables is continued, grown, shown and opened as ever."""

    def older(*arguments: Any) -> Any:
        made = plan(*arguments)
        kept = tuple(
            v
            for v in made.variables
            if v.group not in ("history", "timing") or (v.short not in PARTS and "ms_per" not in v.short)
        )
        labels = {g: dict(d) for g, d in made.labels.items()} | {"timing": {}}
        del labels["history"]["parameter"]
        return type(made)(made.attrs, made.run_dims, kept, labels, made.sizes)

    with monkeypatch.context() as patch:
        patch.setattr(modhook.run.drive, "plan", older)
        assert modhook_run("run", tiny, "--out", tmp_path, "--only", "seed=1", "--only-control")[0] == 0
    with open_cube(tmp_path / "tiny.zarr") as cube:
        assert not set(PARTS) & set(cube["history"].data_vars)
    code, out, err = modhook_run("run", tiny, "--out", tmp_path, "--set", "study.seeds=3")
    assert (code, "10 stages computed, 2 were there already" in out) == (0, True), err
    assert modhook_run("show", tmp_path / "tiny.zarr")[0] == 0
    with open_cube(tmp_path / "tiny.zarr") as cube:
        assert np.isfinite(cube["history/loss"]).all()
        assert not set(PARTS) & set(cube["history"].data_vars)
