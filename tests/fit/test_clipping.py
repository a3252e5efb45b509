"""Clipping over all parameters, as the reference does: against a plain torch loop that never zeroes a frozen weight's gradient."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from modhook import CarriedGradients, Masks, UserError, fit_masks
from modhook.fit.engine import MaskTrainer
from modhook.noise.noise import generators, uniform
from modhook_plugins.samplers.gumbel import Gumbel

K, BETA, LR = 4, 0.05, 0.3


class Net(nn.Module):
    """An embedding, two layers, a layer norm, one bias vector that the network itself never trains."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 5)
        self.hidden = nn.Linear(5, 6)
        self.norm = nn.LayerNorm(6)
        self.output = nn.Linear(6, 3)
        self.second_bias = nn.Parameter(torch.zeros(3), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 3) for tokens (B, 4)."""
        return self.output(self.norm(torch.tanh(self.hidden(self.embedding(x).mean(1))))) + self.second_bias


def loss(net: Any, batch: dict[str, Tensor]) -> Tensor:
    """Cross-entropy."""
    return F.cross_entropy(net(batch["x"]), batch["y"])


def made(dtype: torch.dtype) -> tuple[Net, list[dict[str, Tensor]]]:
    """A network with large weights, so that clipping acts, and nine batches."""
    torch.manual_seed(3)
    net = Net().to(dtype)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(2)
    return net, [{"x": torch.randint(7, (12, 4)), "y": torch.randint(3, (12,))} for _ in range(9)]


class Reference:
    """The reference's masked model written out: real parameters, real `.grad`s, one optimiser per stage."""

    def __init__(self, net: Net, limit: float) -> None:
        self.net, self.limit = copy.deepcopy(net), limit
        self.frozen = {n: p for n, p in self.net.named_parameters() if p.requires_grad}
        self.stages: list[dict[str, Tensor]] = []

    def stage(
        self, batches: list[dict[str, Tensor]], label: str, names: tuple[str, ...], fixed: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], list[float]]:
        """Learn one stage's logits; return them, and every step's factor."""
        parameters = dict(self.net.named_parameters())
        logits = {n: nn.Parameter(torch.full_like(parameters[n], 1.0)) for n in names}
        self.stages.append(logits)
        adam = torch.optim.Adam(logits.values(), LR)
        sources, factors = generators(0, label, K), []
        for batch in batches:
            adam.zero_grad()
            noise = {n: uniform(logit.detach(), sources) for n, logit in logits.items()}  # (K, *shape)
            parts = [{n: t.chunk(K)[k] for n, t in batch.items()} for k in range(K)]
            total = torch.zeros(())
            for k, part in enumerate(parts):
                weights = {n: parameters[n] * m for n, m in fixed.items()}
                for n, logit in logits.items():
                    u = noise[n][k]
                    soft = torch.sigmoid(logit + torch.log(u) - torch.log1p(-u))
                    hard = (u > torch.sigmoid(-logit)).to(soft.dtype)
                    weights[n] = parameters[n] * ((hard - soft).detach() + soft)
                total = total + loss(lambda x, w=weights: functional_call(self.net, w, (x,)), part) / K
            total.backward()
            sum(BETA / 12 * logit.sum() for logit in logits.values()).backward()
            everything = [*self.frozen.values(), *itertools.chain(*(stage.values() for stage in self.stages))]
            norm = torch.nn.utils.clip_grad_norm_(everything, self.limit)
            factors.append(min(1.0, self.limit / (float(norm) + 1e-6)))
            adam.step()
        return {n: logit.detach() for n, logit in logits.items()}, factors


NAMES = ("hidden.weight", "norm.weight", "output.weight")


@pytest.mark.parametrize("executor", ["auto", "loop"])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-8), (torch.float32, 2e-4)])
@pytest.mark.parametrize("memory", [None, 6000])
def test_factors_and_logits_are_the_references(
    executor: str, dtype: torch.dtype, close: float, memory: int | None
) -> None:
    """Three stages, the last with a fixed mask: the factor of every step, and the logits after it, are those of the loop.

    Stored gradients of unmasked weights and of earlier stages' logits count, those of a parameter that never learns do not.
    """
    net, batches = made(dtype)
    expected = Reference(net, 0.5)
    for p in expected.frozen.values():  # as base training leaves them
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(1)).to(dtype) * 0.1
    carried: CarriedGradients | None = CarriedGradients({n: p.grad.clone() for n, p in expected.frozen.items()})
    before = copy.deepcopy(net.state_dict())
    for number, label in enumerate(("control", "a", "b")):
        names = NAMES if number < 2 else NAMES[:2]
        fixed = (
            {} if number < 2 else {"output.weight": torch.rand(3, 6, generator=torch.Generator().manual_seed(2)) > 0.5}
        )
        logits, factors = expected.stage(batches, label, names, fixed)
        fit = fit_masks(
            net, batches, loss, samples=K, steps=9, lr=LR, beta=BETA, init=1.0, include=NAMES, exclude=(),
            fixed=Masks(fixed) if fixed else None, clip=0.5, clip_over="all", carried=carried, label=label,
            executor=executor, memory=memory, progress=False,
        )  # fmt: skip
        carried = fit.carried
        assert carried is not None
        assert fit.history.clip_factor.values == pytest.approx(factors, rel=close)
        assert min(factors) < 0.5
        for name in names:
            torch.testing.assert_close(fit.logits[name], logits[name], rtol=0, atol=100 * close)
        for name, p in expected.frozen.items():
            assert p.grad is not None
            torch.testing.assert_close(carried.weights[name], p.grad, rtol=0, atol=close)
        earlier = [
            logit.grad.norm() ** 2 for stage in expected.stages for logit in stage.values() if logit.grad is not None
        ]
        assert carried.logits == pytest.approx(float(sum(earlier)) ** 0.5, rel=10 * close)
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_weights_that_learn_too_are_zeroed_every_step() -> None:
    """In transfer the optimiser zeroes the weights' gradients, so that only earlier logits' gradients are stored and shrink."""
    net, batches = made(torch.float64)
    twin, stages, carried = copy.deepcopy(net), [], None
    free = {n: torch.ones(p.shape, dtype=torch.bool) for n, p in net.named_parameters() if p.requires_grad}
    for label in ("control", "a"):
        parameters = dict(twin.named_parameters())
        logits = {n: nn.Parameter(torch.full_like(parameters[n], 1.0)) for n in NAMES}
        stages.append(logits)
        learned = [*logits.values(), *(parameters[n] for n in free)]
        adam, sources, factors = torch.optim.Adam(learned, LR), generators(0, label, 2), []
        for batch in batches:
            adam.zero_grad()
            noise = {n: uniform(logit.detach(), sources) for n, logit in logits.items()}
            for k in range(2):
                weights = {}
                for n, logit in logits.items():
                    u = noise[n][k]
                    soft = torch.sigmoid(logit + torch.log(u) - torch.log1p(-u))
                    weights[n] = parameters[n] * (((u > torch.sigmoid(-logit)).double() - soft).detach() + soft)
                part = {n: t.chunk(2)[k] for n, t in batch.items()}
                (loss(lambda x, w=weights, m=twin: functional_call(m, w, (x,)), part) / 2).backward()
            sum(BETA / 12 * logit.sum() for logit in logits.values()).backward()
            everything = [*parameters.values(), *itertools.chain(*(s.values() for s in stages))]
            norm = torch.nn.utils.clip_grad_norm_([p for p in everything if p.grad is not None], 0.2)
            factors.append(min(1.0, 0.2 / (float(norm) + 1e-6)))
            adam.step()
        fit = fit_masks(
            net, batches, loss, samples=2, steps=9, lr=LR, beta=BETA, init=1.0, include=NAMES, exclude=(), clip=0.2,
            clip_over="all", carried=carried, label=label, train_weights=free, progress=False,
        )  # fmt: skip
        carried = fit.carried
        assert carried is not None
        assert not carried.weights
        assert fit.history.clip_factor.values == pytest.approx(factors, rel=1e-8)
        with torch.no_grad():
            for n, weight in fit.weights.items():
                torch.testing.assert_close(weight, parameters[n].detach(), rtol=0, atol=1e-6)
                dict(net.named_parameters())[n].copy_(parameters[n])


def test_a_network_that_asks_for_no_gradient_counts_whole() -> None:
    """Freezing every weight by hand, as users do, changes nothing: then all of them count."""
    net, batches = made(torch.float64)
    net.second_bias.requires_grad_(True)
    options: dict[str, Any] = {"steps": 9, "lr": LR, "clip_over": "all", "clip": 0.5, "progress": False}
    one = fit_masks(net, batches, loss, **options)
    two = fit_masks(net.requires_grad_(False), batches, loss, **options)
    assert (one.history.clip_factor == two.history.clip_factor).all()
    assert one.history.clip_factor.min() < 0.9


def test_logits_alone_is_the_default_and_needs_no_more() -> None:
    """Without "all", or without a limit, nothing is stored and the masks are the ones of before."""
    net, batches = made(torch.float32)
    plain = fit_masks(net, batches, loss, sampler="gumbel", steps=9, clip=None, progress=False)
    off = fit_masks(net, batches, loss, sampler="gumbel", steps=9, clip=0.0, clip_over="all", progress=False)
    assert plain.carried is None
    assert off.carried is None
    assert "clip_factor" not in off.history
    assert all(torch.equal(plain.logits[n], off.logits[n]) for n in plain.logits)


def test_state_continues_exactly() -> None:
    """A trainer that takes over another's state has the same stored gradients, and leaves the same to the next stage."""
    net, batches = made(torch.float32)

    def trainer() -> MaskTrainer:
        start = {n: torch.full(p.shape, 1.0) for n, p in net.named_parameters() if n in NAMES}
        return MaskTrainer(net, loss, start, Gumbel(), samples=K, lr=LR, beta=BETA, clip=0.5, clip_over="all")

    for at in (4, 9):
        whole, second = trainer(), trainer()
        for number, batch in enumerate(batches):
            if number == at:
                state = copy.deepcopy(whole.state_dict())
            whole.step(number, batch)
        if at == len(batches):
            state = copy.deepcopy(whole.state_dict())
        second.load_state_dict(state)
        for number, batch in enumerate(batches[at:], at):
            second.step(number, batch)
        one, two = whole.clipping.carried(), second.clipping.carried()
        assert one is not None
        assert two is not None
        assert one.logits == two.logits
        assert all(torch.equal(one.weights[n], two.weights[n]) for n in one.weights)
        assert all(torch.equal(whole.logits[n], second.logits[n]) for n in NAMES)


def test_mistakes_are_named() -> None:
    """Another word, gradients of another network, a loss that no mask changes, memory for less than the stored gradients."""
    net, batches = made(torch.float32)
    with pytest.raises(UserError, match="unknown clip_over 'every'; give one of logits, all"):
        fit_masks(net, batches, loss, clip_over="every", progress=False)
    other = CarriedGradients({"hidden.weight": torch.zeros(2, 2)})
    with pytest.raises(UserError, match=r"carried holds gradients of another network: hidden\.weight"):
        fit_masks(net, batches, loss, clip_over="all", carried=other, progress=False)
    with pytest.raises(UserError, match="does not depend on any masked parameter"):
        fit_masks(net, batches, loss, include="unused", clip_over="all", progress=False)
    with pytest.raises(UserError, match="that one mask sample of this network's largest masked parameter needs"):
        fit_masks(net, batches, loss, clip_over="all", memory=1000, progress=False)
