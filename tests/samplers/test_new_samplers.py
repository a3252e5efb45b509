"""Samplers beside the paper's own against the formulas of their papers, in float64 and by autograd."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import modhook
from modhook import Sampler
from modhook.noise.noise import generators, uniform
from modhook_plugins.samplers.continuous_sparsification import ContinuousSparsification
from modhook_plugins.samplers.gumbel import Gumbel, GumbelOptions
from modhook_plugins.samplers.hard_concrete import HardConcrete, HardConcreteOptions
from modhook_plugins.samplers.top_k import TopK, TopKOptions

SHAPE = (37, 129)  # several blocks of the compiled code, the last one not full


def textbook(weight: Tensor, logits: Tensor, u: Tensor, binary: bool, b: float, gamma: float, zeta: float) -> Tensor:
    """Formulas 10 to 12 of Louizos et al., by log and sigmoid, all through autograd."""
    soft = torch.sigmoid((torch.log(u) - torch.log(1 - u) + logits) / b)
    z = torch.minimum(torch.ones(()), torch.maximum(torch.zeros(()), soft * (zeta - gamma) + gamma))
    if binary:
        z = (z > 0.5).to(z) + z - z.detach()
    return z * weight


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("other", [{}, {"temperature": 0.5, "gamma": -0.2, "zeta": 1.3}])
def test_hard_concrete_is_the_formula(binary: bool, dtype: torch.dtype, other: dict[str, float]) -> None:
    """Masked weights and the gradients of logits and weights equal the paper's formulas for the same uniform numbers."""
    torch.manual_seed(0)
    sampler = HardConcrete(HardConcreteOptions(binary=binary, **other))
    weight = torch.randn(SHAPE, dtype=dtype, requires_grad=True)
    logits = (4 * torch.randn(SHAPE, dtype=dtype)).requires_grad_()
    out = sampler.apply(weight, logits, generators(3, "s", 4))  # (4, *SHAPE)
    upstream = torch.randn_like(out)
    out.backward(upstream)
    u = uniform(logits.detach(), generators(3, "s", 4)).double().clamp_min(2.0**-25)
    w, ell = weight.detach().double().requires_grad_(), logits.detach().double().requires_grad_()
    b, gamma, zeta = (other.get(n, d) for n, d in (("temperature", 2 / 3), ("gamma", -0.1), ("zeta", 1.1)))
    right = textbook(w, ell, u, binary, b, gamma, zeta)
    right.backward(upstream.double())
    close = 1e-12 if dtype == torch.float64 else 5e-6
    for ours, theirs in ((out, right), (weight.grad, w.grad), (logits.grad, ell.grad)):
        assert (ours.double() - theirs).abs().max() < close


def test_hard_concrete_at_the_edges() -> None:
    """Logits far out give weights that are all there or not there at all, and finite gradients."""
    logits = torch.tensor([-500.0, -60.0, 60.0, 500.0]).repeat(600).requires_grad_()
    out = HardConcrete().apply(torch.ones(2400), logits, generators(0, "s", 3))
    out.sum().backward()
    assert torch.equal(out, torch.tensor([0.0, 0, 1, 1]).repeat(600).expand(3, -1))
    assert torch.equal(logits.grad, torch.zeros(2400))


def test_hard_concrete_penalty_is_the_chance_of_not_being_off() -> None:
    """The penalty of a logit is the share of its samples that are above 0, within five standard errors."""
    logits = torch.linspace(-4, 4, 9, dtype=torch.float64)
    n = 40_000
    drawn = HardConcrete().apply(torch.ones(9, dtype=torch.float64), logits, generators(1, "s", n))
    share = (drawn > 0).double().mean(0)
    penalty = HardConcrete().penalty(logits)
    assert ((share - penalty).abs() < 5 * (penalty * (1 - penalty) / n).sqrt()).all()


@pytest.mark.parametrize(
    "sampler",
    [HardConcrete(), Gumbel(GumbelOptions(penalty="l0")), Gumbel(), ContinuousSparsification(), TopK()],
    ids=lambda s: type(s).__name__ + getattr(s.options, "penalty", ""),
)
def test_slope_is_the_derivative_of_the_penalty(sampler: Sampler) -> None:
    """`penalty_slope` equals what autograd makes of `penalty`, also in the middle of annealing."""
    sampler.advance(3, 10)
    logits = torch.linspace(-5, 5, 21, dtype=torch.float64, requires_grad=True)
    (right,) = torch.autograd.grad(sampler.penalty(logits).sum() + 0 * logits.sum(), logits)
    slope = torch.as_tensor(sampler.penalty_slope(logits.detach()), dtype=torch.float64)
    torch.testing.assert_close(slope.expand_as(right), right, rtol=1e-9, atol=1e-12)


def test_a_penalty_of_ones_own_needs_no_slope() -> None:
    """A sampler that gives only `penalty` gets its slope from autograd, also where gradients are switched off."""

    class Squares(Gumbel):
        def penalty(self, logits: Tensor) -> Tensor:
            return logits**2

        penalty_slope = Sampler.penalty_slope

    with torch.no_grad():
        assert torch.equal(Squares().penalty_slope(torch.tensor([1.0, -3.0])), torch.tensor([2.0, -6.0]))


def test_continuous_sparsification_hardens() -> None:
    """The mask is sigmoid(b l) with b = 200 ** (t / T), the same for every sample, with the gradient of that formula."""
    torch.manual_seed(0)
    sampler, weight = ContinuousSparsification(), torch.randn(5, 3, dtype=torch.float64)
    for step in (0, 5, 10):
        sampler.advance(step, 10)
        logits = (torch.randn(5, 3, dtype=torch.float64) * 0.1).requires_grad_()
        out = sampler.apply(weight, logits, generators(0, "s", 4))
        upstream = torch.randn_like(out)
        (ours,) = torch.autograd.grad(out, logits, upstream)
        right = weight / (1 + torch.exp(-logits * 200 ** (step / 10)))
        (theirs,) = torch.autograd.grad(right, logits, upstream.sum(0))
        torch.testing.assert_close(out, right.detach().expand(4, 5, 3))
        torch.testing.assert_close(ours, theirs)
    assert not sampler.deterministic(torch.zeros(1)), "the paper's step function is 0 at 0"


@pytest.mark.parametrize("density", [0.05, 0.5, 1.0])
def test_top_k_keeps_its_share_of_each_tensor(density: float) -> None:
    """The mask is that of the largest scores by numpy's sorting, and every score gets the gradient w g."""
    torch.manual_seed(0)
    sampler, weight = TopK(TopKOptions(density=density)), torch.randn(20, 30)
    logits = sampler.start(weight, torch.Generator().manual_seed(1)).requires_grad_()
    out = sampler.apply(weight, logits, generators(0, "s", 2))
    upstream = torch.randn_like(out)
    (ours,) = torch.autograd.grad(out, logits, upstream)
    order = np.argsort(-logits.detach().numpy().ravel(), kind="stable")
    right = np.zeros(600, dtype=bool)
    right[order[: round(density * 600)]] = True
    assert np.array_equal(sampler.deterministic(logits).numpy().ravel(), right)
    torch.testing.assert_close(out, (weight * torch.from_numpy(right).view(20, 30)).expand(2, 20, 30))
    torch.testing.assert_close(ours, weight * upstream.sum(0))


def test_top_k_breaks_ties_by_position() -> None:
    """Of equal scores the first are kept, so that the number is always right."""
    mask = TopK(TopKOptions(density=0.5)).deterministic(torch.zeros(2, 3))
    assert mask.flatten().tolist() == [True] * 3 + [False] * 3


@pytest.mark.parametrize("kind", ["normal", "rising", "ties", "equal", "misleading"])
@pytest.mark.parametrize("density", [1e-5, 0.01, 0.5, 0.9999])
@pytest.mark.parametrize(("dtype", "threads"), [(torch.float32, 1), (torch.float32, 2), (torch.float64, 2)])
def test_top_k_finds_the_largest_of_many(kind: str, density: float, dtype: torch.dtype, threads: int) -> None:
    """In large tensors, where a sample is looked at first, the mask is still that of sorting: with ties, and where samples err."""
    n = 200_000
    scores = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=dtype)
    if kind == "rising":
        scores = scores.sort().values
    elif kind == "ties":
        scores = scores.round()
    elif kind == "equal":
        scores = torch.zeros(n, dtype=dtype)
    elif kind == "misleading":  # what is looked at, every twelfth number, is larger than all others
        scores[:: n // (1 << 14)] += 100
    order = np.argsort(-scores.numpy(), kind="stable")[: round(density * n)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        mask = TopK(TopKOptions(density=density)).deterministic(scores.view(400, 500))
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(mask.numpy().ravel().nonzero()[0], np.sort(order))


def test_top_k_takes_the_density_it_is_told() -> None:
    """`aim` gives the share, unless the options say one."""
    told, own = TopK(), TopK(TopKOptions(density=0.25))
    for sampler in (told, own):
        sampler.aim(0.1)
    assert (told.density, own.density, TopK().density) == (0.1, 0.25, 0.5)


@pytest.mark.parametrize("executor", ["vmap", "loop"])
def test_top_k_keeps_the_share_of_each_pattern(executor: str) -> None:
    """With {pattern: share} every step masks each tensor by its own share, found by sorting; the mean share masks none of them."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(10, 12), nn.Tanh(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    share = {"0.weight": 0.05, "2.weight": 0.4, "4.weight": 0.9}
    data = [(torch.randn(6, 10).double(), torch.arange(6) % 3) for _ in range(3)]
    start = {n: torch.randn(net.get_parameter(n).shape).double() for n in share}
    loss = lambda f, b: nn.functional.cross_entropy(f(b[0]), b[1])  # noqa: E731
    fit = modhook.fit_masks(
        net, data, loss, sampler="top_k", density={"0.*": 0.05, "2.*": 0.4, "*": 0.9}, init=start, samples=2, steps=3,
        optimizer=lambda tensors: torch.optim.SGD(tensors, lr=0.5), clip=None, executor=executor, progress=False,
    )  # fmt: skip
    logits = {n: t.numpy().copy() for n, t in start.items()}
    best = lambda n: np.argsort(-logits[n].ravel(), kind="stable")[: round(share[n] * logits[n].size)]  # noqa: E731
    for x, y in data:
        twin, masks = copy.deepcopy(net), {}
        for n in share:
            masks[n] = np.isin(np.arange(logits[n].size), best(n)).reshape(logits[n].shape)
            twin.get_parameter(n).data *= torch.from_numpy(masks[n])
        (sum(loss(twin, (x.chunk(2)[k], y.chunk(2)[k])) for k in range(2)) / 2).backward()
        for n in share:
            logits[n] -= 0.5 * (twin.get_parameter(n).grad * net.get_parameter(n).detach()).numpy()
    for n in share:
        np.testing.assert_allclose(fit.logits[n].numpy(), logits[n], rtol=1e-10, atol=1e-12)
        assert np.array_equal(fit.threshold[n].numpy().ravel().nonzero()[0], np.sort(best(n)))
        assert fit.history["parameter_density"].sel(parameter=n).values[-1] == round(share[n] * start[n].numel()) / start[n].numel()
    assert fit.masks == fit.threshold


def test_every_group_of_parameters_is_aimed_at_its_own_density() -> None:
    """A sampler whose keep-probability depends on its aim is held at each group's density by that group's own aim."""

    class Told(Gumbel):
        aimed = 0.0

        def aim(self, density: float) -> None:
            self.aimed = density

        def keep_probability(self, logits: Tensor) -> Tensor:
            assert self.aimed in (0.2, 0.6)
            return super().keep_probability(logits)

    net, given = nn.Sequential(nn.Linear(10, 12), nn.Linear(12, 3)), Told()
    fit = modhook.fit_masks(
        net, [torch.randn(4, 10)], lambda f, b: f(b).square().mean(), sampler=given, density={"0.*": 0.2, "1.*": 0.6},
        samples=2, steps=20, progress=False,
    )  # fmt: skip
    assert given.aimed == 0, "the user's own sampler is left as it was"
    for name, density in (("0.weight", 0.2), ("1.weight", 0.6)):
        assert float(fit.logits[name].sigmoid().mean()) == pytest.approx(density, rel=5e-3)


def test_threads_do_not_change_hard_concrete() -> None:
    """The same numbers on one thread and on two, forward and backward, for tensors large enough to be spread."""
    torch.manual_seed(0)
    weight, found = torch.randn(300, 1000), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            logits = torch.linspace(-3, 3, 300_000).view(300, 1000).requires_grad_()
            out = HardConcrete().apply(weight, logits, generators(0, "s", 4))
            out.pow(2).sum().backward()
            found.append((out.detach().clone(), logits.grad))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert math.isfinite(float(found[0][1].sum()))
