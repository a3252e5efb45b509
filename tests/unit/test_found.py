"""What `modhook.units` finds and what it does not, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import modhook
from modhook import UserError
from modhook.unit.group import read, rows, written


class Called(nn.Module):
    """Two layers, and what stands between them."""

    def __init__(self, between: Callable[[Any, Tensor], Tensor], given: int = 4) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Linear(3, 4), nn.Linear(given, 2), nn.LayerNorm(4)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        """Return the second layer's output."""
        return self.b(self.between(self, self.a(x)))


@pytest.mark.parametrize(
    ("between", "given"),
    [
        (lambda self, y: F.relu(y), 4),
        (lambda self, y: F.dropout(y.sigmoid(), 0.5, self.training) * 2 + 1, 4),
        (lambda self, y: y * torch.sigmoid(y), 4),
        (lambda self, y: (1 - y).clamp(min=0) ** 2, 4),
        (lambda self, y: y[:, 0], 4),
        (lambda self, y: y[:, -3:].mean(1), 4),
        (lambda self, y: y.relu().flatten(1), 8),
        (lambda self, y: y.view(y.size(0), -1), 8),
        (lambda self, y: y * y.new_ones(()), 4),
        (lambda self, y: y * torch.arange(4) + torch.ones(4).double(), 4),
        (lambda self, y: y.mT.mT.relu() if y.dim() > 2 else y.relu(), 4),
    ],
)
def test_neurons_that_can_be_followed(between: Any, given: int) -> None:
    """Neurons are followed through what leaves each by itself; without one, the network is that with its activation gone."""
    model = Called(between, given).double().eval()
    units = modhook.units(model)
    assert [g.name for g in units.select("neuron").values()] == ["neuron:a"]
    masks = modhook.Masks({"neuron:a": torch.tensor([True, False, True, True])}, model, units=units)
    x = torch.randn(5, 2, 3).double()
    x = x if given == 8 or model.between(model, model.a(x)).dim() == 2 else x[:, 0]
    hidden = model.between(model, model.a(x)).detach()
    gone = torch.tensor([1.0, 0, 1, 1]).repeat(given // 4).double()
    with torch.no_grad(), masks.applied_to(model):
        torch.testing.assert_close(model(x), model.b(hidden * gone), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("between", "why"),
    [
        (lambda self, y: self.norm(y), "reach 'norm' (LayerNorm)"),
        (lambda self, y: y.softmax(-1), "reach 'softmax'"),
        (lambda self, y: y + self.norm(y), "reach 'norm'"),
        (lambda self, y: y.log(), "reach 'log'"),
        (lambda self, y: 1 / y, "are what others are divided by"),
        (lambda self, y: y @ self.a.weight @ self.a.weight.T, "reach 'matmul'"),
        (lambda self, y: y.relu() * self.a.weight.sum(), "is used outside its layer"),
        (lambda self, y: F.linear(y, torch.ones(4, 4)), "reach a call of linear whose weight is computed"),
        (lambda self, y: y.flip(-1), "reach 'flip'"),
    ],
)
def test_neurons_that_cannot(between: Any, why: str) -> None:
    """Where something mixes neurons, or may, there are none, and the reason names it."""
    units = modhook.units(Called(between))
    assert "neuron" not in units.kinds
    assert why in units.left_out["a"]


class Residual(nn.Module):
    """A layer whose outputs are added to its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 4) -> (B, 2)."""
        return self.b(self.a(x) + x)


def test_what_is_added_to_inputs_is_no_unit() -> None:
    """The features of a residual stream are more than the rows of one layer."""
    units = modhook.units(Residual())
    assert "neuron" not in units.kinds
    assert units.left_out["a"] == "are added to what are no units"


def test_tied_weights_make_no_units() -> None:
    """A weight that another layer has too is no unit's: its mask would change both."""
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    model[2].weight = model[0].weight
    units = modhook.units(model)
    assert "neuron" not in units.kinds
    assert "tied" in units.left_out["0"]


class Looped(nn.Module):
    """Code that cannot be recorded around a block that can, and a layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 3))
        self.end = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3) -> (B, 3)."""
        while float(x.abs().sum()) > 100:
            x = x / 2
        return self.end(self.block(self.block(x)))


def test_the_largest_part_that_can_be_recorded_is_followed() -> None:
    """Where a network's own code cannot be recorded, its modules are followed one by one."""
    units = modhook.units(Looped())
    assert [g.name for g in units.select("neuron").values()] == ["neuron:block.0"]
    assert "leave 'block'" in units.left_out["block.2"]
    assert units.left_out["end"] == "could not be followed to what takes them"


def test_every_layer_without_units_is_listed() -> None:
    """In code that cannot be recorded each layer has an entry, one under a parametrization too; a part of a listed one has none."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.lin = nn.Conv1d(2, 3, 1), nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
            self.rnn = nn.GRU(3, 3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x).transpose(1, 2)
            return self.rnn(self.lin(x if float(x.sum()) > 0 else -x))[0]

    units = modhook.units(Branches())
    assert units.left_out.keys() == {"conv", "lin"}
    assert "rnn.l0" in {group.module for group in units.select("neuron").values()}
    assert not any(name.startswith(("conv.", "lin.", "rnn.")) for name in units.left_out)


def test_concatenated_channels() -> None:
    """Channels that are put beside others keep their own columns of what takes them all."""

    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv1d(1, 2, 1), nn.Conv1d(1, 3, 1), nn.Conv1d(5, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(torch.cat([self.a(x), self.b(x)], 1))

    units = modhook.units(Dense())
    (part,) = units["channel:b"].gates
    assert part.owner.reshape(-1).tolist() == [-1, -1, 0, 1, 2]


def test_what_starts_from_a_state_is_no_shortcut() -> None:
    """A recurrent layer that is given a state has no shortcut: its columns belong to the gate, too; projected outputs are found."""

    class Given(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.GRU(2, 3, batch_first=True), nn.GRU(2, 3, batch_first=True)
            self.out = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            _, h = self.one(x)
            return self.out(self.two(x, h)[0])

    units = modhook.units(Given())
    assert [p.parameter for p in units["neuron:two.l0"].gates] == [
        p.parameter for p in units["neuron:two.l0"].parts
    ]
    assert "out.weight" in units["neuron:two.l0"].parameters
    projected = modhook.units(nn.LSTM(2, 4, proj_size=3))
    assert "weight_hr_l0" in projected["neuron:l0"].parameters


def test_the_table() -> None:
    """The table names kind, module, how many, weights of each and parameters, as text, in a notebook and as a DataFrame."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    units = modhook.units(model)
    lines = repr(units).splitlines()
    assert lines[0].split() == ["units", "kind", "how", "many", "weights", "of", "each", "parameters"]
    assert lines[2].split() == ["neuron:0", "neuron", "4", "6", "weight,", "bias,", "2.weight"]
    assert "no units of '2': they are the network's outputs" in lines[-1]
    assert "neuron:0" in units._repr_html_()
    frame = units.to_dataframe()
    assert frame.loc[0, ["units", "count", "weights"]].tolist() == ["neuron:0", 4, 24]
    with pytest.raises(UserError, match="there are no units of kind 'head' here; there are neuron, layer"):
        units.select("head")
    with pytest.raises(KeyError, match="did you mean 'neuron:0'"):
        units["neuron:1"]
    with pytest.raises(UserError, match="example must be the arguments of one call"):
        modhook.units(model, example=torch.ones(1, 3))  # type: ignore[arg-type]


def test_finding_leaves_the_network_alone(digest: Callable[[nn.Module], str]) -> None:
    """Looking for units changes no weight, mode, flag or random number of the user's."""
    model = nn.TransformerEncoderLayer(8, 2, 6)
    before, random = digest(model), torch.get_rng_state()
    modhook.units(model)
    assert digest(model) == before
    assert torch.equal(torch.get_rng_state(), random)


def test_groups_as_text() -> None:
    """Groups come back from their text as they were; what is none is refused."""
    groups = tuple(modhook.units(nn.Sequential(nn.LSTM(2, 3, 2), nn.Linear(3, 1))).values())
    again = read(written(groups))
    for one, two in zip(groups, again, strict=True):
        assert (one.name, one.kind, one.module, one.labels, one.home) == (
            two.name,
            two.kind,
            two.module,
            two.labels,
            two.home,
        )
        for a, b in zip(one.parts, two.parts, strict=True):
            assert (a.parameter, a.pool, a.gate) == (b.parameter, b.pool, b.gate)
            assert torch.equal(a.owner, b.owner)
    for wrong in (
        "[{}]",
        '[{"name": 1}]',
        written(groups).replace('"runs":[[0,1,3]', '"runs":[[0,1,4]', 1),
        written(groups).replace("[0,1,3]", "[7,1,3]", 1),
    ):
        with pytest.raises(ValueError, match="no groups of units"):
            read(wrong)
    assert rows(2, 1, 2, start=1, each=2, total=6).tolist() == [[-1, 0, 0, 1, 1, -1]]
