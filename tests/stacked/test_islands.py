"""Only the innermost submodule that vmap cannot run loops; what cannot be exact is refused."""

from __future__ import annotations

import warnings

import pytest
import stacked_loops as loops
import torch
from torch import nn

import modhook
from modhook.errors import StackError
from modhook.stacked import stack

K, B, D = 3, 4, 8


pytestmark = pytest.mark.usefixtures("float64")


class Item(nn.Module):
    """Reads a value out of a tensor."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(D, D)

    def forward(self, x):
        y = self.linear(x)
        return y / (1 + abs(y.sum().item()))


class Branch(Item):
    """Branches on a value."""

    def forward(self, x):
        y = self.linear(x)
        return y if y.sum() > 0 else -2 * y


class BooleanWrite(Item):
    """Writes where a condition holds."""

    def forward(self, x):
        y = self.linear(x).clone()
        y[y > 0] = 0.5 * y[y > 0]
        return y


class Nonzero(Item):
    """Selects rows by a condition."""

    def forward(self, x):
        y = self.linear(x)
        rows = (y.sum(-1) > 0).nonzero().flatten()
        return y.index_add(0, rows, y[rows])


class RoundTrip(Item):
    """Goes through numpy."""

    def forward(self, x):
        return self.linear(x) * torch.from_numpy(x.detach().numpy())


class Double(torch.autograd.Function):
    """A custom function in the old style, which vmap refuses."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


class OldFunction(Item):
    """Calls a custom autograd function in the old style."""

    def forward(self, x):
        return Double.apply(self.linear(x))


class Counter(Item):
    """Adds up in a buffer, in place, and uses it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("total", torch.zeros(D))

    def forward(self, x):
        y = self.linear(x)
        self.total += y.detach().mean(0)
        return y + self.total


class Packs(nn.Module):
    """Packs a sequence for its LSTM, whose lengths come from data."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(2, D // 2, batch_first=True, bidirectional=True)

    def forward(self, x):
        lengths = (x[:, ::2] > -9).sum(-1).tolist()
        packed = nn.utils.rnn.pack_padded_sequence(x.unflatten(-1, (-1, 2)), lengths, batch_first=True)
        return self.lstm(packed)[1][0].transpose(0, 1).flatten(1)


def around(module):
    """Put a module deep inside stock ones."""
    return nn.Sequential(nn.Linear(D, D), nn.Sequential(nn.Tanh(), module), nn.Linear(D, D))


NASTY = [Item, Branch, BooleanWrite, Nonzero, RoundTrip, OldFunction, Packs]


@pytest.mark.parametrize("nasty", NASTY)
def test_only_the_nasty_submodule_loops(nasty):
    """The whole is vmapped, the nasty submodule loops, the result is exact, and the model is itself afterwards."""
    model, x = around(nasty()), torch.randn(K, B, D)
    sets = loops.parameter_sets(model, K)
    before = loops.fingerprint(model)
    stacked = stack(model, example=((x[0],), {}), samples=K)
    found = [stacked(sets, x)]
    grads = loops.gradients_of(found, sets)
    assert before == loops.fingerprint(model)
    assert stacked.route == "islands"
    assert list(stacked.report()["islands"]) == ["1.1"]
    expected, wanted = loops.plain_loop(model, sets, lambda net, k: [net(x[k])])
    assert loops.worst(found, expected) <= 1e-9
    assert loops.worst(grads, wanted) <= 1e-9


def test_buffers_written_in_place_belong_to_each_sample():
    """A module that writes a buffer and uses it runs vmapped on copies, and the model's buffer keeps its value."""
    model, x = around(Counter()), torch.randn(K, B, D)
    sets = loops.parameter_sets(model, K)
    before = loops.fingerprint(model)
    found = [stack(model)(sets, x)]
    assert before == loops.fingerprint(model)
    expected, _ = loops.plain_loop(model, sets, lambda net, k: [net(x[k])])
    assert loops.worst(found, expected) <= 1e-9


def test_dropout_inside_an_island_does_not_mislead_the_check():
    """The check switches dropout off inside looped submodules too."""

    class Both(Branch):
        def forward(self, x):
            return nn.functional.dropout(super().forward(x), 0.5)

    stacked = stack(around(Both()), example=((torch.randn(B, D),), {}), samples=K)
    assert stacked.route == "islands"


def test_several_islands_at_once():
    """Every offending submodule becomes an island of its own."""
    model, x = nn.Sequential(Item(), nn.Linear(D, D), Branch()), torch.randn(K, B, D)
    sets = loops.parameter_sets(model, K)
    stacked = stack(model)
    found = [stacked(sets, x)]
    assert sorted(stacked.report()["islands"]) == ["0", "2"]
    expected, _ = loops.plain_loop(model, sets, lambda net, k: [net(x[k])])
    assert loops.worst(found, expected) <= 1e-9


@pytest.mark.parametrize("training", [True, False])
def test_spectral_norm_loops_only_its_own_iteration(training):
    """The power iteration of spectral norm writes into what it computes; only that small piece loops."""
    model = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(D, D)), nn.Linear(D, D)).train(training)
    x = torch.randn(K, B, D)
    sets = loops.parameter_sets(model, K)
    before = loops.fingerprint(model)
    stacked = stack(model)
    found = [stacked(sets, x)]
    grads = loops.gradients_of(found, sets)
    assert before == loops.fingerprint(model)
    assert list(stacked.report()["islands"]) == (["0.parametrizations.weight.0"] if training else [])
    expected, wanted = loops.plain_loop(model, sets, lambda net, k: [net(x[k])])
    assert loops.worst(found, expected) <= 1e-9
    assert loops.worst(grads, wanted) <= 1e-9


class Raises(Item):
    """Has a bug that shows in one sample only."""

    def forward(self, x):
        y = self.linear(x)
        if y.sum() < -1e3:
            raise ZeroDivisionError("the user's own line")
        return y


def test_an_error_inside_an_island_is_the_users():
    """The user's error says which submodule and which mask sample, and is no vmap traceback."""
    model, x = around(Raises()), torch.randn(K, B, D)
    sets = {n: s.detach() for n, s in loops.parameter_sets(model, K).items()}
    stacked = stack(model, example=((x[0],), {}), samples=K)
    assert stacked.route == "islands"
    sets["1.1.linear.bias"][2] = -1e3
    with pytest.raises(ZeroDivisionError, match="the user's own line") as caught:
        stacked(sets, x)
    assert any("mask sample 3 of 3, in submodule '1.1'" in note for note in caught.value.__notes__)
    assert caught.value.__context__ is None


class Cached(nn.Module):
    """Reads its weight from a list made in `__init__`."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(D, D)
        self.weights = [self.linear.weight]

    def forward(self, x):
        return x @ self.weights[0].T


class RequiresGrad(nn.Module):
    """Branches on whether a parameter is trained."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(D, D)

    def forward(self, x):
        return self.linear(x) * (2 if self.linear.weight.requires_grad else 3)


@pytest.mark.parametrize("executor", ["auto", "loop"])
def test_weights_kept_elsewhere_are_refused(executor):
    """A weight that is read from a list cannot be replaced: refused by `stack`, naming the parameter and the list."""
    model = nn.Sequential(Cached())
    with pytest.raises(
        StackError, match=r"'0' reads parameter '0.linear.weight' from its attribute 'weights'.*Parameter"
    ):
        stack(model, example=((torch.randn(B, D),), {}), samples=K, executor=executor)


def test_branches_on_requires_grad_are_caught():
    """vmap says that no weight is trained; the model is told the truth, and takes the branch of a plain run."""
    model, x = RequiresGrad(), torch.randn(K, B, D)
    sets = loops.parameter_sets(model, K)
    stacked = stack(model)
    expected, _ = loops.plain_loop(model, sets, lambda net, k: [net(x[k])])
    assert loops.worst([stacked(sets, x)], expected) <= 1e-9
    assert stacked.route == "vmap"


def test_models_whose_weights_are_out_of_reach_are_refused():
    """Scripted, quantised and uninitialised modules are refused by name, with what to do."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):  # of torch.jit, in newer versions of torch
            warnings.simplefilter("ignore", category)
        scripted = torch.jit.script(nn.Linear(3, 3))
    with pytest.raises(StackError, match="submodule '1' is a ScriptModule"):
        stack(nn.Sequential(nn.ReLU(), scripted))
    with pytest.raises(StackError, match=r"'0.weight' is not initialised yet"):
        stack(nn.Sequential(nn.LazyLinear(3)))


def test_fastest_measures_and_says_so():
    """`fastest` keeps a route that the check admits and reports both times."""
    model, x = nn.Sequential(nn.Linear(D, D)), torch.randn(K, B, D)
    stacked = modhook.stack(model, example=((x[0],), {}), samples=K, executor="fastest")
    assert stacked.route in ("vmap", "loop")
    assert "took" in stacked.reason
    sets = loops.parameter_sets(model, K)
    expected, _ = loops.plain_loop(model, sets, lambda net, k: [net(x[k])])
    assert loops.worst([stacked(sets, x)], expected) <= 1e-9
