"""`modhook.unmasked`: scores and losses see the network without masks, wherever they are called under some."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import modhook
from modhook import Masks, objectives


class Tied(nn.Module):
    """An embedding whose weight is also the output's, so that one parameter has two names."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(9, 6)
        self.gru = nn.GRU(6, 6, batch_first=True)
        self.out = nn.Linear(6, 9, bias=False)
        self.out.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits (B, T, 9)."""
        return self.out(self.gru(self.tokens(ids))[0])


IDS = torch.randint(0, 9, (4, 5), generator=torch.Generator().manual_seed(1))


def made() -> Tied:
    """Return the network, in float64."""
    torch.manual_seed(0)
    return Tied().double().eval()


def some(net: nn.Module) -> Masks:
    """Return masks that keep about half of every weight."""
    generator = torch.Generator().manual_seed(2)
    return Masks({n: torch.rand(p.shape, generator=generator) < 0.5 for n, p in net.named_parameters() if p.dim() > 1}, net)


def test_a_score_sees_both_networks() -> None:
    """Under masks the block has the weights from before, also of tied and recurrent ones, and the masks are back behind it."""
    net = made()
    masks = some(net)
    with torch.no_grad():
        whole, masked = net(IDS), masks.materialize(net)(IDS)
    seen = []

    def score(model: nn.Module, batch: Tensor) -> Tensor:
        first = model(batch)
        with modhook.unmasked(model) as there:
            seen.append(there)
            assert torch.allclose(model(batch), whole, rtol=0, atol=1e-12)  # torch's recurrent kernels differ by a bit
        assert torch.equal(model(batch), first)
        assert torch.allclose(first, masked, rtol=0, atol=1e-12)
        return first.mean((1, 2))

    modhook.evaluate(net, masks, [IDS], score)
    with torch.no_grad(), masks.applied_to(net):
        score(net, IDS)
        with masks.applied_to(net):  # once more: what is beneath is still the whole network
            score(net, IDS)
    assert seen == [True, True, True]
    with modhook.unmasked(net) as there:
        assert not there
        assert torch.allclose(net(IDS), whole, rtol=0, atol=1e-12)


def test_another_network_is_left_alone() -> None:
    """Masks of one network say nothing of another one that is asked within them."""
    net, other = made(), nn.Linear(3, 2)
    before = other.weight.clone()
    with some(net).applied_to(net), modhook.unmasked(other) as there:
        assert not there
        assert torch.equal(other.weight, before)


def divergence(net: nn.Module, whole: nn.Module, ids: Tensor) -> Tensor:
    """Return KL(whole || net), by torch's own function."""
    p, q = whole(ids).log_softmax(-1), net(ids).log_softmax(-1)
    return F.kl_div(q, p, reduction="none", log_target=True).sum(-1).mean()


@pytest.mark.parametrize("executor", ["vmap", "loop"])
def test_kl_without_a_network(executor: str) -> None:
    """`kl()` finds the unmasked network under sampled masks by every route: values and masks are those of `kl(net)`."""
    net = made()
    options: dict[str, Any] = {"samples": 2, "steps": 25, "lr": 0.5, "executor": executor, "progress": False}
    found = modhook.fit_masks(net, [IDS], objectives.kl(), **options)
    known = modhook.fit_masks(net, [IDS], objectives.kl(net), **options)
    assert torch.equal(torch.as_tensor(found.history["loss"].values), torch.as_tensor(known.history["loss"].values))
    assert all(torch.equal(found.logits[n], known.logits[n]) for n in known.logits)
    measured = modhook.evaluate(net, found.masks, [IDS], lambda m, b: objectives.kl()(m, b).reshape(1))
    with torch.no_grad():
        expected = float(divergence(found.masks.materialize(net), copy.deepcopy(net), IDS))
    assert expected > 1e-6
    assert measured == pytest.approx(expected, rel=1e-9)


def test_a_fit_is_the_same_with_and_without_looking() -> None:
    """Looking at the unmasked network within a loss changes no logit."""
    net = made()
    looked: list[float] = []

    def plain(model: Any, ids: Tensor) -> Tensor:
        return F.cross_entropy(model(ids).flatten(0, 1), ids.flatten())

    def looking(model: Any, ids: Tensor) -> Tensor:
        with modhook.unmasked(model) as there:
            looked.append(float(there))
            model(ids)
        return plain(model, ids)

    options: dict[str, Any] = {"samples": 2, "steps": 5, "lr": 0.5, "progress": False}
    one, other = (modhook.fit_masks(net, [IDS], loss, **options) for loss in (plain, looking))
    assert set(looked) == {1.0}
    assert all(torch.equal(one.logits[n], other.logits[n]) for n in one.logits)
