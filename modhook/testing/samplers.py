"""Checks of samplers and rankings: law, gradient and penalty against counts, the chain rule and finite differences."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modhook.errors import listing
from modhook.plugin.interfaces import Ranking, Sampler, Task
from modhook.testing.common import CHECKED, ITEMS, Checked, Options, fitted, prepared, require
from modhook.testing.toy import Layers, Signs

_SAMPLES = 8
_ROWS = 2048
_GRID = (-3.0, -2.0, -1.0, -0.4, 0.0, 0.4, 1.0, 2.0, 3.0)
_ERRORS = 5.0
"""Standard errors that a count may be off."""
_DTYPES = (torch.float32, torch.float64)


def check_sampler(sampler: type[Sampler] | str, options: Options | None = None) -> None:
    """Check a sampler, or a ranking without training (`modhook.Ranking`).

    Samples are the weight times a mask of numbers from 0 to 1, drawn from the generators alone, each sample from its own; as many are
    kept as `keep_probability` says, counted in 16,384 draws of each of nine logits; gradients are finite, follow the chain rule, push
    the logit of a useful weight up, and equal finite differences where masks are soft; `penalty_slope` is the slope of `penalty`;
    deterministic masks and probabilities follow the logits; `start` and `advance` depend on nothing but what they are given, and
    masks are learned.

    Of a ranking: `scores` gives finite numbers of the weights' shapes, the same at every call, from no more batches than it may use.

    Raises:
        AssertionError: a promise that is not kept. UserError: options that do not fit.
    """
    ranks = isinstance(sampler, type) and issubclass(sampler, Ranking)
    size = {"cut": {"density": 0.5}} if ranks else {}
    checked = Checked(
        Signs,
        Layers,
        others={"samplers": [sampler]},
        tables={"masks": {"sampler": CHECKED, **size}, "sampler": dict(options or {})},
    )
    installed = checked.plugins()
    study = checked.study(installed)
    cls = installed.load("samplers", CHECKED)

    def make() -> Any:
        return cls(study.sampler)

    if issubclass(cls, Ranking):
        _check_ranking(make, checked)
        return
    _check_start(make)
    for dtype in _DTYPES:
        _check_draws(make(), dtype)
        _check_law(make(), dtype)
        _check_gradient(make(), dtype)
    _check_soft_gradient(make())
    _check_order(make())
    _check_penalty(make())
    _check_advance(make)
    _check_density(make, own=bool(options))
    _check_learning(make, checked)


# -- inside


def _generators(count: int = _SAMPLES) -> list[torch.Generator]:
    return [torch.Generator("cpu").manual_seed(1_000 + k) for k in range(count)]


def _numbers(shape: Sequence[int], dtype: torch.dtype, seed: int) -> Tensor:
    return torch.randn(tuple(shape), generator=torch.Generator("cpu").manual_seed(seed), dtype=dtype, device="cpu")


def _exact(dtype: torch.dtype) -> Any:
    """Return how far equal numbers may be apart: compiled code of other lengths rounds otherwise."""
    return {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-12}


def _reseed(seed: int) -> None:
    """Seed what a sampler must not draw from."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def _check_start(make: Callable[[], Sampler]) -> None:
    for dtype in _DTYPES:
        weight = _numbers((6, 5), dtype, 0)
        found = []
        for seed in (1, 2):
            with torch.random.fork_rng(devices=[]):
                _reseed(seed)
                found.append(make().start(weight, torch.Generator("cpu").manual_seed(0)))
        logits = found[0]
        require(isinstance(logits, Tensor), f"start must return a tensor, not {type(logits).__name__}.")
        require(logits.shape == weight.shape, f"start must return logits of the weight's shape (6, 5), not {tuple(logits.shape)}.")
        require(logits.dtype in _DTYPES, f"start must return float32 or float64, not {logits.dtype}.")
        require(bool(logits.isfinite().all()), "start must return finite logits.")
        require(torch.equal(*found), "start draws from another source than its generator: two calls with the same one differ.")


def _check_draws(made: Sampler, dtype: torch.dtype) -> None:
    for shape in ((5,), (3, 4), (2, 3, 2, 2)):
        weight, logits = _numbers(shape, dtype, 1), _numbers(shape, dtype, 2)
        found = []
        for seed in (1, 2):
            with torch.random.fork_rng(devices=[]):
                _reseed(seed)
                found.append(made.apply(weight, logits, _generators()))
        drawn = found[0]
        require(isinstance(drawn, Tensor), f"apply must return a tensor, not {type(drawn).__name__}.")
        right = (_SAMPLES, *shape)
        require(drawn.shape == right, f"apply must return (K, *weight.shape) = {right}, not {tuple(drawn.shape)}.")
        require(drawn.dtype == dtype, f"apply must return the weight's type, {dtype}, not {drawn.dtype}.")
        require(torch.equal(*found), "apply draws from another source than its generators: two calls with the same ones differ.")
        for k in (1, 6):
            alone = made.apply(weight, logits, _generators()[k : k + 1])
            equal = torch.allclose(drawn[k : k + 1], alone, **_exact(dtype))
            require(equal, "sample k must depend on generator k alone: with fewer samples it is another one.")
        masks = made.apply(torch.ones_like(weight), logits, _generators())
        most, least = float(masks.max()), float(masks.min())
        require(least >= -1e-6 and most <= 1 + 1e-6, f"masks must lie between 0 and 1, but {least:.3g} to {most:.3g} were drawn.")
        fits = torch.allclose(drawn, weight * masks, rtol=1e-5, atol=1e-6)
        require(fits, "apply must return the weight times a mask that the logits alone decide: of other weights it is another mask.")


def _check_law(made: Sampler, dtype: torch.dtype) -> None:
    """Count, in many draws of a few logits, how often weights are kept."""
    logits = torch.tensor(_GRID, dtype=dtype, device="cpu").repeat(_ROWS, 1)  # (rows, grid)
    drawn = made.apply(torch.ones_like(logits), logits, _generators()).double()  # (K, rows, grid)
    said = made.keep_probability(logits)
    require(said.shape == logits.shape, f"keep_probability must return one number per logit, not {tuple(said.shape)}.")
    require(bool(((said >= 0) & (said <= 1)).all()), "keep_probability must lie between 0 and 1.")
    p = said.double().mean(0)  # (grid,)
    most = _ERRORS * (p * (1 - p) / (_SAMPLES * _ROWS)).sqrt() + 1e-6
    kept, mean = (drawn != 0).double().mean((0, 1)), drawn.mean((0, 1))
    off = [(found - p).abs() - most for found in (kept, mean)]
    if all(bool((far > 0).any()) for far in off):
        worst = int(off[0].argmax())
        raise AssertionError(
            f"keep_probability of a logit of {_GRID[worst]:g} is {p[worst]:.3f}, but of {_SAMPLES * _ROWS:,} samples {kept[worst]:.3f} "
            f"kept the weight, and its mean mask is {mean[worst]:.3f}."
        )


def _pulled(made: Sampler, weight: Tensor, logits: Tensor, upstream: Tensor) -> Tensor:
    """Return the gradient of the logits, where samples have the gradient `upstream` (K, *shape)."""
    there = logits.clone().requires_grad_()
    drawn = made.apply(weight, there, _generators(len(upstream)))
    require(drawn.requires_grad, "apply must be differentiable in the logits; what it returns needs no gradient.")
    (found,) = torch.autograd.grad(drawn, there, upstream, allow_unused=True)
    require(found is not None, "apply must be differentiable in the logits; what it returns does not depend on them.")
    result: Tensor = found
    require(bool(result.isfinite().all()), "the gradient of the logits is not finite.")
    return result


def _check_gradient(made: Sampler, dtype: torch.dtype) -> None:
    weight, logits = _numbers((6, 5), dtype, 3), 2 * _numbers((6, 5), dtype, 4)
    upstream = _numbers((_SAMPLES, 6, 5), dtype, 5)
    ones = torch.ones_like(weight)
    through = _pulled(made, weight, logits, upstream)
    chain = _pulled(made, ones, logits, weight * upstream)
    fits = torch.allclose(through, chain, **_exact(dtype))
    require(
        fits,
        "the gradient of the logits breaks the chain rule: it must be that of the mask, times the weight and the gradient from above.",
    )
    # The sum over samples: half of them at a time.
    halves = [upstream.clone(), upstream.clone()]
    halves[0][: _SAMPLES // 2], halves[1][_SAMPLES // 2 :] = 0, 0
    first, second = (_pulled(made, weight, logits, half) for half in halves)
    fits = torch.allclose(through, first + second, **_exact(dtype))
    require(fits, "the gradient of the logits must be the sum over the samples.")
    for far in (-60.0, 60.0):
        _pulled(made, ones, torch.full_like(ones, far), torch.ones_like(upstream))
    grid = torch.tensor(_GRID, dtype=dtype, device="cpu").repeat(_ROWS, 1)  # (rows, grid)
    slopes = _pulled(made, torch.ones_like(grid), grid, torch.ones(_SAMPLES, *grid.shape, dtype=dtype, device="cpu")).double()
    mean, error = slopes.mean(0), slopes.std(0) / _ROWS**0.5
    wrong = bool((mean < -_ERRORS * error - 1e-9).any()) or not bool(mean.sum() > 0)
    require(not wrong, "the gradient must raise the logit of a weight that is useful: on average it does not rise with the mask.")


def _check_soft_gradient(made: Sampler) -> None:
    """Where masks are soft, compare the gradient with finite differences under the same random numbers, in float64."""
    logits, step = 2 * _numbers((20, 5), torch.float64, 6), 1e-6
    ones, direction = torch.ones_like(logits), _numbers((20, 5), torch.float64, 7)
    up, down = (made.apply(ones, logits + s * step * direction, _generators()) for s in (1, -1))  # (K, 20, 5)
    soft = torch.stack([(m > 1e-9) & (m < 1 - 1e-9) for m in (up, down)]).all(0)
    if not bool(soft.any()):
        return
    upstream = _numbers(up.shape, torch.float64, 8) * soft
    expected = float((upstream * (up - down)).sum() / (2 * step))
    found = float((_pulled(made, ones, logits, upstream) * direction).sum())
    close = abs(found - expected) <= 1e-4 * max(1.0, abs(expected))
    require(close, f"the gradient of soft masks is {found:.6g} in a direction in which finite differences give {expected:.6g}.")


def _check_order(made: Sampler) -> None:
    for dtype in _DTYPES:
        logits = 2 * _numbers((8, 7), dtype, 9)
        mask = made.deterministic(logits)
        require(isinstance(mask, Tensor) and mask.dtype == torch.bool, "deterministic must return a tensor of bools.")
        require(mask.shape == logits.shape, f"deterministic must return a mask of the logits' shape, not {tuple(mask.shape)}.")
        if bool(mask.any()) and not bool(mask.all()):
            ordered = bool(logits[mask].min() >= logits[~mask].max())
            require(ordered, "a larger logit must mean a weight that is needed more: deterministic keeps a smaller one than it drops.")
        rising = made.keep_probability(logits.flatten().sort().values)
        require(bool((rising.diff() >= -1e-6).all()), "keep_probability must not fall while the logit rises.")


def _check_penalty(made: Sampler) -> None:
    grid, step = torch.linspace(-3.1, 2.9, 13, dtype=torch.float64, device="cpu"), 1e-6  # without 0, where there may be a kink
    for number in (0, 3):
        made.advance(number, 10)
        cost = made.penalty(grid)
        require(isinstance(cost, Tensor) and cost.shape == grid.shape, "penalty must return one number per logit.")
        slope = torch.as_tensor(made.penalty_slope(grid), dtype=torch.float64, device="cpu").expand_as(grid)
        expected = (made.penalty(grid + step) - made.penalty(grid - step)) / (2 * step)
        off = (slope - expected).abs() - 1e-5 * (1 + expected.abs())
        worst = int(off.argmax())
        require(
            bool((off <= 0).all()),
            f"penalty_slope of a logit of {float(grid[worst]):g} is {float(slope[worst]):.5g}, but finite differences of penalty give "
            f"{float(expected[worst]):.5g}.",
        )


def _check_advance(make: Callable[[], Sampler]) -> None:
    """What is set before step 5 is the same whether the steps before it were done here or in a process that was stopped."""
    whole, continued = make(), make()
    for number in range(6):
        whole.advance(number, 10)
    continued.advance(5, 10)
    weight, logits = _numbers((4, 3), torch.float64, 10), _numbers((4, 3), torch.float64, 11)
    pairs = [
        (made.apply(weight, logits, _generators()), made.penalty(logits), made.keep_probability(logits).double())
        for made in (whole, continued)
    ]
    equal = all(torch.equal(a, b) for a, b in zip(*pairs, strict=True))
    require(equal, "what advance sets must depend on step and steps alone: a stopped stage would continue otherwise.")


def _check_density(make: Callable[[], Sampler], own: bool) -> None:
    made = make()
    weight = _numbers((40, 25), torch.float32, 12)
    logits = made.start(weight, torch.Generator("cpu").manual_seed(0)) + 0.1 * _numbers((40, 25), torch.float32, 13)
    before = made.deterministic(logits)
    other = copy.copy(made)
    other.aim(0.25)
    require(torch.equal(before, made.deterministic(logits)), "aim of a copy (copy.copy) must leave the sampler as it was.")
    if made.holds_density and not own:  # an option may say another density
        density = float(other.deterministic(logits).double().mean())
        require(
            abs(density - 0.25) <= 0.01,
            f"holds_density says that masks have the density that aim tells, 0.25, but {density:.3f} of the weights are kept.",
        )


def _check_learning(make: Callable[[], Sampler], checked: Checked) -> None:
    task, net = checked.made()
    batch = _batch(task)
    for size in ({}, {"density": 0.25}):
        fit = fitted(net.eval(), batch, task, sampler=make(), **size)
        wrong = [name for name, logits in fit.logits.items() if not bool(logits.isfinite().all())]
        require(not wrong, f"after one step the logits of {listing(wrong)} are not finite.")


def _check_ranking(make: Callable[[], Ranking], checked: Checked) -> None:
    task, net = checked.made()
    names = [name for name, weight in net.named_parameters() if weight.dim() > 1]
    batch, most = _batch(task), 3
    drawn: list[int] = []

    def batches() -> Any:
        for number in range(100):
            drawn.append(number)
            yield batch

    found = []
    for _ in range(2):
        drawn.clear()
        found.append(make().scores(copy.deepcopy(net), names, batches(), task.loss, most))
        require(len(drawn) <= most, f"scores may use {most} batches here, but drew {len(drawn)}.")
    for name in names:
        require(name in found[0], f"scores must return a tensor for every name; it lacks {name}.")
        shape = tuple(net.get_parameter(name).shape)
        score = found[0][name]
        fits = isinstance(score, Tensor) and tuple(score.shape) == shape
        require(fits, f"scores must return a number per weight: of {name}, a tensor of shape {shape}.")
        require(bool(score.isfinite().all()), f"the scores of {name} are not finite.")
        require(torch.equal(score, found[1][name]), f"the scores of {name} differ between two calls with the same batches.")
    density = fitted(net, batch, task, sampler=make(), density=0.25).masks.density
    require(abs(density - 0.25) < 0.05, f"masks of a quarter of the weights keep {density:.3f} of them.")


def _batch(task: Task) -> dict[str, Any]:
    return prepared(task, task.train_set(None), ITEMS, training=True)


