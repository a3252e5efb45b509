"""Two functions under a mask and its complement in one fit, against a plain loop over K on deep copies in float64."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import modhook
from modhook import objectives
from modhook.errors import UserError
from modhook.noise.noise import generators, uniform

K, STEPS, LR = 3, 3, 0.7
NAMES = ("0.weight", "2.weight")
LOST, MASK, WITHOUT = (1.3, 0.9), (1.0, 0.5), (0.7, 2.0)


def network() -> nn.Module:
    """Return a small float64 classifier of which the biases are not masked."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def batches(steps: int = STEPS) -> list[dict[str, tuple[Tensor, Tensor]]]:
    """Return batches of two functions."""
    generator = torch.Generator().manual_seed(1)

    def one() -> tuple[Tensor, Tensor]:
        return torch.randn(6, 5, generator=generator).double(), torch.randint(0, 3, (6,), generator=generator)

    return [{"keep": one(), "lose": one()} for _ in range(steps)]


def loss_of(net: nn.Module, items: Any) -> Tensor:
    """Plain cross-entropy."""
    return F.cross_entropy(net(items[0]), items[1])


def other_of(net: nn.Module, items: Any) -> Tensor:
    """Another loss, of the other function."""
    return net(items[0]).square().mean()


def total(twin: nn.Module, rest: nn.Module, group: Any) -> Tensor:
    """The formula of `keep_and_lose`, term by term."""
    one, two = group["keep"], group["lose"]
    return (
        MASK[0] * loss_of(twin, one)
        + MASK[1] * torch.relu(LOST[1] - other_of(twin, two))
        + WITHOUT[0] * torch.relu(LOST[0] - loss_of(rest, one))
        + WITHOUT[1] * other_of(rest, two)
    )


def by_hand(net: nn.Module, off: dict[str, Tensor]) -> dict[str, Tensor]:
    """Learn logits by a plain loop: masks by comparison, one deep copy each for mask and complement, sums of formulas."""
    weights = {n: dict(net.named_parameters())[n].detach() for n in NAMES}
    logits = {n: torch.full_like(w, 0.3) for n, w in weights.items()}
    noise = generators(5, "", K)
    for batch in batches():
        u = {n: uniform(logits[n], noise) for n in NAMES}
        gradient = {n: torch.zeros_like(w) for n, w in weights.items()}
        for k in range(K):
            masks = {n: (u[n][k] > torch.sigmoid(-logits[n])).double() for n in NAMES}
            twin, rest = copy.deepcopy(net), copy.deepcopy(net)
            inside, outside = dict(twin.named_parameters()), dict(rest.named_parameters())
            for n in NAMES:
                inside[n].data = off[n] + (weights[n] - off[n]) * masks[n]
                outside[n].data = off[n] + (weights[n] - off[n]) * (1 - masks[n])
            group = {name: tuple(t.chunk(K)[k] for t in items) for name, items in batch.items()}
            (total(twin, rest, group) / K).backward()
            for n in NAMES:
                s = torch.sigmoid(logits[n] + torch.log(u[n][k]) - torch.log1p(-u[n][k]))
                gradient[n] += (inside[n].grad - outside[n].grad) * (weights[n] - off[n]) * s * (1 - s)
        for n in NAMES:
            logits[n] = logits[n] - LR * gradient[n]
    return logits


@pytest.mark.parametrize("executor", ["vmap", "loop"])
@pytest.mark.parametrize(("over", "zero"), [("logits", True), ("all", True), ("logits", False), ("all", False)])
def test_the_fit_learns_by_mask_and_complement_of_one_sample(executor: str, over: str, zero: bool) -> None:
    """Three steps of a fit give the plain loop's logits, by every route, with gradients for all weights, and with `off`."""
    net, drawn = network(), torch.Generator().manual_seed(4)
    off = {n: torch.zeros_like(net.get_parameter(n)) for n in NAMES}
    if not zero:
        off = {n: torch.randn(t.shape, generator=drawn, dtype=t.dtype) for n, t in off.items()}
    loss = objectives.keep_and_lose(loss_of, LOST, other_of, mask=MASK, complement=WITHOUT)
    options: dict[str, Any] = {"beta": 0.0, "init": 0.3, "samples": K, "steps": STEPS, "seed": 5}
    limits = {"clip": None} if over == "logits" else {"clip": 1e9, "clip_over": "all"}
    sgd = lambda tensors: torch.optim.SGD(tensors, lr=LR)  # noqa: E731
    fit = modhook.fit_masks(
        net, batches(), loss, **options, **limits, optimizer=sgd, executor=executor, off=None if zero else off, progress=False
    )
    assert fit.route["route"] == executor
    torch.testing.assert_close(fit.logits, by_hand(net, off), rtol=1e-10, atol=1e-12)


def test_a_term_of_weight_zero_is_not_computed() -> None:
    """Without weights for the complement the loss is a plain one of two arguments, and a term of weight 0 calls no network."""
    calls: list[str] = []

    def counted(net: Any, items: Any) -> Tensor:
        calls.append("called")
        return loss_of(net, items)

    plain = objectives.keep_and_lose(counted, 1.0, other_of, mask=(0, 1), complement=(0, 0))
    assert not plain.complement
    net, batch = network(), batches(1)[0]
    torch.testing.assert_close(plain(net, batch), torch.relu(1 - other_of(net, batch["lose"])))
    assert not calls
    with pytest.raises(UserError, match="known while masks are learned only: give this loss to fit_masks"):
        objectives.keep_and_lose(counted, 1.0)(net, batch)


def test_fixed_masks_are_the_same_under_the_complement() -> None:
    """A parameter with a fixed mask is masked under both networks, and an unmasked bias is whole under both."""
    net = network()
    fixed = modhook.Masks({"0.weight": torch.rand(8, 5, generator=torch.Generator().manual_seed(3)) > 0.5}, net)
    seen: list[dict[str, Tensor]] = []

    def looks(inner: nn.Module, items: Any) -> Tensor:
        seen.append({n: p.detach().clone() for n, p in inner.named_parameters()})
        return loss_of(inner, items)

    loss = objectives.keep_and_lose(looks, 1.0, mask=(1, 0), complement=(1, 0))
    modhook.fit_masks(net, batches(1), loss, samples=2, steps=1, fixed=fixed, executor="loop", progress=False)
    (own, mask), (first, second) = ((dict(net.named_parameters()), fixed["0.weight"])), seen[-2:]
    for name in own:
        if name == "0.weight":
            assert torch.equal(first[name], own[name] * mask)
            assert torch.equal(second[name], own[name] * mask)
        elif name == "2.weight":
            assert torch.equal(first[name] + second[name], own[name])
            assert torch.equal(first[name] * second[name], torch.zeros_like(own[name]))
        else:
            assert torch.equal(first[name], own[name])
            assert torch.equal(second[name], own[name])


def test_snip_ranks_by_both_networks() -> None:
    """The sensitivity to a mask is |w (dL/dw under it - dL/dw under the complement)|, at the mask that keeps all."""
    net, batch = network(), batches(1)[0]
    loss = objectives.keep_and_lose(loss_of, LOST, other_of, mask=MASK, complement=WITHOUT)
    fit = modhook.fit_masks(net, [batch], loss, sampler="snip", density=0.5, steps=1)
    rest = copy.deepcopy(net)
    for name in NAMES:
        rest.get_parameter(name).data.zero_()
    twin = copy.deepcopy(net)
    total(twin, rest, batch).backward()
    for name in NAMES:
        a, b = twin.get_parameter(name), rest.get_parameter(name)
        torch.testing.assert_close(fit.logits[name], (a.detach() * (a.grad - b.grad)).abs())


@pytest.mark.parametrize(
    ("keep", "lose", "wanted"),
    [
        ([1, 2, 3], [4, 5, 6], [(1, 4), (2, 5), (3, 6)]),
        ([1, 2, 3, 4, 5], [6, 7], [(1, 6), (2, 7), (3, 6), (4, 7), (5, 6)]),
        ([1], [2, 3], [(1, 2), (1, 3)]),
        (iter([1, 2]), [3, 4, 5], [(1, 3), (2, 4)]),
        ([1], iter([3, 4]), [(1, 3), (1, 4)]),
        ([], [1], []),
        ([], [], []),
    ],
)
def test_together_is_as_long_as_the_longer(keep: Any, lose: Any, wanted: list[tuple[int, int]]) -> None:
    """The shorter iterable starts again until the longer one ends; an iterator ends the pass."""
    pairs = objectives.together(keep, lose)
    if keep == [] and lose:
        with pytest.raises(UserError, match="no batch in keep="):
            list(pairs)
        return
    assert [(both["keep"], both["lose"]) for both in pairs] == wanted


def test_the_page_runs() -> None:
    """The examples of docs/objectives.md run as printed, one after the other."""
    page = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 3
    names: dict[str, Any] = {}
    exec("\n".join(blocks), names)
    assert set(names["fit"].off) == {"0.weight", "2.weight"}
    assert abs(names["faithful"].masks.density - 0.3) < 0.005
