"""The law of the samplers, with numbers that the device draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import modhook
from modhook.noise.noise import generators, keys, uniform
from modhook_plugins.samplers.gumbel import Gumbel, GumbelOptions
from modhook_plugins.samplers.hard_concrete import HardConcrete
from modhook_plugins.samplers.top_k import TopK, TopKOptions

There = Callable[[Any], Any]
GRID = torch.linspace(-3, 3, 7)
ROWS = 4000


def _drawn(sampler: modhook.Sampler, there: There, device: str, times: int = 2) -> Tensor:
    """Return masks of a grid of logits, drawn anew each time, on the CPU: (times, 3, rows, grid)."""
    logits = there(GRID.repeat(ROWS, 1))
    sources = generators(0, "law", 3, device)
    ones = torch.ones_like(logits)
    return torch.stack([(sampler.apply(ones, logits, sources) != 0).cpu() for _ in range(times)]).double()


def _follow(masks: Tensor, probability: Tensor) -> None:
    """Fail unless masks keep with these probabilities (grid,), apart from each other: within five standard deviations."""
    n = masks[..., 0].numel()
    deviation = (probability * (1 - probability) / n).sqrt()
    assert ((masks.mean((0, 1, 2)) - probability).abs() < 5 * deviation).all()
    centred = (masks - probability) / (probability * (1 - probability)).sqrt()
    (first, second, third), (later, _, _) = centred
    for one, other in ((first, second), (first, third), (first, later), (first[1:], first[:-1]), (first[:, 1:], first[:, :-1])):
        assert abs(float((one * other).mean())) < 5 / one.numel() ** 0.5


def _kernels() -> tuple[str, ...]:
    try:
        from modhook.noise.fused import INTERPRETED
    except ImportError:
        return ("usual",)
    return ("usual", "triton") if torch.cuda.is_available() or INTERPRETED else ("usual",)


@pytest.mark.parametrize("kernel", ["usual", "triton"])
def test_gumbel_keeps_as_often_as_it_should(kernel: str, there: There, device: str) -> None:
    """P(kept) = sigmoid(l); samples, steps and neighbours are independent."""
    if kernel not in _kernels() or (kernel == "triton" and device == "pretend"):
        pytest.skip("Triton needs a GPU, or its interpreter on the CPU")
    masks = _drawn(Gumbel(GumbelOptions(kernel=kernel)), there, device)
    _follow(masks, torch.sigmoid(GRID.double()))


def test_hard_concrete_keeps_as_often_as_it_should(there: There, device: str) -> None:
    """P(not off) is that of the paper's formula 12; samples, steps and neighbours are independent."""
    sampler = HardConcrete()
    _follow(_drawn(sampler, there, device), sampler.keep_probability(GRID.double()))


@pytest.mark.parametrize("tau", [1.0, 0.5])
@pytest.mark.parametrize("kernel", ["usual", "triton"])
def test_gumbel_is_its_formula(kernel: str, tau: float, there: There, device: str) -> None:
    """Masks and gradients of the device are those of the formula in float64, summed over the samples."""
    if kernel not in _kernels() or (kernel == "triton" and device == "pretend"):
        pytest.skip("Triton needs a GPU, or its interpreter on the CPU")
    torch.manual_seed(0)
    weight, logits, grad = torch.randn(9, 500), 2 * torch.randn(9, 500), torch.randn(3, 9, 500)
    w, ell = there(weight).requires_grad_(), there(logits).requires_grad_()
    sampler = Gumbel(GumbelOptions(kernel=kernel, temperature=tau))
    found = sampler.apply(w, ell, generators(1, "formula", 3, device))
    found.backward(there(grad))
    u = _noise(ell, generators(1, "formula", 3, device), kernel).cpu().double()  # (3, 9, 500)
    soft = torch.sigmoid((logits.double() + u.log() - torch.log1p(-u)) / tau)
    kept = soft > 0.5
    clear = (soft - 0.5).abs() > 1e-5
    assert torch.equal((found.detach().cpu() != 0)[clear], kept[clear])
    to_logits = (grad * soft * (1 - soft) / tau).sum(0) * weight
    assert w.grad is not None
    assert ell.grad is not None
    torch.testing.assert_close(ell.grad.cpu().double(), to_logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(w.grad.cpu()[clear.all(0)], (grad * kept).sum(0).float()[clear.all(0)])


@pytest.mark.parametrize("density", [0.001, 0.3, 0.5, 0.999])
def test_top_k_keeps_the_first_of_equal_scores(density: float, there: There) -> None:
    """The device's mask is that of a stable sort: the largest, and of equal scores those that come first."""
    torch.manual_seed(0)
    for scores in (torch.randn(40, 30), torch.randint(-2, 3, (40, 30)).float(), torch.zeros(1200)):
        sampler = TopK(TopKOptions(density=density))
        order = scores.reshape(-1).sort(descending=True, stable=True).indices[: round(density * 1200)]
        expected = torch.zeros(1200, dtype=torch.bool).scatter_(0, order, True).view(scores.shape)
        assert torch.equal(sampler.deterministic(there(scores)).cpu(), expected)


@pytest.mark.parametrize("size", [5000, 2**31 + 3000])
def test_fused_masks_of_any_size_are_those_of_the_cpu(size: int, device: str) -> None:
    """With keys of the CPU the fused kernels draw the CPU's numbers at every weight, also beyond those that 32 bits count."""
    if "triton" not in _kernels() or device == "pretend":
        pytest.skip("Triton needs a GPU, or its interpreter on the CPU")
    if size > 2**31 and (device != "cuda" or torch.cuda.mem_get_info()[0] < 40e9):
        pytest.skip("more weights than 2^31 need a GPU with 40 GB")
    from modhook.noise import fused
    from modhook.noise.kernels import BLOCK, draw_block

    weight = torch.ones(size, dtype=torch.bfloat16, device=device)
    logits = torch.zeros(size, device=device)
    drawn = fused.streams(generators(0, "far", 2), weight.device)
    found = fused.masked(drawn, weight, logits)  # (2, size)
    _, to_logits = fused.gradients(drawn, weight, logits, found, 1.0, of_weight=False, of_logits=True)
    assert to_logits is not None
    last, blocks = -(-size // BLOCK), []
    for b in (0, 1, last - 2, last - 1):
        u = np.empty((2, BLOCK), np.float32)
        for row, key in zip(u, keys(generators(0, "far", 2)), strict=True):
            draw_block(key, b, row)
        blocks.append(torch.from_numpy(u)[:, : size - b * BLOCK].double())
        where = slice(b * BLOCK, b * BLOCK + blocks[-1].shape[1])
        kept, slope = blocks[-1] > 0.5, blocks[-1] * (1 - blocks[-1])
        assert torch.equal(found[:, where].cpu() != 0, kept)
        torch.testing.assert_close(to_logits[where].cpu().double(), (kept * slope).sum(0), rtol=1e-5, atol=1e-9)
    assert not torch.equal(blocks[0], blocks[1])


def _noise(like: Tensor, sources: list[torch.Generator], kernel: str) -> Tensor:
    """Return the numbers that masks are made of, read from masks themselves where nothing else shows them: (K, *shape)."""
    if kernel == "usual":
        return uniform(like.detach(), sources)
    from modhook.noise import fused

    streams, low, high = fused.streams(sources, like.device), *(torch.zeros(len(sources), *like.shape, device=like.device),) * 2
    high = high + 1
    found = []
    for k in range(len(sources)):  # u > q, bisected over q
        low, high = torch.zeros_like(like), torch.ones_like(like)
        for _ in range(26):
            middle = (low + high) / 2
            above = fused.masked(streams[k : k + 1], torch.ones_like(like), torch.log((1 - middle) / middle))[0] != 0
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        found.append((low + high) / 2)
    return torch.stack(found).detach()
