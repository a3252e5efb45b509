"""Masks over the change from other weights: fits against a plain loop over K on deep copies, and against a network of changes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import modhook
from modhook import Masks
from modhook.noise.noise import generators, uniform

K, STEPS, LR = 3, 3, 0.7
NAMES = ("0.weight", "2.weight")


def network(seed: int, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Return a small classifier of which the biases are not masked."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def batches(dtype: torch.dtype = torch.float64, steps: int = STEPS) -> list[tuple[Tensor, Tensor]]:
    """Return labelled batches."""
    drawn = torch.Generator().manual_seed(1)
    return [(torch.randn(6, 5, generator=drawn).to(dtype), torch.randint(0, 3, (6,), generator=drawn)) for _ in range(steps)]


def loss_of(net: nn.Module, items: Any) -> Tensor:
    """Plain cross-entropy."""
    return F.cross_entropy(net(items[0]), items[1])


def score_of(net: nn.Module, items: Any) -> Tensor:
    """A score that differs with every weight."""
    return -F.cross_entropy(net(items[0]), items[1], reduction="none")


def sgd(tensors: Any) -> torch.optim.Optimizer:
    """Return plain gradient descent, whose steps can be written down."""
    return torch.optim.SGD(tensors, lr=LR)


def by_hand(net: nn.Module, off: dict[str, Tensor], fixed: Tensor | None, dtype: torch.dtype) -> dict[str, Tensor]:
    """Learn logits by a plain loop: gradient = dL/dv (w - off) s(1 - s), v the masked weight of a deep copy."""
    learned = [n for n in NAMES if fixed is None or n != NAMES[0]]
    weights = {n: net.get_parameter(n).detach() for n in NAMES}
    logits = {n: torch.full_like(weights[n], 0.3) for n in learned}
    noise = generators(5, "", K)
    for x, y in batches(dtype):
        u = {n: uniform(logits[n], noise).double() for n in learned}
        gradient = {n: torch.zeros_like(weights[n], dtype=torch.float64) for n in learned}
        for k in range(K):
            twin = copy.deepcopy(net).double()
            if fixed is not None:
                twin.get_parameter(NAMES[0]).data = torch.where(fixed, weights[NAMES[0]], off[NAMES[0]]).double()
            for n in learned:
                keep = u[n][k] > torch.sigmoid(-logits[n].double())
                twin.get_parameter(n).data = torch.where(keep, weights[n].double(), off[n].double())
            (loss_of(twin, (x.chunk(K)[k].double(), y.chunk(K)[k])) / K).backward()
            for n in learned:
                s = torch.sigmoid(logits[n].double() + torch.log(u[n][k]) - torch.log1p(-u[n][k]))
                change = weights[n].double() - off[n].double()
                gradient[n] += twin.get_parameter(n).grad * change * s * (1 - s)
        for n in learned:
            logits[n] = (logits[n].double() - LR * gradient[n]).to(dtype)
    return logits


@pytest.mark.parametrize("executor", ["vmap", "loop"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", ["plain", "fixed", "all"])
def test_logits_learn_by_the_change_of_the_weights(executor: str, dtype: torch.dtype, kind: str) -> None:
    """Three steps give the plain loop's logits: by each route, with compiled code, under a fixed mask, with gradients for all."""
    net, off = network(0, dtype), {n: p for n, p in network(9, dtype).state_dict().items() if n in NAMES}
    keep = torch.rand(8, 5, generator=torch.Generator().manual_seed(2)) > 0.5
    fixed = Masks({NAMES[0]: keep}, net) if kind == "fixed" else None
    limits: dict[str, Any] = {"clip": 1e9, "clip_over": "all"} if kind == "all" else {"clip": None}
    fit = modhook.fit_masks(
        net, batches(dtype), loss_of, off=off, fixed=fixed, samples=K, steps=STEPS, seed=5, init=0.3, beta=0.0,
        optimizer=sgd, executor=executor, progress=False, **limits,
    )  # fmt: skip
    assert fit.route["route"] == executor
    close = {"rtol": 1e-10, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(fit.logits, by_hand(net, off, keep if fixed else None, dtype), **close)
    assert all(torch.equal(fit.off[n], off[n]) for n in NAMES)


class Changed(nn.Module):
    """The same network, written as off + change, so that masks over the changes are plain ones."""

    def __init__(self, net: nn.Module, off: nn.Module) -> None:
        super().__init__()
        with torch.no_grad():
            for i in ("0", "2"):
                own, other = net[int(i)], off[int(i)]
                self.register_parameter(f"change{i}", nn.Parameter(own.weight - other.weight))
                self.register_buffer(f"off{i}", other.weight.clone())
                self.register_buffer(f"b{i}", own.bias.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 3) for x (B, 5)."""
        x = F.linear(x, self.off0 + self.change0, self.b0).tanh()
        return F.linear(x, self.off2 + self.change2, self.b2)


@pytest.mark.parametrize(
    "sampler",
    ["gumbel", "hard_concrete", "continuous_sparsification", "top_k", "magnitude", "gradient_weight", "snip", "integrated_gradients"],
)
def test_every_sampler_and_ranking_is_about_the_changes(sampler: str) -> None:
    """Logits, masks, and the cut by score are those of a network whose masked parameters are the changes themselves."""
    net, off = network(0), network(9)
    options = {"sampler": sampler, "samples": K, "steps": 4, "init": 0.1, "density": 0.4, "progress": False}
    ours = modhook.fit_masks(net, batches(), loss_of, off=off, **options)
    theirs = modhook.fit_masks(Changed(net, off), batches(), loss_of, **options)
    torch.testing.assert_close(list(ours.logits.values()), list(theirs.logits.values()), rtol=1e-9, atol=1e-11)
    assert [m.tolist() for m in ours.masks.values()] == [m.tolist() for m in theirs.masks.values()]
    one, two = (fit.curve(batches(), score_of, points=5) for fit in (ours, theirs))
    for name in ("score", "complement"):
        torch.testing.assert_close(torch.tensor(one[name].values), torch.tensor(two[name].values))
    assert abs(one.attrs["nothing"] - two.attrs["nothing"]) < 1e-9
    within = 0.5
    assert ours.smallest(batches(), score_of, within).kept() == theirs.smallest(batches(), score_of, within).kept()


@pytest.mark.parametrize("kind", ["shuffled", "redrawn"])
def test_cuts_are_scored_with_what_the_fit_has_drawn(kind: str) -> None:
    """The curve's scores are those of deep copies with the drawn weights, of the fit's own seed; `within=` cuts by them too."""
    net, data = network(0), batches()
    fit = modhook.fit_masks(net, data, loss_of, off=kind, samples=K, steps=2, seed=4, progress=False)
    curve = fit.curve(data, score_of, points=4)
    for i, kept in enumerate(curve["kept"].values):
        twin = fit.cut(keep=int(kept)).materialize(net, kind, seed=4)
        with torch.no_grad():
            assert float(curve["score"][i]) == pytest.approx(float(torch.cat([score_of(twin, b) for b in data]).mean()))
    given = {"samples": K, "steps": 2, "seed": 4, "progress": False, "within": 0.9, "score": score_of, "valid": data}
    assert modhook.fit_masks(net, data, loss_of, off=kind, **given).masks == fit.smallest(data, score_of, 0.9)
    other = modhook.fit_masks(net, data, loss_of, off=kind, samples=K, steps=2, seed=5, progress=False)
    assert not torch.equal(other.off[NAMES[0]], fit.off[NAMES[0]])


def test_a_saved_fit_measures_with_what_it_has_drawn(tmp_path: Path) -> None:
    """What weights become that are not kept is in the file: a loaded fit cuts by the same scores."""
    net, data = network(0), batches()
    fit = modhook.fit_masks(net, data, loss_of, off="redrawn", samples=K, steps=2, progress=False)
    fit.save(tmp_path / "fit.safetensors")
    loaded = modhook.Fit.load(tmp_path / "fit.safetensors", net)
    assert all(torch.equal(loaded.off[n], fit.off[n]) for n in NAMES)
    assert loaded.curve(data, score_of, points=4).identical(fit.curve(data, score_of, points=4))


def test_zero_is_what_there_was() -> None:
    """`off="zero"`, and a second network of zeros, give the masks of a fit that knows of no `off`, the first bit for bit."""
    net, data = network(0, torch.float32), batches(torch.float32)
    fits = [
        modhook.fit_masks(net, data, loss_of, samples=K, steps=3, progress=False, **given)
        for given in ({}, {"off": "zero"}, {"off": {n: torch.zeros_like(net.get_parameter(n)) for n in NAMES}})
    ]
    assert all(torch.equal(fits[0].logits[n], fits[1].logits[n]) for n in NAMES)
    torch.testing.assert_close(fits[0].logits, fits[2].logits)
    assert fits[0].off is None
    assert fits[1].off is None


def test_weights_that_learn_move_under_their_masks_too() -> None:
    """With `train_weights` the gradient of a weight is dL/dv times its mask, whatever a weight becomes that is not kept."""
    net, off = network(0), {n: p for n, p in network(9).state_dict().items() if n in NAMES}
    chosen = {NAMES[1]: torch.ones(3, 8, dtype=torch.bool)}
    fit = modhook.fit_masks(
        net, batches(steps=1), loss_of, off=off, samples=K, steps=1, seed=5, init=0.3, beta=0.0, train_weights=chosen,
        optimizer=sgd, clip=None, progress=False,
    )  # fmt: skip
    noise = generators(5, "", K)
    u = {n: uniform(net.get_parameter(n).detach(), noise) for n in NAMES}
    x, y = batches(steps=1)[0]
    weight, gradient = net.get_parameter(NAMES[1]).detach(), torch.zeros(3, 8, dtype=torch.float64)
    for k in range(K):
        twin, keep = copy.deepcopy(net), {n: u[n][k] > torch.sigmoid(torch.tensor(-0.3).double()) for n in NAMES}
        for n in NAMES:
            twin.get_parameter(n).data = torch.where(keep[n], net.get_parameter(n).detach(), off[n])
        (loss_of(twin, (x.chunk(K)[k], y.chunk(K)[k])) / K).backward()
        gradient += twin.get_parameter(NAMES[1]).grad * keep[NAMES[1]]
    torch.testing.assert_close(fit.weights[NAMES[1]], weight - LR * gradient, rtol=1e-9, atol=1e-12)
