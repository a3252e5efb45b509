"""Fits that are learned together: the numbers of one by one, to the last bit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from one_by_one import Heard, same
from torch import Tensor, nn
from torch.nn import functional as F

import modhook
from modhook import Tracker
from modhook.errors import RunError, UserError
from modhook.fit import together
from modhook.fit.result import Fit

pytestmark = pytest.mark.filterwarnings("ignore::modhook.errors.TrustWarning")


def network(seed: int, *extra: nn.Module) -> nn.Module:
    """Return a small network with weights of its own."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), *extra, nn.Linear(12, 3)).eval().requires_grad_(False)


def batches(seed: int, items: int = 16) -> list[tuple[Tensor, Tensor]]:
    """Return data of its own."""
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(items, 6, generator=generator), torch.randint(0, 3, (items,), generator=generator)) for _ in range(3)]


def loss(net: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the cross-entropy."""
    return F.cross_entropy(net(batch[0]), batch[1])


def calls(number: int = 3) -> list[dict[str, Any]]:
    """Return fits of networks of one architecture, with a pull of their own."""
    return [{"model": network(i), "batches": batches(i), "seed": i, "beta": 0.01 * (i + 1)} for i in range(number)]


OPTIONS: dict[str, dict[str, Any]] = {
    "gumbel, clipping that bites": {"sampler": "gumbel", "samples": 4, "clip": 1e-3, "lr": 0.3},
    "hard_concrete": {"sampler": "hard_concrete", "samples": 2, "lr": 0.3, "warmup": 3},
    "clipping over all": {"sampler": "gumbel", "samples": 4, "clip": 1e-2, "clip_over": "all", "lr": 0.3},
    "scaled, other weights": {"sampler": "gumbel", "samples": 2, "off": "shuffled", "scale_regulariser": True, "lr": 0.3},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_seeds_together_are_those_of_one_by_one(options: dict[str, Any], stacked: list[int]) -> None:
    """Three networks, each with its own data, noise and pull: logits, masks and history have the bits of `fit_masks`."""
    alone = [modhook.fit_masks(**copy.deepcopy(call), loss=loss, steps=12, progress=False, **options) for call in calls()]
    fits = modhook.fit_masks_together(calls(), loss=loss, steps=12, progress=False, **options)
    for one, other in zip(alone, fits, strict=True):
        same(one, other)
    assert stacked == [3] * 10  # the first step has no route yet, and the second is the trial
    assert len({float(fit.logits["0.weight"].sum()) for fit in fits}) == 3


def test_functions_of_one_network(stacked: list[int]) -> None:
    """One network with the default setting, two data sets, fits of different lengths: each as alone, also when one is left."""
    model = network(0)
    each = [{"batches": batches(i, 32), "steps": 8 + 4 * i, "label": str(i)} for i in range(2)]
    alone = [modhook.fit_masks(model, loss=loss, progress=False, **call) for call in each]
    fits = modhook.fit_masks_together(each, model=model, loss=loss, progress=False)
    for one, other in zip(alone, fits, strict=True):
        same(one, other)
    assert stacked == [2] * 7  # weights were ranked before, so that the route was known: the first step is the trial
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


def test_random_numbers_of_data_are_each_fits_own(stacked: list[int]) -> None:
    """Batches that draw from torch's global generator get the numbers that they get alone."""

    class Drawn:
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            return ((torch.randn(8, 6), torch.randint(0, 3, (8,))) for _ in range(3))

    torch.manual_seed(5)
    state = torch.get_rng_state()
    options: dict[str, Any] = {"loss": loss, "samples": 2, "steps": 8, "sampler": "gumbel", "lr": 0.3, "progress": False}
    alone = []
    for i in range(2):
        torch.set_rng_state(state)
        alone.append(modhook.fit_masks(network(0), Drawn(), seed=i, **options))
    torch.set_rng_state(state)
    fits = modhook.fit_masks_together([{"model": network(0), "batches": Drawn(), "seed": i} for i in range(2)], **options)
    torch.manual_seed(5)
    for one, other in zip(alone, fits, strict=True):
        same(one, other)
    assert stacked == [2] * 6


class Scaled(nn.Module):
    """A layer with a number of its own, which no name and no type tells."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        """Return the product."""
        return x * self.by


def normed(seed: int) -> nn.Module:
    """Return a network whose batch norm has seen other data."""
    model = network(seed, nn.BatchNorm1d(12))
    model[2].running_mean.add_(seed)
    return model


def other_loss(net: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return another function."""
    return loss(net, batch) * 2


def scored(net: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return a score that is better after every call, so that no mask is as good as the whole network."""
    scored.calls = getattr(scored, "calls", 0) + 1  # type: ignore[attr-defined]
    return torch.full((len(batch[0]),), 1.0 / scored.calls)  # type: ignore[attr-defined]


APART: dict[str, tuple[Callable[[int], nn.Module], dict[str, Any], str]] = {
    "structure": (lambda i: network(i, *[nn.Identity()] * i), {}, "their networks have different structures"),
    "buffers": (normed, {}, "their networks hold different values in '2.running_mean'"),
    "hidden numbers": (lambda i: network(i, Scaled(1.0 + i)), {}, "their networks hold different values in '2.by'"),
    "dropout": (lambda i: network(i, nn.Dropout(0.3)).train(), {}, "draws random numbers in a step"),
    "memory": (network, {"memory": 1000}, "weights are masked layer by layer"),
    "loop": (network, {"executor": "loop"}, "by the route 'loop'"),
    "units": (network, {"units": "neuron"}, "units are not stacked over fits"),
}


@pytest.mark.parametrize(("make", "options", "why"), APART.values(), ids=list(APART))
def test_what_cannot_be_stacked_runs_one_by_one(
    make: Callable[[int], nn.Module], options: dict[str, Any], why: str, stacked: list[int]
) -> None:
    """Every reason is said in one sentence, and the numbers are those of one by one."""
    heard = Heard()
    options = {"loss": loss, "samples": 2, "steps": 4, "sampler": "gumbel", "lr": 0.3, **options}
    each = [{"model": make(i), "batches": batches(i), "seed": i} for i in range(2)]
    with modhook_state():
        alone = [modhook.fit_masks(**call, progress=False, **options) for call in each[:1]]
    with modhook_state():
        fits = modhook.fit_masks_together(each, progress=heard, **options)
    same(alone[0], fits[0])
    assert stacked == []
    assert [text for text in heard.said if why in text and text.startswith("masks are learned one by one: ")], heard.said
    assert heard.steps == [1, 2, 3, 4]


class Bounded(nn.Module):
    """A network with a bound that the data reaches late, and a factor in a buffer."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.first, self.last, self.bound = nn.Linear(6, 12), nn.Linear(12, 3), bound
        self.register_buffer("factor", torch.ones(12))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs."""
        return self.last(self.first(x).clamp(max=self.bound) * self.factor)


def bounded(seed: int, bound: float = 1e9) -> Any:
    """Return one with weights of its own."""
    torch.manual_seed(seed)
    return Bounded(bound).eval().requires_grad_(False)


GUMBEL: dict[str, Any] = {"loss": loss, "samples": 2, "steps": 8, "sampler": "gumbel", "lr": 0.3}


def test_a_number_that_shows_late(stacked: list[int]) -> None:
    """Networks with different numbers of their own are not stacked, although their first batches do not show it."""

    def each() -> list[dict[str, Any]]:
        data = [*batches(0)[:2] * 2, (batches(0)[2][0] * 100, batches(0)[2][1])]
        return [{"model": bounded(i, 30.0 if i == 1 else 1e9), "batches": data, "seed": i} for i in range(3)]

    alone = [modhook.fit_masks(**call, progress=False, **GUMBEL) for call in each()]
    for one, other in zip(alone, modhook.fit_masks_together(each(), progress=False, **GUMBEL), strict=True):
        same(one, other)
    assert set(stacked) == {2}


CHANGES: dict[str, Callable[[Any], object]] = {
    "attribute": lambda model: setattr(model, "bound", 0.1),
    "buffer": lambda model: model.factor.mul_(0.5),
    "bias, which counts no version": lambda model: model.last.bias.data.fill_(2.0),
    "hook": lambda model: model.last.register_forward_hook(lambda module, x, y: y * 0.5),
    "mode": lambda model: model.train(),
    "submodule": lambda model: setattr(model, "first", nn.Sequential(model.first, nn.ReLU())),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_a_network_that_a_callback_changes(change: Callable[[Any], object], stacked: list[int]) -> None:
    """From there on its fit runs alone, to the numbers of `fit_masks`; the others go on at once."""

    def each() -> list[dict[str, Any]]:
        fits: list[dict[str, Any]] = [{"model": bounded(i), "batches": batches(i), "seed": i} for i in range(3)]
        fits[1]["callback"] = lambda step, trainer: step == 4 and change(trainer.model)
        return fits

    def learn(call: dict[str, Any]) -> Fit | str:
        try:
            return modhook.fit_masks(**call, progress=False, **GUMBEL)
        except Exception as error:
            return str(error)

    alone, heard = [learn(call) for call in each()], Heard()
    try:
        fits = modhook.fit_masks_together(each(), progress=heard, **GUMBEL)
    except Exception as error:
        fits = [str(error) if fit is None else fit for fit in error.fits]  # type: ignore[attr-defined]
    for one, other in zip(alone, fits, strict=True):
        if isinstance(one, Fit):
            assert isinstance(other, Fit)
            same(one, other)
        else:
            assert other == f"fit 2 of 3: {one}"
    assert stacked == [3] * 2 + [2] * 3
    assert heard.said.count("masks are learned one by one: a network is changed between steps") == 1


def test_the_bar_knows_how_many_steps_there_are() -> None:
    """One stage is begun, of the steps of the longest fit, as `fit_masks` begins one."""
    seen: list[tuple[Any, ...]] = []

    class Told(Tracker):
        def stage_started(self, stage: str, steps: int) -> None:
            seen.append((stage, steps))

        def step(self, step: int, values: Any) -> None:
            seen.append((step,))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together, "tracker_of", lambda progress: Told())
        modhook.fit_masks_together([{**call, "steps": 2 + i} for i, call in enumerate(calls(2))], **{**GUMBEL, "steps": 9})
    assert seen == [("masks", 3), (1,), (2,), (3,)]


class modhook_state:
    """Within it torch's global generator starts at the same place."""

    def __enter__(self) -> None:
        self._state = torch.get_rng_state()
        torch.manual_seed(3)

    def __exit__(self, *error: object) -> None:
        torch.set_rng_state(self._state)


def test_different_losses_and_one_that_fails(stacked: list[int]) -> None:
    """A loss that is not finite ends its own fit; the others are whole, are stacked on without it, and stay in the error."""

    def failing() -> Iterator[tuple[Tensor, Tensor]]:
        yield from batches(1) * 2
        yield (torch.full((16, 6), torch.nan), batches(1)[0][1])

    options: dict[str, Any] = {"loss": loss, "samples": 2, "steps": 9, "sampler": "gumbel", "lr": 0.3}
    alone = [modhook.fit_masks(**call, progress=False, **options) for call in calls()]
    fits = calls()
    fits[1]["batches"] = failing()
    with pytest.raises(RunError, match="the loss is nan at step 7") as caught:
        modhook.fit_masks_together(fits, progress=False, **options)
    assert caught.value.__notes__ == ["modhook: in fit 2 of 3"]
    found = caught.value.fits  # type: ignore[attr-defined]
    assert found[1] is None
    same(alone[0], found[0])
    same(alone[2], found[2])
    assert stacked == [3] * 5 + [2] * 1  # of the last two steps, one is the trial of the two that are left
    fits[1]["batches"], fits[2]["batches"] = failing(), failing()
    with pytest.raises(RunError) as caught:
        modhook.fit_masks_together(fits, progress=False, **options)
    assert caught.value.__notes__[1].startswith("modhook: fit 3 of 3 failed, too: RunError: the loss is nan at step 7")
    fits[2] = {**calls()[2], "within": 1e-9, "score": scored, "valid": batches(2)}
    del fits[1]
    with pytest.raises(UserError, match="fit 2 of 2: no cut scores within") as late:
        modhook.fit_masks_together(fits, progress=False, **options)
    same(alone[0], late.value.fits[0])  # type: ignore[attr-defined]
    fits = calls()
    heard = Heard()
    modhook.fit_masks_together([fits[0], {**fits[2], "loss": other_loss}], progress=heard, **{**options, "steps": 3})
    assert "masks are learned one by one: their losses are different functions" in heard.said


@pytest.mark.parametrize(
    ("fits", "common", "text"),
    [
        ([], {}, "fits is empty"),
        ({"model": 1}, {}, "fits must be a list"),
        ([{"modl": 1}], {}, "fit 1 of 1: fit_masks has no argument 'modl' here .did you mean 'model'"),
        ([{"progress": True}], {}, "progress= belongs to all fits"),
        ([{"model": network(0), "loss": loss}], {}, "fit 1 of 1 lacks batches; give it there, or for all"),
        (calls(2), {"loss": loss, "samples": 3, "sampler": "gumbel"}, "fit 1 of 2: a batch of 16 items cannot be cut into 3"),
        ([{"model": network(i)} for i in range(2)], {"loss": loss, "batches": iter(())}, "fit 1 have the same iterator as batches"),
        (calls(2), {"loss": loss, "checkpoint": "fit.ckpt"}, "fit 2 of 2 and fit 1 have the same checkpoint file, 'fit.ckpt'"),
        (calls(2), {"loss": loss, "lr": -1.0}, "fit 1 of 2: lr must be a finite number greater than 0"),
    ],
)
def test_mistakes_are_said_with_the_fit(fits: Any, common: dict[str, Any], text: str) -> None:
    """One sentence that names the fit, before anything is learned."""
    with pytest.raises(UserError, match=text):
        modhook.fit_masks_together(fits, progress=False, **common)
