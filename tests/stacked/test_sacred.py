"""The user's model is sacred: everything about it is as before, whatever happens, and it can be copied and pickled."""

from __future__ import annotations

import copy
import pickle

import pytest
import stacked_loops as loops
import torch
from torch import nn

from modhook.stacked import inspect, stack

K, B, D = 3, 4, 6


class Store:
    """A plain object that a module keeps."""

    def __init__(self):
        self.latest = None
        self.seen = {"all": []}


class Everything(nn.Module):
    """Ties, buffers, batch norm, hooks, caches in attributes, lists and objects, one submodule twice, recurrent weights."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(D, D), nn.BatchNorm1d(D)
        self.again = self.first
        self.tied = nn.Linear(D, D)
        self.tied.weight = self.first.weight
        self.tied.bias.requires_grad_(False)
        self.lstm = nn.LSTM(D, D, batch_first=True)
        self.normed = nn.PReLU()
        self.store, self.history, self.latest = Store(), [], None
        self.register_buffer("total", torch.zeros(D))
        self.first.register_forward_hook(_hook)

    def forward(self, x, fail=None):
        self.latest = self.normed(self.norm(self.again(self.first(x).tanh())))
        self.history.append(self.latest)
        self.store.latest = self.latest
        self.store.seen["all"].append(self.latest)
        self.total += self.latest.detach().mean(0)
        self.added = 1
        if fail is not None:
            raise fail
        return self.lstm(self.tied(self.latest)[:, None])[0] + self.total


def _hook(module, args, output):
    return output * 2


@pytest.fixture
def model():
    """A fresh model of everything."""
    torch.manual_seed(0)
    return Everything()


def whole(model):
    """Hash everything, what objects keep included."""
    return loops.fingerprint(model), model.store.latest, dict(model.store.seen), list(model.history), model.latest


@pytest.mark.parametrize("executor", ["auto", "loop", "vmap"])
@pytest.mark.parametrize("fail", [None, ZeroDivisionError("no"), KeyboardInterrupt()], ids=["runs", "fails", "Ctrl-C"])
def test_as_before(model, executor, fail):
    """Same tensors, values, buffers, flags, hooks and caches, after a call, an exception and Ctrl-C; copies and pickles work."""
    x = torch.randn(K, B, D)
    sets = loops.parameter_sets(model, K)
    before, twin = whole(model), copy.deepcopy(model)
    stacked = stack(model, example=((x[0],), {"fail": None}), samples=K, executor=executor)
    assert whole(model) == before
    if fail is None:
        stacked(sets, x, fail=None)
        assert stacked.route == ("loop" if executor == "loop" else "vmap")
    else:
        with pytest.raises(type(fail)):
            stacked(sets, x, fail=fail)
    assert whole(model) == before
    assert not hasattr(model, "added")
    again = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    with torch.no_grad():
        assert torch.equal(again.eval()(x[0]), twin.eval()(x[0]))


def test_inspect_too(model):
    """`inspect` runs the model many times and leaves it as it was."""
    before = whole(model)
    inspect(model, torch.randn(B, D), samples=2)
    assert whole(model) == before


@pytest.mark.parametrize("training", [True, False])
def test_flags_of_every_module(model, training):
    """Train and eval flags survive, also where they differ inside a model."""
    model.train(training)
    model.norm.train(not training)
    before = whole(model)
    stack(model)(loops.parameter_sets(model, K), torch.randn(K, B, D))
    assert whole(model) == before
    assert model.norm.training is not training
