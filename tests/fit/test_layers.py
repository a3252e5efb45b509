"""Weights masked layer by layer, and again in the backward pass: the numbers of masks that are all there, and what is held of them."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import modhook
from modhook.fit.engine import MaskTrainer
from modhook.network.remade import Recipe, Remaker
from modhook.noise.noise import generators
from modhook_plugins.samplers.gumbel import Gumbel

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from measure import peak


class Cells(nn.Module):
    """Weights that are read again at every step, one tied, one asked for its type, one of a list, one not masked."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.cell = nn.Embedding(7, 6), nn.GRUCell(6, 6)
        self.more = nn.ParameterList([nn.Parameter(torch.randn(6, 6)), nn.Parameter(torch.randn(6))])
        self.out = nn.Linear(6, 7, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.more[1].expand(len(tokens), -1)
        for t in range(tokens.shape[1]):
            h = self.cell(self.embed(tokens[:, t]).to(self.more[0].dtype), h) @ self.more[0].T.contiguous()
        assert len(list(self.parameters())) == 7
        return self.out(h * self.cell.weight_ih.norm())


class Images(nn.Module):
    """Convolutions, attention, an LSTM, a parametrisation, weights that are used twice and transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.lstm = nn.LSTM(4, 5, 2, batch_first=True, bidirectional=True)
        self.out = nn.utils.parametrizations.weight_norm(nn.Linear(10, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(F.gelu(self.conv(x))).flatten(2).mT  # (B, T, 4)
        y = y + self.attend(y, y, y)[0]
        y = y + y @ self.attend.out_proj.weight.view(2, 2, 4).flatten(0, 1).t()
        return self.out(self.lstm(y)[0][:, -1])


def tokens() -> tuple[nn.Module, list[Any]]:
    """Return `Cells` and two batches."""
    torch.manual_seed(0)
    return Cells().double(), [(torch.randint(0, 7, (8, 3)), torch.randint(0, 7, (8,))) for _ in range(2)]


def images() -> tuple[nn.Module, list[Any]]:
    """Return `Images` and two batches."""
    torch.manual_seed(0)
    return Images().double().eval(), [(torch.randn(8, 1, 5, 5).double(), torch.randint(0, 3, (8,))) for _ in range(2)]


def loss(net: Any, batch: Any) -> Tensor:
    """Return the mean cross entropy."""
    return F.cross_entropy(net(batch[0]), batch[1])


def small(net: nn.Module) -> int:
    """Return the least `memory` that the largest parameter needs."""
    return 3 * max(p.numel() * p.element_size() for p in net.parameters()) + 8


@pytest.mark.parametrize("made", [tokens, images])
@pytest.mark.parametrize("sampler", ["gumbel", "hard_concrete", "top_k", "continuous_sparsification"])
def test_masks_are_those_of_weights_that_are_all_there(made: Callable[[], Any], sampler: str) -> None:
    """By every sampler logits and losses are the same as with all K masked copies, in float64."""
    net, batches = made()
    how: dict[str, Any] = {"sampler": sampler, "steps": 4, "lr": 0.1, "progress": False}
    whole = modhook.fit_masks(net, batches, loss, executor="vmap" if made is images else "loop", **how)
    parts = modhook.fit_masks(net, batches, loss, memory=small(net), **how)
    assert parts.route["route"] == "layers"
    assert whole.route["route"] in ("vmap", "loop")
    for name in whole.logits:
        torch.testing.assert_close(parts.logits[name], whole.logits[name], rtol=1e-9, atol=1e-9)
    assert parts.history["mask_loss"].values[-1] == pytest.approx(whole.history["mask_loss"].values[-1], rel=1e-9)


def test_a_step_is_a_plain_loop_over_copies() -> None:
    """The gradient of every logit is the mean over K deep copies whose weights are multiplied, by the straight-through formula."""
    net, batches = tokens()
    samples = 4
    names = [n for n, _ in net.named_parameters()]
    logits = {n: torch.full_like(p, 0.3, requires_grad=False) for n, p in net.named_parameters()}
    trainer = MaskTrainer(
        net, loss, logits, Gumbel(), samples=samples, lr=0.1, beta=0.0, clip=None, memory=small(net), seed=5
    )  # fmt: skip
    with trainer.holding():
        trainer.step(0, batches[0])
    expected = {n: torch.zeros_like(p) for n, p in logits.items()}
    for k, generator in enumerate(generators(5, "", samples)):
        noise = {n: torch.empty_like(logits[n]).uniform_(generator=generator) for n in names}
        twin = copy.deepcopy(net)
        with torch.no_grad():
            for n, p in twin.named_parameters():
                p.mul_(noise[n] > torch.sigmoid(-logits[n]))
        loss(twin, [t[2 * k : 2 * k + 2] for t in batches[0]]).backward()
        for n, p in twin.named_parameters():
            soft = torch.sigmoid(torch.logit(noise[n]) + logits[n])
            expected[n] += p.grad * dict(net.named_parameters())[n].detach() * soft * (1 - soft) / samples
    for n in names:
        torch.testing.assert_close(trainer.logits[n].grad, expected[n], rtol=1e-9, atol=1e-12)


def test_peaks_of_all_steps_keep_the_bound() -> None:
    """Neither the check of the route nor a step holds a copy of the weights per sample: first step and later ones, in weights' sizes."""
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(24))).eval()
    size = 24 * 64 * 64 * 4
    batch = torch.randn(4, 64)

    def first(memory: int | None, executor: str) -> tuple[float, float]:
        logits = {n: torch.full_like(p, 2.0, requires_grad=False) for n, p in net.named_parameters()}
        trainer = MaskTrainer(
            net, lambda f, b: f(b).square().mean(), logits, Gumbel(), samples=4, lr=0.1, beta=0.0, executor=executor, memory=memory
        )
        steps = iter([lambda: None, *(lambda i=i: trainer.step(i, batch) for i in range(3))])  # type: ignore[misc]
        step = lambda: next(steps)()  # noqa: E731
        return peak(step) / size, peak(step) / size

    at_first, later = first(3 * 64 * 64 * 4, "auto")
    assert at_first < 6.5  # a copy of the network, its gradients and both networks' values, then the step's below
    assert later < 2.5  # gradients of the logits, one layer, and what the optimiser needs for a moment
    assert first(None, "loop")[0] > 10


@pytest.mark.parametrize("units", ["neuron", ["neuron", "weight"]])
def test_units_off_fixed_and_trained_weights_are_masked_by_layers_too(units: Any) -> None:
    """Gates of units beside weights, another value for what is not kept, earlier masks and learning weights: the same logits."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    batches = [(torch.randn(8, 6).double(), torch.randint(0, 3, (8,))) for _ in range(2)]
    fixed = modhook.Masks({"0.weight": torch.rand(8, 6) > 0.2})
    hows: list[dict[str, Any]] = [
        {"units": units, "off": "shuffled"},
        {"fixed": fixed},
        {"train_weights": {"2.weight": torch.rand(8, 8) > 0.5}, "clip_over": "all"},
    ]
    for how in hows:
        how |= {"steps": 3, "progress": False, "lr": 0.1, "sampler": "gumbel"}
        whole = modhook.fit_masks(net, batches, loss, **how)
        parts = modhook.fit_masks(net, batches, loss, memory=12 * small(net) + 8000 * ("clip_over" in how), **how)
        if "clip_over" not in how:
            parts = modhook.fit_masks(net, batches, loss, memory=2 * small(net), **how)
            assert parts.route["route"] == "layers"
        for name in whole.logits:
            torch.testing.assert_close(parts.logits[name], whole.logits[name], rtol=1e-9, atol=1e-9)


class Elsewhere(modhook.Sampler):
    """Draws from the process's own generator, so that no mask can be drawn again."""

    def apply(self, weight: Tensor, logits: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Return the weight under masks of the process's own numbers."""
        u = torch.rand(len(generators), *weight.shape, dtype=weight.dtype)
        return weight * ((logits.sigmoid() - u).sigmoid())


def inside_functorch(net: Any, batch: Any) -> Tensor:
    """Return a loss that differentiates by its inputs with `torch.func`, within which nothing can be made again."""
    return torch.func.grad(lambda x: net(x).square().mean())(batch).square().mean()


def test_what_cannot_be_made_again_is_masked_all_at_once() -> None:
    """A sampler that draws from elsewhere, and a loss that runs the network inside torch.func, get masked copies, and the reason."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    batches = [torch.randn(8, 4)]
    memory = 3 * 4 * (24 + 6 + 12 + 2)
    drawn = modhook.fit_masks(net, batches, lambda f, b: f(b).square().mean(), sampler=Elsewhere(), memory=memory, steps=2, progress=False)
    assert drawn.route["route"] == "vmap"
    assert "Elsewhere draws other numbers from the same generators" in drawn.route["reason"]
    nested = modhook.fit_masks(net, batches, inside_functorch, sampler="gumbel", memory=memory, steps=2, progress=False)
    whole = modhook.fit_masks(net, batches, inside_functorch, sampler="gumbel", steps=2, progress=False)
    assert "not masked layer by layer" in nested.route["reason"]
    for name in whole.logits:
        torch.testing.assert_close(nested.logits[name], whole.logits[name])
    with pytest.raises(modhook.UserError, match=r"memory=200 bytes is less than the 288 bytes that one mask sample of"):
        modhook.fit_masks(net, batches, loss, sampler="gumbel", memory=200, steps=2, progress=False)


def test_a_fit_by_layers_goes_on_to_the_very_bits(tmp_path: Path) -> None:
    """Stopped after two of five steps and called again, it ends with the logits of one that was not stopped."""
    net, batches = images()
    how: dict[str, Any] = {"sampler": "gumbel", "steps": 5, "progress": False, "memory": small(net)}
    whole = modhook.fit_masks(net, batches, loss, **how)

    def stop(step: int, _: Any) -> None:
        if step == 2:
            raise KeyboardInterrupt

    file = tmp_path / "fit.ckpt"
    with pytest.raises(KeyboardInterrupt):
        modhook.fit_masks(net, batches, loss, checkpoint=file, checkpoint_every=0, callback=stop, **how)
    again = modhook.fit_masks(net, batches, loss, checkpoint=file, checkpoint_every=0, **how)
    assert again.route["route"] == "layers"
    assert all(torch.equal(again.logits[n], whole.logits[n]) for n in whole.logits)


class Late(nn.Module):
    """Writes into a masked weight on some inputs only."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.one.weight
        if bool((x > 5).any()):
            weight = weight.mul_(0.5)
        return self.two(F.linear(x, weight, self.one.bias) + F.linear(x, self.one.weight))


def test_a_weight_that_is_written_late_is_written_for_every_sample() -> None:
    """A write that the first batch did not show is found, and the sample run again on a copy: as with masked copies."""
    torch.manual_seed(0)
    net = Late()
    batches = [torch.randn(8, 4), torch.randn(8, 4) + 9]
    how: dict[str, Any] = {"sampler": "gumbel", "steps": 4, "progress": False}
    whole = modhook.fit_masks(net, batches, lambda f, b: f(b).square().mean(), executor="loop", **how)
    parts = modhook.fit_masks(net, batches, lambda f, b: f(b).square().mean(), memory=200, **how)
    assert parts.route["route"] == "layers"
    assert parts.route["written"] == ["one.weight"]
    for name in whole.logits:
        torch.testing.assert_close(parts.logits[name], whole.logits[name], rtol=1e-4, atol=1e-5)


def test_a_tensor_that_is_alive_is_not_made_twice() -> None:
    """One that the network holds is given again, one that it dropped is at hand for a moment, and views of it are made again right."""
    made = []

    def make(value: float) -> Recipe:
        def one(_: Any) -> Tensor:
            made.append(value)
            return torch.full((4, 3), value, requires_grad=True) * 1

        return Recipe(one, torch.empty(4, 3))

    first, second = make(1.0), make(2.0)
    remaker = Remaker([first, second])
    with remaker.active():
        one = remaker.get(first)
        assert remaker.get(second) is not one
        assert remaker.get(first) is one
        assert made == [1.0, 2.0]
        total = (one[1:].t() * torch.arange(3.0, requires_grad=True).expand(3, 3)).sum() + one.square().sum()
        del one
        remaker.get(second)  # now it is this one that is at hand
    assert made == [1.0, 2.0, 2.0]
    total.backward()
    assert made == [1.0, 2.0, 2.0, 1.0]
    assert not remaker.wrote
