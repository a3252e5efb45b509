"""Masks of a size that is asked for: cuts of a fit, curves, the smallest that scores enough, densities that are held."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import modhook
from modhook.fit.target import DensityTarget
from modhook.fit.trust import told_later
from modhook_plugins.samplers.gumbel import Gumbel

WEIGHTS = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.25, 0.125, 0.0625])


class Sum(nn.Module):
    """Adds up eight inputs with known weights: a weight is worth exactly what it adds."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(WEIGHTS.clone())
        self.other = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + 0 * self.other.sum()


def kept_sum(model: nn.Module, batch: Tensor) -> Tensor:
    """The output for inputs of ones, per item: the sum of the kept weights."""
    result: Tensor = model(batch)
    return result


def squared(net: Callable[..., Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
    """How far the outputs are from the unmasked network's."""
    return (net(batch[0]) - batch[1]).square().mean()


BATCH = (torch.ones(4, 8), torch.full((4,), float(WEIGHTS.sum())))
ONES = [torch.ones(4, 8)]


def ranked(**options: Any) -> modhook.Fit:
    """A fit whose ranking is the order of the weights."""
    return modhook.fit_masks(Sum(), [BATCH], squared, sampler="magnitude", progress=False, **options)


def test_a_cut_has_the_size_that_is_asked_for() -> None:
    """`keep` and `density` count learned weights only; a fixed mask stays as it is."""
    model = Sum()
    fixed = modhook.Masks({"other": torch.tensor([True, False, True])}, model)
    fit = modhook.fit_masks(model, [BATCH], squared, sampler="magnitude", density=0.5, fixed=fixed, progress=False)
    for masks, size in ((fit.cut(keep=3), 3), (fit.cut(density=0.5), 4), (fit.masks, 4), (fit.cut(keep=0), 0)):
        assert masks["weight"].tolist() == [i < size for i in range(8)]
        assert masks["other"].tolist() == [True, False, True]
    assert fit.threshold is None, "a ranking has no threshold of its own"


def test_the_curve_is_what_the_cuts_score() -> None:
    """Score and complement of every size are the sums of kept and of dropped weights; the areas those of the trapezoids."""
    fit = ranked(density=1.0, include="weight")
    curve = fit.curve(ONES, kept_sum, points=4)
    sums = np.concatenate([[0.0], WEIGHTS.double().cumsum(0).numpy()])
    assert curve["kept"].values.tolist() == [1, 2, 4, 8]
    assert np.allclose(curve["density"], np.array([1, 2, 4, 8]) / 8)
    assert np.allclose(curve["score"], sums[[1, 2, 4, 8]])
    assert np.allclose(curve["complement"], sums[8] - sums[[1, 2, 4, 8]])
    assert (curve.attrs["unmasked"], curve.attrs["nothing"]) == (sums[8], 0)
    k, f = np.array([0, 1, 2, 4, 8]) / 8, sums[[0, 1, 2, 4, 8]] / sums[8]
    by_hand = sum((f[i] + f[i + 1]) / 2 * (k[i + 1] - k[i]) for i in range(4))
    assert curve.attrs["cpr"] == pytest.approx(by_hand)
    assert curve.attrs["cmd"] == pytest.approx(1 - by_hand)


@pytest.mark.parametrize(("within", "size"), [(0.5, 1), (0.3, 2), (0.2, 3), (0.01, 7), (0.0, 8)])
def test_the_smallest_cut_is_the_smallest_that_scores_enough(within: float, size: int) -> None:
    """Of all sizes tried one by one, the first whose sum is enough; the same by `fit_masks(within=)`."""
    fit = ranked(density=1.0, include="weight")
    sums = WEIGHTS.double().cumsum(0)
    assert size == next(n for n in range(1, 9) if sums[n - 1] >= (1 - within) * sums[-1])
    assert fit.smallest(ONES, kept_sum, within).kept() == size
    direct = ranked(within=within, score=kept_sum, valid=iter(ONES), include="weight")
    assert direct.masks == fit.cut(keep=size)


def test_masks_that_keep_nothing_are_told() -> None:
    """Where the score without any weight is enough already, each way to the smallest cut warns of its empty mask, at the caller's line."""
    fit, said = ranked(density=1.0, include="weight"), "the masks that lose at most 0.01 keep no weight: what they are measured by needs"

    def same(model: nn.Module, batch: Tensor) -> Tensor:
        return torch.ones(len(batch))

    def direct() -> modhook.Masks:
        found = ranked(within=0.01, score=same, valid=ONES, include="weight")
        assert found.history.attrs["trust"] == [f"cut: {found.cautions[0]}"]
        return found.masks

    for way in (lambda: fit.smallest(ONES, same), lambda: fit.smallest_by(lambda masks: 1.0), direct):
        with pytest.warns(modhook.TrustWarning, match=said) as caught:
            masks = way()
        assert (len(caught), masks.kept()) == (1, 0)
        assert caught[0].filename == __file__
    with told_later():  # a stage of a study: its findings count the masks themselves
        assert fit.smallest(ONES, same).kept() == 0


def test_a_score_that_falls_and_rises_again_has_its_small_mask_found() -> None:
    """Cuts of 9 to 11 weights and of 700 on score enough, those between do not: the small one is found, not that of bisection."""
    fit = ranked_many()

    def enough(masks: modhook.Masks | None) -> float:
        return 1.0 if masks is None or masks.kept() >= 700 or 9 <= masks.kept() <= 11 else 0.0

    assert next(n for n in range(1, 1001) if enough(fit.cut(keep=n)) == 1) == 9
    assert fit.smallest_by(enough).kept() == 9


def test_the_samplers_own_mask_is_a_size_that_is_looked_at() -> None:
    """Only the sampler's own mask and nearly all weights score enough: the sampler's own is found, for `within` too."""
    model, batch = dense(), next(iter(Noise()))
    fit = modhook.fit_masks(model, [batch], mse, init=STAIRS, exclude=("*bias*", "2.*"), steps=1, lr=1e-6, progress=False)
    own = fit.masks.kept()
    assert own == 423

    def only(masks: modhook.Masks | None) -> float:
        return 1.0 if masks is None or masks.kept() in (own, 1000) else 0.0

    assert fit.smallest_by(only).kept() == own

    def score(net: nn.Module, x: Tensor) -> Tensor:
        kept = int(net.get_parameter("0.weight").count_nonzero())
        return torch.full((len(x),), 1.0 if kept in (own, 1000) else 0.0)

    options = {"init": STAIRS, "exclude": ("*bias*", "2.*"), "steps": 1, "lr": 1e-6, "progress": False}
    direct = modhook.fit_masks(model, [batch], mse, within=0.5, score=score, valid=[batch[0]], **options)  # type: ignore[arg-type]
    assert direct.masks.kept() == own


def test_cuts_are_measured_on_the_weights_that_were_learned_with_them() -> None:
    """`curve`, `smallest` and `within` measure the network with `fit.weights` in place, as a copy by hand does, tied names too."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 1)).double()
    model[2].weight = model[0].weight
    x = torch.randn(16, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    before = copy.deepcopy(model.state_dict())

    def score(net: nn.Module, batch: Tensor) -> Tensor:
        found: Tensor = -(net(batch)[:, 0] - 3).square()
        return found

    fit = modhook.fit_masks(
        model,
        [(x, torch.full((16, 1), 3.0, dtype=torch.float64))],
        mse,
        train_weights={"2.weight": torch.ones(4, 4, dtype=torch.bool), "3.bias": torch.ones(1, dtype=torch.bool)},
        exclude=("3.bias",),
        within=0.5,
        score=score,
        valid=[x],
        steps=40,
        lr=0.1,
        progress=False,
    )
    twin = copy.deepcopy(model)
    own = dict(twin.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, weight in fit.weights.items():
            own[name].copy_(weight)

    def by_hand(masks: modhook.Masks | None) -> float:
        one = copy.deepcopy(twin)
        parameters = dict(one.named_parameters())
        with torch.no_grad():
            for name, mask in (masks or {}).items():
                parameters[name].mul_(mask)
            return float(-(one(x)[:, 0] - 3).square().mean())

    curve = fit.curve([x], score, points=5)
    assert curve.unmasked == pytest.approx(by_hand(None))
    assert curve.score.values.tolist() == pytest.approx([by_hand(fit.cut(keep=int(n))) for n in curve.kept])
    assert fit.masks == fit.smallest([x], score, 0.5) == fit.smallest_by(by_hand, 0.5)
    assert by_hand(fit.masks) >= 1.5 * by_hand(None)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_several_metrics_need_a_name() -> None:
    """A dictionary of scores is measured by the one that is named."""
    fit = ranked(density=1.0, include="weight")

    def both(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        return {"sum": model(batch), "minus": -model(batch)}

    assert fit.smallest(ONES, both, 0.2, metric="sum").kept() == 3
    with pytest.raises(modhook.UserError, match=r"several metrics .*say which with metric="):
        fit.smallest(ONES, both)
    with pytest.raises(modhook.UserError, match="no metric 'some'"):
        fit.curve(ONES, both, metric="some")


STAIRS = {"0.weight": torch.linspace(0.4225, -0.5775, 1000).view(50, 20)}
"""Logits of which 423 are above zero."""


def ranked_many() -> modhook.Fit:
    """A fit over 1,000 weights."""
    batch = next(iter(Noise()))
    return modhook.fit_masks(dense(), [batch], mse, sampler="magnitude", density=0.5, exclude=("*bias*", "2.*"), progress=False)


def dense() -> nn.Module:
    """A network with enough weights for shares of one in a hundred."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 50), nn.ReLU(), nn.Linear(50, 10))


class Noise:
    """New random batches at every pass, always the same ones."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        while True:
            x = torch.randn(16, 20, generator=generator)
            yield x, x[:, :10]


def mse(net: Callable[..., Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
    """Distance to the first ten inputs."""
    return (net(batch[0]) - batch[1]).square().mean()


@pytest.mark.parametrize("sampler", ["gumbel", "hard_concrete", "continuous_sparsification", "top_k"])
@pytest.mark.parametrize("density", [0.3, 0.05])
def test_a_density_is_reached(sampler: str, density: float) -> None:
    """The masks have the density to the weight, and the sampler's own expected density is within a twentieth of it."""
    fit = modhook.fit_masks(dense(), Noise(), mse, sampler=sampler, density=density, steps=120, progress=False)
    assert fit.masks.kept() == round(density * fit.masks.size)
    if sampler in ("gumbel", "hard_concrete"):
        from modhook.plugin.manager import plugins

        drawn = plugins().load("samplers", sampler)()
        expected = torch.cat([drawn.keep_probability(v).flatten() for v in fit.logits.values()]).mean()
        assert float(expected) == pytest.approx(density, rel=0.05)


def test_densities_by_pattern() -> None:
    """Every group of parameters has its own density; the first pattern that matches counts."""
    shares = {"0.*": 0.1, "*": 0.6}
    fit = modhook.fit_masks(dense(), Noise(), mse, density=shares, steps=60, progress=False)
    kept = fit.masks.kept(per_tensor=True)
    assert kept == {"0.weight": 100, "2.weight": 300}


def test_the_held_density_follows_its_schedule() -> None:
    """After every step the mean keep-probability is on the logarithmic line from start to target, then at the target."""
    logits = {"a": torch.full((400,), 2.0), "b": torch.linspace(-3, 3, 100)}
    target, steps = DensityTarget(((("a", "b"), 0.1),)), 20
    start = float(torch.cat(list(logits.values())).sigmoid().mean())
    for step in range(steps):
        logits["a"] += 0.05 * torch.randn(400, generator=torch.Generator().manual_seed(step))
        target.hold(logits, Gumbel(), step, steps)
        goal = start * (0.1 / start) ** min(1, (step + 1) / 10)
        assert float(torch.cat(list(logits.values())).sigmoid().mean()) == pytest.approx(goal, rel=0.05)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"density": 0.0}, "density must be a finite number greater than 0 and of at most 1, not 0.0"),
        ({"density": 1.5}, "not 1.5"),
        ({"density": 0.1, "beta": 1e-4}, "density= or beta=, not both"),
        ({"density": {"0.*": 0.1}}, "no share for 2.weight; add a pattern"),
        ({"density": {"1.*": 0.1}}, "density pattern '1.\\*' matches no parameter"),
        ({"density": 0.1, "within": 0.1}, "not both"),
        ({"score": mse, "within": 0.1}, "score= needs valid="),
        ({"within": 1.0, "score": mse, "valid": [1]}, "within must be .* less than 1, not 1.0"),
        ({"score": mse, "sampler": "gumbel"}, "say what within= is measured by"),
        ({"sampler": "magnitude"}, "ranks weights and has no threshold of its own; give density= or within="),
    ],
)
def test_a_size_that_cannot_be_is_one_sentence(options: dict[str, Any], said: str) -> None:
    """Sizes that contradict each other or do not exist are refused before anything runs."""
    with pytest.raises(modhook.UserError, match=said) as caught:
        modhook.fit_masks(dense(), Noise(), mse, steps=1, progress=False, **options)
    assert str(caught.value).count(". ") == 0


def test_a_ranking_trains_no_weights() -> None:
    """Weights that are to learn beside a ranking, which has no steps, are refused and not left as they are without a word."""
    model = dense()
    name, weight = next(iter(model.named_parameters()))
    with pytest.raises(modhook.UserError, match=r"Magnitude ranks weights and learns nothing.*leave train_weights out"):
        modhook.fit_masks(
            model,
            Noise(),
            mse,
            sampler="magnitude",
            density=0.5,
            train_weights={name: torch.ones_like(weight, dtype=torch.bool)},
            progress=False,
        )


def test_scores_that_cannot_be_compared() -> None:
    """A score that is no number, an empty set and a loss that nothing meets are one sentence each."""
    fit = ranked(density=1.0, include="weight")
    with pytest.raises(modhook.UserError, match="the score is nan"):
        fit.curve(ONES, lambda m, b: m(b) * float("nan"))
    with pytest.raises(modhook.UserError, match="nothing to evaluate"):
        fit.curve([], kept_sum)
    for wrong in (None, 3, {"x": ONES[0]}):
        with pytest.raises(modhook.UserError, match="batches must be an iterable of batches"):
            fit.curve(wrong, kept_sum)  # type: ignore[arg-type]
        with pytest.raises(modhook.UserError, match="batches must be an iterable of batches"):
            fit.smallest(wrong, kept_sum)  # type: ignore[arg-type]
    with pytest.raises(modhook.UserError, match="score must be a function"):
        fit.curve(ONES, 3)  # type: ignore[arg-type]
    with pytest.raises(modhook.UserError, match=r"no cut scores within 0\.01 of 99"):
        fit.smallest(ONES, kept_sum, reference=99)


def test_rankings_are_their_formulas() -> None:
    """Scores equal what finite differences of the loss, in float64, say about each weight."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    data = [(torch.randn(6, 3).double(), torch.randn(6, 2).double()) for _ in range(3)]

    def loss(net: Any, batch: Any) -> Tensor:
        return (net(batch[0]) - batch[1]).square().mean()

    def slope(at: float, batch: Any) -> Tensor:
        """dL/dw of the first layer by central differences, with all masked weights times `at`."""
        out, eps = torch.zeros(4, 3).double(), 1e-5
        originals = {n: p.detach().clone() for n, p in model.named_parameters()}
        with torch.no_grad():
            for n in ("0.weight", "2.weight"):
                model.get_parameter(n).mul_(at)
            w = model.get_parameter("0.weight")
            for i in range(4):
                for j in range(3):
                    w[i, j] += eps
                    up = loss(model, batch)
                    w[i, j] -= 2 * eps
                    out[i, j] = (up - loss(model, batch)) / (2 * eps)
                    w[i, j] += eps
            for n, p in model.named_parameters():
                p.copy_(originals[n])
        return out

    w = model[0].weight.detach()
    slopes = [slope(1.0, b) for b in data]
    path = [sum(slope((i + 0.5) / 10, b) for i in range(10)) / 10 for b in data]
    right = {
        "magnitude": w.abs(),
        "gradient_weight": sum((w * s).abs() for s in slopes) / 3,
        "snip": (w * sum(slopes) / 3).abs(),
        "integrated_gradients": sum((w * p).abs() for p in path) / 3,
    }
    before = {n: p.clone() for n, p in model.state_dict().items()}
    for name, expected in right.items():
        fit = modhook.fit_masks(model, data, loss, sampler=name, density=0.5, progress=False)
        torch.testing.assert_close(fit.logits["0.weight"], expected, rtol=1e-6, atol=1e-9)
    assert all(torch.equal(p, before[n]) for n, p in model.state_dict().items()), "the network is as it was"


def test_a_ranking_without_batches_says_so() -> None:
    """Rankings by gradients need data."""
    with pytest.raises(modhook.UserError, match="no batch to rank weights by"):
        modhook.fit_masks(dense(), [], mse, sampler="snip", density=0.5, progress=False)
