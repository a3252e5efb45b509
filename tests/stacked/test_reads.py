"""Values that a module reads from its inputs are read once for all samples; values that depend on weights make an island."""

from __future__ import annotations

import pytest
import stacked_loops as loops
import torch
from torch import nn

from modhook.errors import StackError
from modhook.stacked import shared, stack

K, B, T, D = 3, 4, 6, 8


pytestmark = pytest.mark.usefixtures("float64")


class Reader(nn.Module):
    """Asks its mask every kind of question."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(D, D)

    def forward(self, x, mask):
        y = self.linear(x)
        if not mask.all():
            y = y * mask.unsqueeze(-1)
        if 7 in mask.long() or torch.equal(mask, ~mask) or bool(torch.is_nonzero(mask[0, 0]) is False):
            return -y
        width = int(mask.sum(1).max()) + mask.long().sum(1).max().item() - mask.long().sum(1).tolist()[0]
        y = y[:, :width]
        y[:, -1] = 0.5 * y[:, -1].clone()
        return y + torch.where(mask[0])[0].double().mean() + mask[0].nonzero().double().sum() + len(x[mask])


class Filler(nn.Module):
    """Writes a number where a condition holds, which may differ from sample to sample."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(D, D)

    def forward(self, x, mask):
        y = self.linear(x)
        y[~mask] = 0
        return y


class Buckets(nn.Module):
    """Writes stacked values into a tensor that it makes."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(D, D)

    def forward(self, x):
        y = self.linear(x)
        table = torch.zeros(B, T + 1, D)
        table[:, :T] = y
        table[:, T].copy_(y.sum(1))
        return table


class WeightReader(nn.Module):
    """Branches on a value that depends on its weights, which two samples may share by chance."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(D, D)

    def forward(self, x):
        y = self.linear(x)
        return y if y.square().sum() > 1e-9 else -y


def prefix(lengths):
    """Return masks (B, T) whose rows keep the first `length` steps."""
    return torch.arange(T).expand(B, T) < torch.tensor(lengths)[:, None]


def exact(stacked, model, sets, *args):
    """Compare outputs and gradients with a plain loop."""
    found = [stacked(sets, *args)]
    grads = loops.gradients_of(found, sets)
    expected, wanted = loops.plain_loop(model, sets, lambda net, k: [net(*(a[k] for a in args))])
    assert loops.worst(found, expected) <= 1e-9
    assert loops.worst(grads, wanted) <= 1e-9


def test_samples_that_agree_run_stacked():
    """`if mask.all()`, `in`, `.item()`, `nonzero`, indexing by a condition: one answer for all samples, and no loop."""
    model, x = Reader(), torch.randn(K, B, T, D)
    mask = prefix([6, 5, 4, 3]).expand(K, B, T)
    stacked = stack(model, example=((x[0], mask[0]), {}), samples=K)
    exact(stacked, model, loops.parameter_sets(model, K), x, mask)
    assert stacked.route == "vmap"


def test_samples_that_differ_loop_for_this_call_only():
    """Samples that would go different ways are looped, exactly; the next call runs stacked again."""
    model, x = Reader(), torch.randn(K, B, T, D)
    agree = prefix([6, 5, 4, 3]).expand(K, B, T)
    differ = torch.stack([prefix([6, 5, 4, 3]), prefix([6, 6, 5, 4]), prefix([6, 6, 6, 6])])
    stacked = stack(model, example=((x[0], agree[0]), {}), samples=K)
    sets = loops.parameter_sets(model, K)
    exact(stacked, model, sets, x, differ[[0, 1, 0]])
    assert stacked.route == "loop"
    assert "differs between samples" in stacked.reason
    exact(stacked, model, sets, x, agree)
    assert stacked.route == "vmap"
    forced = stack(model, example=((x[0], agree[0]), {}), samples=K, executor="vmap")
    with pytest.raises(StackError, match=r"differs between samples.*test_reads\.py.*Use executor=\"auto\""):
        forced(sets, x, differ[[0, 1, 0]])


@pytest.mark.parametrize("own", [True, False])
def test_writing_a_number_where_a_condition_holds(own):
    """Every sample may have its own condition."""
    model, x = Filler(), torch.randn(K, B, T, D)
    mask = torch.rand(K, B, T) > 0.4 if own else prefix([6, 5, 4, 3])
    sets = loops.parameter_sets(model, K)
    stacked = stack(model)
    found = [stacked(sets, x, mask if own else shared(mask))]
    expected, _ = loops.plain_loop(model, sets, lambda net, k: [net(x[k], mask[k] if own else mask)])
    assert loops.worst(found, expected) <= 1e-9
    assert stacked.route == "vmap"


def test_stacked_values_written_into_a_new_tensor():
    """A tensor that the module makes gets a copy per sample where stacked values are written into it."""
    model, x = Buckets(), torch.randn(K, B, T, D)
    stacked = stack(model)
    exact(stacked, model, loops.parameter_sets(model, K), x)
    assert stacked.route == "vmap"


class Frames(nn.Module):
    """Marks in a tensor that it makes where each sequence ends, and asks that tensor a question, as speech models do."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(D, D)

    def forward(self, x, mask):
        ends = torch.zeros(B, T, dtype=torch.long)
        ends[torch.arange(B), mask.sum(1) - 1] = 1
        kept = ends.flip(-1).cumsum(-1).flip(-1).bool()
        return self.linear(x) if kept.all() else self.linear(x) * kept[..., None]


def test_questions_to_a_new_tensor():
    """A tensor that the module makes from its inputs does not depend on weights, and may be asked."""
    model, x = Frames(), torch.randn(K, B, T, D)
    mask = prefix([6, 5, 4, 3]).expand(K, B, T)
    stacked = stack(model)
    exact(stacked, model, loops.parameter_sets(model, K), x, mask)
    assert stacked.route == "vmap"


def test_values_that_depend_on_weights_make_an_island():
    """Such values agree by chance when the route is checked, and hardly ever later: they are never trusted."""
    model, x = nn.Sequential(nn.Linear(D, D), WeightReader()), torch.randn(K, B, D)
    stacked = stack(model)
    exact(stacked, model, loops.parameter_sets(model, K), x)
    assert stacked.route == "islands"
    assert list(stacked.report()["islands"]) == ["1"]
