"""What an earlier forward pass computed from a weight and left in the network is no weight under masks, and is refused by name."""

from __future__ import annotations

import types

import pytest
import torch
from torch import Tensor, nn

from modhook import fit_masks
from modhook.errors import StackError
from modhook.stacked import inspect, stack

D = 4


class Keeps(nn.Module):
    """Makes its weight ready in the first pass and keeps what it made; `place` puts it away and takes it out."""

    def __init__(self, make, where="kept"):
        super().__init__()
        self.first, self.second = nn.Linear(D, D), nn.Linear(D, D)
        self.make, self.where = make, where
        self.kept = self._kept = None
        self.cache, self.parts, self.extra = {}, [], types.SimpleNamespace(w=None)

    def ready(self) -> Tensor:
        made = {
            "kept": self.kept,
            "_kept": self._kept,
            "cache": self.cache.get("w"),
            "parts": self.parts[0] if self.parts else None,
            "extra": self.extra.w,
        }[self.where]
        if made is None:
            made = self.make(self)
            if self.where == "cache":
                self.cache["w"] = made
            elif self.where == "parts":
                self.parts.append(made)
            elif self.where == "extra":
                self.extra.w = made
            else:
                setattr(self, self.where, made)
        return made

    def forward(self, x):
        return self.second(torch.relu(x @ self.ready().T))


def fit(model, **more):
    """Fit a few steps."""
    x = torch.randn(8, D, generator=torch.Generator().manual_seed(0))
    return fit_masks(model, [x], lambda net, b: net(b).square().mean(), steps=2, samples=2, progress=False, **more)


HISTORY = {
    "itself": lambda m: m.first.weight * 1.0,
    "of two": lambda m: m.second.weight @ m.first.weight,
    "normalised": lambda m: m.first.weight / m.first.weight.norm(),
}
class Fresh(Keeps):
    """The same network without keeping anything."""

    def ready(self):
        return self.make(self)


def test_a_network_that_starts_with_nothing_made_ready():
    """Where nothing was left, masks are those of a network that keeps nothing, the ranking of the first step included."""
    masks = []
    for kind in (Keeps, Fresh):
        torch.manual_seed(0)
        model = kind(HISTORY["itself"])
        x = torch.randn(5, 8, D, generator=torch.Generator().manual_seed(0))
        found = fit_masks(
            model, list(x), lambda net, b: (net(b) - b).square().mean(), steps=30, samples=4, within=0.5, progress=False
        )
        assert getattr(model, "kept", None) is None
        masks.append(found.masks)
    assert masks[0] == masks[1]
    assert 0 < masks[0].kept() < masks[0].size


DETACHED = {
    "a copy": lambda m: m.first.weight.detach().clone(),
    "turned": lambda m: m.first.weight.detach().T.contiguous(),
    "normalised": lambda m: (m.first.weight / m.first.weight.norm()).detach(),
}


@pytest.mark.parametrize("where", ["kept", "_kept", "cache", "parts", "extra"])
@pytest.mark.parametrize("executor", ["auto", "vmap", "loop"])
def test_refused_wherever_it_is_kept(where, executor):
    """A weight that was made ready before is refused by every route, and the message says where it is; a fresh network is fine."""
    model = Keeps(HISTORY["itself"], where)
    fit(model, executor=executor)
    model(torch.randn(2, D))
    with pytest.raises(StackError, match=rf"{where}.*, which an earlier forward pass computed from first.weight .* Clear it before"):
        fit(model, executor=executor)


@pytest.mark.parametrize(
    "route", [inspect, lambda model, x: stack(model, example=((x,), {}))], ids=["inspect", "stack"]
)
@pytest.mark.parametrize("make", HISTORY.values(), ids=HISTORY)
def test_with_a_history(make, route):
    """What has a history that leads to a weight is refused where it is used, by `stack` and `inspect` as by a fit."""
    model, x = Keeps(make), torch.randn(2, D)
    model(x)
    with pytest.raises(StackError, match=r"'kept', which an earlier forward pass computed from .*first.weight"):
        route(model, x)


@pytest.mark.parametrize("make", DETACHED.values(), ids=DETACHED)
def test_without_a_history(make):
    """What was detached, or computed under no_grad, is refused where no gradient reaches a weight of its size."""
    model = Keeps(make)
    model(torch.randn(2, D))
    with pytest.raises(StackError, match=r"as many numbers as first.weight, and does not use first.weight.*exclude="):
        fit(model)
    fit(model, exclude=["first.*", "*bias*"])


@pytest.mark.parametrize("memory", [None, 1])
def test_layer_by_layer_too(memory):
    """Weights that are masked layer by layer are looked at like all others."""
    model = Keeps(DETACHED["a copy"])
    model(torch.randn(2, D))
    with pytest.raises(StackError, match=r"does not use first.weight"):
        fit(model, memory=None if memory is None else 24 * D * D)


class Holds(nn.Module):
    """Keeps tensors that are no weights, beside a head that is not used."""

    def __init__(self, kind):
        super().__init__()
        self.first, self.head = nn.Linear(D, D), nn.Linear(D, D)
        self.kind, self.kept, self.state, self.written = kind, torch.ones(3), torch.zeros(D, D), torch.zeros(D, D)

    def forward(self, x):
        y = self.first(x)
        if self.kind == "constant":
            y = y[:, :3] * self.kept
        elif self.kind == "kept and not read":
            self.state = y[:1] @ self.head.weight
        elif self.kind == "state":
            y = y + self.state[:1].detach()
            self.state = y.detach()
        elif self.kind == "written":
            self.written.add_(1.0)
            y = y + self.written[0]
        return y


@pytest.mark.parametrize("kind", ["constant", "kept and not read", "state", "written"])
def test_what_is_no_weight_is_no_matter(kind):
    """Constants, states, statistics and outputs that are kept are no weights, whatever else is not used."""
    model = Holds(kind)
    model(torch.randn(D, D))
    fit(model, **({"exclude": ["head*", "*bias*"]} if kind == "state" else {}))


def test_weight_norm_computes_anew():
    """A hook that computes the weight before each pass leaves the old one behind, which nothing reads."""
    with pytest.warns(FutureWarning):
        model = nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(D, D)))
    model(torch.randn(2, D))
    with pytest.warns(Warning, match="what parametrizations compute"):
        fit(model)
