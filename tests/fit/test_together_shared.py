"""Fits that are learned together and have something in common, or may differ late: samplers, losses, batches, errors of one of them."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import pytest
import torch
from one_by_one import Heard, same
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import modhook
from modhook import Tracker
from modhook.errors import UserError
from modhook_plugins.samplers.continuous_sparsification import ContinuousSparsification

pytestmark = pytest.mark.filterwarnings("ignore::modhook.errors.TrustWarning")

SETTING: dict[str, Any] = {"samples": 2, "steps": 8, "sampler": "gumbel", "lr": 0.5, "beta": 1e-3}


def network(seed: int) -> nn.Sequential:
    """Return a small network with weights of its own."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3)).requires_grad_(False)


def batches(seed: int) -> list[tuple[Tensor, Tensor]]:
    """Return data of its own."""
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(8, 6, generator=generator), torch.randn(8, 3, generator=generator)) for _ in range(8)]


def loss(net: Any, batch: Any) -> Tensor:
    """Return the squared error."""
    return F.mse_loss(net(batch[0]), batch[1])


def of_one(net: Any, batch: Any, output: slice) -> Tensor:
    """Return the squared error of a part of the outputs."""
    return F.mse_loss(net(batch[0])[:, output], batch[1][:, output])


def check(each: list[dict[str, Any]], heard: Tracker | bool = False, **common: Any) -> None:
    """Compare fits together with `fit_masks` of each."""
    common = SETTING | common
    alone = [modhook.fit_masks(**{**common, **one}, progress=False) for one in each]
    for one, other in zip(alone, modhook.fit_masks_together(each, progress=heard, **common), strict=True):
        same(one, other)


def test_one_sampler_of_fits_with_different_steps(stacked: list[int]) -> None:
    """A sampler that hardens over the stage is at each fit's own step, though all were given the same one."""
    sampler = ContinuousSparsification()
    each: list[dict[str, Any]] = [{"seed": i, "steps": 6 + 3 * i} for i in range(3)]
    check(each, model=network(0), batches=batches(0), loss=loss, sampler=sampler)
    assert stacked


def test_fits_of_two_networks_when_those_of_the_first_have_ended(stacked: list[int]) -> None:
    """The biases of the second network are stacked also where only its fits are left: they are not those of the first."""
    models = [network(1), network(2)]
    each = [{"model": models[i // 2], "seed": i, "steps": 4 + 4 * (i // 2)} for i in range(4)]
    heard = Heard()
    check(each, heard, batches=batches(0), loss=loss)
    assert heard.said == []
    assert stacked == [4, 4, 2, 2, 2]  # after the first step and a trial; the two that are left are tried once more


@dataclasses.dataclass
class Weighed:
    """A batch with a weight that its `==` does not look at."""

    inputs: Tensor
    targets: Tensor
    weight: float = dataclasses.field(default=1.0, compare=False)


def weighed(net: Any, batch: Weighed) -> Tensor:
    """Return the squared error times the weight."""
    return batch.weight * F.mse_loss(net(batch.inputs), batch.targets)


def test_batches_that_differ_late_in_what_is_not_cut() -> None:
    """Batches are compared in every step by what they hold; what differs counts for its own fit, and is said."""
    each = [{"seed": i, "batches": [Weighed(*b, 1.0 + i * (n > 4)) for n, b in enumerate(batches(0))]} for i in range(2)]
    heard = Heard()
    check(each, heard, model=network(0), loss=weighed)
    assert heard.said == ["masks are learned one by one: their batches differ in what is not cut into groups, in some steps at least"]


@dataclasses.dataclass
class Scaled:
    """A loss with a tensor of its own, which `==` cannot compare."""

    by: Tensor

    def __call__(self, net: Any, batch: Any) -> Tensor:
        """Return the squared error, output by output times its weight."""
        return (self.by * (net(batch[0]) - batch[1]) ** 2).mean()


@pytest.mark.parametrize(
    ("losses", "at_once"),
    [
        ([Scaled(torch.arange(3.0)), Scaled(torch.arange(3.0))], False),
        ([partial(of_one, output=slice(0, 2)), partial(of_one, output=slice(0, 2))], True),
        ([partial(of_one, output=slice(0, 2)), partial(of_one, output=slice(1, 3))], False),
    ],
    ids=["objects of a class that compares tensors", "equal parts", "other parts"],
)
def test_losses_that_are_one_or_are_not(losses: list[Any], at_once: bool, stacked: list[int]) -> None:
    """Losses are one where they can never differ, whatever their `==` says or raises."""
    heard = Heard()
    each = [{"seed": i, "loss": one} for i, one in enumerate(losses)]
    check(each, heard, model=network(0), batches=batches(0))
    assert bool(stacked) is at_once
    assert heard.said == ([] if at_once else ["masks are learned one by one: their losses are different functions"])


class Breaking(torch.autograd.Function):
    """Returns its first argument; the backward pass raises where the second has a number above 0."""

    @staticmethod
    def forward(x: Tensor, broken: Tensor) -> Tensor:  # type: ignore[override]
        """Return the first."""
        return x * 1

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep the second."""
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        """Pass it on, or raise."""
        if ctx.saved_tensors[0].sum() > 0:
            raise ValueError("it is broken")
        return grad, None

    @staticmethod
    def vmap(info: Any, dims: Any, x: Tensor, broken: Tensor) -> Any:  # type: ignore[override]
        """All samples at once."""
        return Breaking.apply(x, broken), dims[0]


def breaking(net: Any, batch: Any) -> Tensor:
    """Return the squared error through it."""
    return F.mse_loss(Breaking.apply(net(batch[0]), batch[2]), batch[1])


@pytest.mark.parametrize("over", ["logits", "all"])
def test_a_backward_pass_that_raises_ends_its_own_fit(over: str, stacked: list[int]) -> None:
    """An error of one fit's backward pass in a stacked step is that fit's; the others have the numbers that they have alone."""
    each: list[dict[str, Any]] = [
        {"seed": i, "batches": [(*b, torch.full((8,), float(n == 5 and i == 1))) for n, b in enumerate(batches(0))]} for i in range(3)
    ]
    common: dict[str, Any] = SETTING | {"model": network(0), "loss": breaking, "clip_over": over, "progress": False}
    with pytest.raises(ValueError, match="it is broken") as caught:
        modhook.fit_masks_together(each, **common)
    fits: Any = caught.value.fits  # type: ignore[attr-defined]
    assert caught.value.__notes__ == ["modhook: in fit 2 of 3"]
    assert fits[1] is None
    assert stacked[:4] == [3] * 4
    for i in (0, 2):
        alone = modhook.fit_masks(**{**common, **each[i]})
        assert all(torch.equal(logit, fits[i].logits[name]) for name, logit in alone.logits.items())


def test_batches_that_draw_from_one_generator_are_refused() -> None:
    """Data loaders with one generator would give each fit other batches than alone; those with their own, or none, do not."""
    data = TensorDataset(*(torch.cat(column) for column in zip(*batches(0), strict=True)))
    generator = torch.Generator().manual_seed(1)
    loaders = [DataLoader(data, batch_size=8, shuffle=True, generator=generator) for _ in range(2)]
    common: dict[str, Any] = {**SETTING, "model": network(0), "loss": loss}
    with pytest.raises(UserError, match=r"^batches of fit 2 of 2 and of fit 1 draw from the same generator of .* of its own"):
        modhook.fit_masks_together([{"batches": one} for one in loaders], **common, progress=False)
    plain = DataLoader(data, batch_size=8, shuffle=True)
    assert len(modhook.fit_masks_together([{"seed": i} for i in range(2)], batches=plain, **common, progress=False)) == 2


def test_within_inference_mode(stacked: list[int]) -> None:
    """The caller's inference mode stops neither the fits nor that they are done at once."""
    model, data = network(0), batches(0)
    with torch.inference_mode():
        check([{"seed": i} for i in range(2)], model=model, batches=data, loss=loss)
    assert stacked


def test_networks_whose_weights_are_parametrised(stacked: list[int]) -> None:
    """Weight normalisation gives each module a class and hooks of its own; such networks are of one architecture all the same."""
    models = [network(i) for i in range(2)]
    for model in models:
        nn.utils.parametrizations.weight_norm(model[0])
    check([{"seed": i, "model": model} for i, model in enumerate(models)], batches=batches(0), loss=loss)
    assert stacked
