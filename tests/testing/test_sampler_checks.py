"""`check_sampler`: every sampler of modhook passes, and each broken promise is named."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

from modhook import Ranking, Sampler
from modhook.errors import StudyError
from modhook.plugin.manager import plugins
from modhook.testing import check_sampler


@attrs.frozen
class Sharpness:
    sharpness: float = 1.0


class Soft(Sampler):
    """sigmoid(sharpness l + noise), a soft mask whose probability of being there at all is 1."""

    Options = Sharpness

    def mask(self, logits: Tensor, noise: Tensor) -> Tensor:
        return torch.sigmoid(self.options.sharpness * logits + noise)

    def drawn(self, logits: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return torch.stack([torch.empty_like(logits).normal_(generator=g) for g in generators])

    def apply(self, weight: Tensor, logits: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return weight * self.mask(logits, self.drawn(logits, generators)).to(weight.dtype)

    def keep_probability(self, logits: Tensor) -> Tensor:
        return torch.ones_like(logits)


class Hard(Sampler):
    """1 with probability sigmoid(l), straight through to the probability."""

    def apply(self, weight: Tensor, logits: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        keep = logits.sigmoid()
        hard = (torch.stack([self.numbers(logits, g) for g in generators]) < keep).to(weight.dtype)
        return weight * (hard + keep - keep.detach())

    def numbers(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        return torch.empty_like(logits).uniform_(generator=generator)


def changed(of: type[Sampler], **members: Any) -> type[Sampler]:
    """The sampler with other members."""
    return type("Changed", (of,), members)


def own_noise(self: Hard, logits: Tensor, generator: torch.Generator) -> Tensor:
    """Torch's global numbers."""
    return torch.rand(logits.shape, dtype=logits.dtype)


def pythons_noise(self: Hard, logits: Tensor, generator: torch.Generator) -> Tensor:
    """One number of Python's for a whole tensor."""
    return torch.full_like(logits, random.random())


def halves(self: Soft, weight: Tensor, logits: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Samples that come in pairs: the second of each has the numbers of the first, turned round."""
    noise = self.drawn(logits, generators)
    noise[1::2] = -noise[: len(noise) // 2 * 2 : 2]
    return weight * self.mask(logits, noise).to(weight.dtype)


class _Twice(torch.autograd.Function):
    """The identity with twice its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * grad


class _Ignored(torch.autograd.Function):
    """A hard mask of all the weights, whose gradient forgets the weight."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, logits: Tensor, count: int) -> Tensor:
        return (weight * (logits >= 0)).expand(count, *weight.shape).clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        return None, grad.sum(0), None


def wrong_slope(self: Soft, weight: Tensor, logits: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Twice the gradient that the soft mask has."""
    return Soft.apply(self, weight, _Twice.apply(logits), generators)


def forgotten_weight(self: Any, weight: Tensor, logits: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """A gradient without the weight."""
    return _Ignored.apply(weight, logits, len(generators))


def steps_in_all(self: Any, step: int, steps: int) -> None:
    """Count calls instead of looking at the step."""
    self.told = getattr(self, "told", 0) + 1


def sharper(self: Any, weight: Tensor, logits: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Masks that depend on what was counted."""
    return Soft.apply(self, weight, logits * getattr(self, "told", 1), generators)


def as_is(self: Any, logits: Tensor) -> Tensor:
    """The mask itself."""
    return (logits >= 0).to(logits.dtype)


MISTAKES: dict[str, tuple[type[Sampler], str]] = {
    "its own noise": (changed(Hard, numbers=own_noise), "apply draws from another source than its generators"),
    "python's noise": (changed(Hard, numbers=pythons_noise), "apply draws from another source than its generators"),
    "samples in pairs": (changed(Soft, apply=halves), "sample k must depend on generator k alone"),
    "one mask for all": (
        changed(Hard, apply=lambda self, w, a, g: w * a.sigmoid()),
        r"apply must return \(K, \*weight.shape\) = \(8, 5\), not \(5,\)",
    ),
    "another type": (changed(Hard, apply=lambda self, w, a, g: Hard.apply(self, w, a, g).double()), "not torch.float64"),
    "a scaled mask": (changed(Hard, apply=lambda self, w, a, g: 2 * Hard.apply(self, w, a, g)), "masks must lie between 0 and 1"),
    "masks by the weight": (
        changed(Hard, apply=lambda self, w, a, g: Hard.apply(self, w, a + w.abs(), g)),
        "of other weights it is another mask",
    ),
    "another law": (
        changed(Hard, keep_probability=lambda self, a: (2 * a).sigmoid()),
        r"keep_probability of a logit of 1 is 0.881, but of 16,384 samples 0.7\d\d kept the weight",
    ),
    "no gradient": (changed(Hard, apply=lambda self, w, a, g: Hard.apply(self, w, a.detach(), g)), "must be differentiable in the logits"),
    "the weight forgotten": (changed(Hard, apply=forgotten_weight, keep_probability=as_is), "breaks the chain rule"),
    "the wrong way": (
        changed(Soft, mask=lambda self, a, n: torch.sigmoid(n - a), deterministic=lambda self, a: a >= 0),
        "the gradient must raise the logit of a weight that is useful",
    ),
    "twice the gradient": (changed(Soft, apply=wrong_slope), "in a direction in which finite differences give"),
    "the smallest logits": (changed(Soft, deterministic=lambda self, a: a < 0), "a larger logit must mean a weight that is needed more"),
    "masks that are no bools": (changed(Soft, deterministic=lambda self, a: (a >= 0).float()), "must return a tensor of bools"),
    "a wrong slope": (
        changed(Soft, penalty=lambda self, a: a**2, penalty_slope=lambda self, a: a),
        "penalty_slope of a logit of -3.1 is -3.1, but finite differences of penalty give -6.2",
    ),
    "steps that are counted": (changed(Soft, advance=steps_in_all, apply=sharper), "what advance sets must depend on step and steps alone"),
    "a density that is not held": (changed(Soft, holds_density=True), "masks have the density that aim tells, 0.25, but"),
    "logits of another shape": (changed(Soft, start=lambda self, w, g: torch.zeros(3)), r"of the weight's shape \(6, 5\), not \(3,\)"),
    "a start by chance": (changed(Soft, start=lambda self, w, g: torch.rand_like(w)), "start draws from another source than its generator"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_sampler_that_breaks_a_promise(mistake: str) -> None:
    """Each mistake of a sampler is found, and the message names it."""
    sampler, said = MISTAKES[mistake]
    with pytest.raises(AssertionError, match=said):
        check_sampler(sampler)


def test_sound_samplers_pass() -> None:
    """Soft and hard ones of one's own, and every sampler and ranking of modhook; options are a study's."""
    check_sampler(Soft, {"sharpness": 2.0})
    check_sampler(Hard)
    installed = plugins()
    for name in installed.names("samplers"):
        check_sampler(installed.load("samplers", name))
    check_sampler(installed.load("samplers", "gumbel"), {"temperature": 0.5, "penalty": "l0"})
    with pytest.raises(StudyError, match=r"sampler\.sharpnes: unknown key"):
        check_sampler(Soft, {"sharpnes": 2.0})


class Weights(Ranking):
    """|w|."""

    def scores(
        self, model: nn.Module, names: Sequence[str], batches: Iterator[Any], loss: Callable[..., Tensor], steps: int
    ) -> dict[str, Tensor]:
        return {name: self.score(model.get_parameter(name).detach(), batches, steps) for name in names}

    def score(self, weight: Tensor, batches: Iterator[Any], steps: int) -> Tensor:
        return weight.abs()


def greedy(self: Weights, weight: Tensor, batches: Iterator[Any], steps: int) -> Tensor:
    """Take one batch too many."""
    for _ in range(steps + 1):
        next(batches)
    return weight.abs()


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (greedy, "scores may use 3 batches here, but drew 8"),
        (lambda self, w, b, s: w.abs().mean(0), r"scores must return a number per weight: of 0.weight, a tensor of shape \(8, 6\)"),
        (lambda self, w, b, s: w.abs().log() - w.abs().log(), "^$"),
        (lambda self, w, b, s: 1 / (w - w), "the scores of 0.weight are not finite"),
        (lambda self, w, b, s: torch.rand_like(w), "the scores of 0.weight differ between two calls"),
    ],
)
def test_rankings(score: Any, said: str) -> None:
    """A ranking of one's own passes; too many batches, other shapes, no numbers and chance are found."""
    check_sampler(Weights)
    if said == "^$":  # all alike: a ranking, if a poor one
        check_sampler(changed(Weights, score=score))
        return
    with pytest.raises(AssertionError, match=said):
        check_sampler(changed(Weights, score=score))
