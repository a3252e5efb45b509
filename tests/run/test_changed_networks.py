"""Networks for controls: shuffled within each tensor, or initialised again, also where the builder loads weights."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from modhook.errors import UserError
from modhook.run.changed import shuffle, untrain


class Net(nn.Module):
    """Tied weights, normalisation with statistics, attention, a bias of zeros, and a tensor of its own if asked."""

    def __init__(self, own: bool = False) -> None:
        super().__init__()
        self.tokens = nn.Embedding(9, 4)
        self.norm = nn.BatchNorm1d(4)
        self.attention = nn.MultiheadAttention(4, 2)
        self.out = nn.Linear(4, 9)
        self.out.weight = self.tokens.weight
        nn.init.zeros_(self.out.bias)
        if own:
            self.position = nn.Parameter(torch.randn(3, 4))


def network(seed: int, own: bool = False) -> Net:
    """Build it from a seed, with statistics that training left."""
    torch.manual_seed(seed)
    made = Net(own)
    made.norm.running_mean.normal_()
    return made


def test_shuffled_within_each_tensor() -> None:
    """Each tensor holds the same numbers in another order, ties and buffers stay, and the seed alone decides."""
    before, one, two, other = (network(1) for _ in range(4))
    for model, seed in ((one, 3), (two, 3), (other, 4)):
        shuffle(model, seed)
    for (name, old), new, same in zip(before.named_parameters(), one.parameters(), two.parameters(), strict=True):
        assert torch.equal(old.flatten().sort().values, new.flatten().sort().values), name
        assert torch.equal(new, same), name
        assert torch.equal(old, new) == (len(old.unique()) == 1), name
    assert one.out.weight is one.tokens.weight
    assert torch.equal(one.norm.running_mean, before.norm.running_mean)
    assert not torch.equal(one.tokens.weight, other.tokens.weight)


def test_untrained_as_it_is_built() -> None:
    """A builder that draws its weights has the last word: nothing of its initialisation is replaced by the modules' own."""
    model, fresh = network(1), network(2)
    nn.init.uniform_(fresh.attention.in_proj_weight, 5, 6)
    untrain(model, lambda: copy.deepcopy(fresh), 1)
    state, expected = model.state_dict(), fresh.state_dict()
    assert all(torch.equal(state[n], expected[n]) for n in expected)


def test_untrained_where_the_builder_returns_what_is_there() -> None:
    """Every tensor of a stock module is drawn anew from the seed, statistics are reset, and ties stay."""
    before = network(1)
    with torch.no_grad():
        before.norm.weight.normal_()
    one, two = copy.deepcopy(before), copy.deepcopy(before)
    state = torch.random.get_rng_state()
    for model in (one, two):
        untrain(model, lambda: copy.deepcopy(before), 7)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert one.norm.running_mean.tolist() == [0.0] * 4
    assert one.norm.weight.tolist() == [1.0] * 4
    assert one.out.weight is one.tokens.weight
    for (name, old), new, same in zip(before.named_parameters(), one.parameters(), two.parameters(), strict=True):
        assert torch.equal(new, same), name
        assert not torch.equal(old, new) or len(old.unique()) == 1, name


@pytest.mark.parametrize(("build", "told"), [(lambda: network(1, own=True), True), (lambda: network(2, own=True), False)])
def test_a_tensor_that_nothing_initialises_is_named(build: Callable[[], nn.Module], told: bool) -> None:
    """Where neither the builder nor a module draws a tensor anew, one sentence names it; where the builder does, all is well."""
    model = network(1, own=True)
    if not told:
        untrain(model, build, 1)
        return
    with pytest.raises(UserError, match=r"controls\.untrained: position cannot be initialised anew: the network is built"):
        untrain(model, build, 1)
