"""Copies of networks that `copy.deepcopy` cannot copy, or hands back uncopied."""

from __future__ import annotations

import copy
import io
import threading
import types

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import modhook
from modhook.errors import StackError
from modhook.network.twin import twin

D = 4


class Keeps(nn.Module):
    """Keeps its latest activation, with its history, alone and in a dict."""

    def __init__(self):
        super().__init__()
        self.lin, self.last, self.all = nn.Linear(D, D), None, {}

    def forward(self, x):
        self.last = self.all["last"] = self.lin(x)
        return self.last


class Locked(nn.Module):
    """Holds a lock, an open file, a generator and a random generator, alone and inside objects."""

    def __init__(self):
        super().__init__()
        self.lin, self.lock, self.file = nn.Linear(D, D), threading.Lock(), io.TextIOWrapper(io.BytesIO())
        self.numbers, self.noise = (i for i in range(3)), torch.Generator().manual_seed(3)
        self.logger = types.SimpleNamespace(lock=threading.RLock(), table={"scale": torch.ones(D).double()})

    def forward(self, x):
        with self.lock:
            return self.lin(x) * self.logger.table["scale"]


class Selfish(nn.Module):
    """A submodule whose deep copy is itself."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(D, D)

    def __deepcopy__(self, memo):
        return self

    def forward(self, x):
        return self.lin(x)


class Tied(nn.Module):
    """Ties, an LSTM, a bound method as a hook, and a lock that makes all of it hard to copy."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.lock = nn.Linear(D, D), nn.Linear(D, D), threading.Lock()
        self.two.weight, self.again = self.one.weight, self.one
        self.lstm = nn.LSTM(D, D, batch_first=True)
        self.scale = nn.Parameter(torch.ones(()))
        self.lstm.register_forward_pre_hook(self.scaled)

    def scaled(self, module, args):
        return (args[0] * self.scale,)

    def forward(self, x):
        return self.lstm(self.two(self.again(x))[:, None])[0][:, 0]


def around(make):
    """Return a builder of a network with the layer in the middle."""
    return lambda: nn.Sequential(nn.Linear(D, D), make(), nn.Tanh(), nn.Linear(D, 2))


def pruned():
    """Return a layer that is pruned twice."""
    layer = nn.Linear(D, D)
    prune.l1_unstructured(layer, "weight", 0.5)
    prune.random_unstructured(layer, "bias", 1)
    return layer


BUILD = {
    "weight norm": around(lambda: nn.utils.weight_norm(nn.Linear(D, D))),
    "weight norm of an LSTM cell": around(lambda: nn.utils.weight_norm(nn.RNNCell(D, D), "weight_ih")),
    "spectral norm": around(lambda: nn.utils.spectral_norm(nn.Linear(D, D))),
    "pruned": around(pruned),
    "keeps": around(Keeps),
    "locked": around(Locked),
    "selfish": around(Selfish),
    "selfish whole": Selfish,
    "tied": around(Tied),
}


@pytest.fixture(params=BUILD)
def model(request):
    """A network after a forward and backward pass, which leaves tensors with a history in it."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *args, **kwargs: None)  # weight_norm is deprecated
        net = BUILD[request.param]().double().eval()
    net(data()).sum().backward()
    return net


def data():
    """Return one batch, the same every time."""
    return torch.randn(8, D, generator=torch.Generator().manual_seed(1)).double()


def by_hand(net, values):
    """Return a plain run of the network itself with some of its weights set, and put them back."""
    own = dict(net.named_parameters())
    kept = {name: own[name].detach().clone() for name in values}
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)
        out = net(data())
        for name, value in kept.items():
            own[name].copy_(value)
    return out


def test_no_weight_in_common(model):
    """The twin computes the same, shares no memory of a parameter or buffer, and keeps names, ties, modes and hooks."""
    other = twin(model)
    assert other is not model
    assert torch.equal(other(data()), model(data()))
    for kind in ("named_parameters", "named_buffers"):
        own, new = (dict(getattr(m, kind)(remove_duplicate=False)) for m in (model, other))
        assert own.keys() == new.keys()
        for a in own:
            assert own[a].data_ptr() != new[a].data_ptr()
            assert [own[a] is own[b] for b in own] == [new[a] is new[b] for b in own]
    assert [m.training for m in model.modules()] == [m.training for m in other.modules()]
    values = {n: torch.randn(p.shape).double() for n, p in other.named_parameters()}
    right, before = by_hand(model, values), model(data()).detach()
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            parameter.copy_(values[name])
        torch.testing.assert_close(other(data()), right)  # hooks and bound methods belong to the twin
        assert torch.equal(model(data()), before)


def test_materialize(model):
    """Masked copies compute what the network computes with masked weights set by hand."""
    name, parameter = next(iter(model.named_parameters()))
    masks = modhook.Masks({name: torch.rand(parameter.shape) > 0.5}, model)
    right = by_hand(model, {name: parameter.detach() * masks[name]})
    torch.testing.assert_close(masks.materialize(model)(data()), right)
    with masks.applied_to(model):
        torch.testing.assert_close(model(data()), right)


@pytest.mark.parametrize("executor", ["auto", "loop"])
def test_stack(model, executor):
    """Stacked runs give the outputs and gradients of plain runs with the weights set by hand."""
    own = dict(model.named_parameters())
    sets = {n: torch.stack([p.detach(), 1.5 * p.detach()]).requires_grad_() for n, p in own.items()}
    out = modhook.stack(model, ((data(),), {}), samples=2, executor=executor)(sets, modhook.shared(data()))
    for k in range(2):
        right = by_hand(model, {n: s[k].detach() for n, s in sets.items()})
        torch.testing.assert_close(out[k].detach(), right)
    out.sum().backward()
    model.zero_grad()
    model(data()).sum().backward()
    for name, parameter in own.items():
        torch.testing.assert_close(sets[name].grad[0], parameter.grad)


def test_random_generators_are_copied():
    """Drawing from the copy's generator leaves the original's where it was."""
    net = Locked()
    state = net.noise.get_state()
    other = twin(net)
    torch.rand(3, generator=other.noise)
    assert torch.equal(net.noise.get_state(), state)
    assert other.logger.table is not net.logger.table
    assert other.logger.table["scale"].data_ptr() != net.logger.table["scale"].data_ptr()


def test_where_no_copy_can_be_made():
    """A network that cannot even be made anew is refused in one sentence that says what is in the way."""

    class Stubborn(nn.Linear):
        def __new__(cls, *sizes):
            if not sizes:
                raise TypeError("sizes are missing")
            return super().__new__(cls)

        def __deepcopy__(self, memo):
            return self

    with pytest.raises(StackError, match=r"^Stubborn cannot be copied.*sizes are missing.*__deepcopy__"):
        modhook.stack(Stubborn(D, D), ((torch.zeros(1, D),), {}))


def test_plain_networks_are_plain_deep_copies():
    """What `copy.deepcopy` does well is left to it: the user's own `__deepcopy__` is called."""

    class Counts(nn.Linear):
        copies = 0

        def __deepcopy__(self, memo):
            Counts.copies += 1
            new = Counts(D, D)
            new.load_state_dict(self.state_dict())
            return new

    net = Counts(D, D)
    assert torch.equal(twin(net).weight, copy.deepcopy(net).weight)
    assert Counts.copies == 2
