"""Objects with `__slots__` that a network keeps are put back, and start afresh for each sample, as every other object."""

from __future__ import annotations

import dataclasses

import attrs
import pytest
import torch
from torch import Tensor, nn

import modhook


class Bare:
    """Slots by hand; `late` is not set at first."""

    __slots__ = ("late", "n", "total")

    def __init__(self, total: Tensor, n: int) -> None:
        self.total, self.n = total, n


class Mixed(Bare):
    """Slots, and a `__dict__` from the subclass."""


@dataclasses.dataclass(slots=True)
class Data:
    """A dataclass with slots."""

    total: Tensor
    n: int
    late: int = 0


@attrs.define
class Defined:
    """A class of attrs, which has slots by default."""

    total: Tensor
    n: int
    late: int = 0


class Keeps(nn.Module):
    """Adds up what it saw in an object, anew or in place."""

    def __init__(self, kind: type, in_place: bool) -> None:
        super().__init__()
        self.layer, self.in_place = nn.Linear(3, 2).double(), in_place
        self.state = kind(torch.zeros(2).double(), 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        mean = out.detach().mean(0)
        if self.in_place:
            self.state.total.add_(mean)
        else:
            self.state.total = self.state.total + mean
        self.state.n += 1
        self.state.late = 5
        return out * self.state.n + self.state.total


@pytest.mark.parametrize("executor", ["vmap", "loop"])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("kind", [Bare, Mixed, Data, Defined])
def test_objects_with_slots_are_put_back(kind: type, in_place: bool, executor: str) -> None:
    """Each sample computes 2 out + mean, in two calls; `evaluate` and `inspect` undo what they wrote, too."""
    torch.manual_seed(0)
    net, x = Keeps(kind, in_place), torch.randn(2, 4, 3).double()
    state, total = net.state, net.state.total
    late = getattr(state, "late", None)
    sets = {n: torch.stack([p.detach(), 1.5 * p.detach()]) for n, p in net.named_parameters()}

    def unchanged() -> bool:
        same = net.state is state and state.total is total and not bool(total.any())
        return same and state.n == 1 and getattr(state, "late", None) == late

    stacked = modhook.stack(net, samples=2, executor=executor)
    for _ in range(2):
        found = stacked(sets, x)
        plain = torch.stack([x[k] @ sets["layer.weight"][k].T + sets["layer.bias"][k] for k in range(2)])  # (2, 4, 2)
        torch.testing.assert_close(found, 2 * plain + plain.mean(1, keepdim=True))
        assert unchanged()
    modhook.inspect(net, x[0])
    assert unchanged()
    modhook.evaluate(net, None, [x[0], x[1]], lambda net, batch: net(batch)[:, 0])
    assert unchanged()


@pytest.mark.parametrize("kind", [Bare, Mixed, Data, Defined])
def test_a_weight_in_a_slot_is_named(kind: type) -> None:
    """A trained tensor in a slot is no parameter and would get no mask: refused, saying where it is."""

    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.state = nn.Linear(3, 2), kind(torch.ones(2, requires_grad=True), 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) * self.state.total  # type: ignore[no-any-return]

    with pytest.raises(modhook.UserError, match=r"a weight from 'state\.total', where PyTorch does not register it"):
        modhook.inspect(Hidden(), torch.ones(4, 3))


class Frozen:
    """Slots by hand, in two classes that declare the same name, which nobody may write or copy."""

    __slots__ = ("__secret", "out")

    def __init__(self, out: Tensor, secret: Tensor) -> None:
        object.__setattr__(self, "out", out)
        object.__setattr__(self, "_Frozen__secret", secret)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)

    def __copy__(self) -> Frozen:
        return self

    def secret(self) -> Tensor:
        return self.__secret  # type: ignore[no-any-return]


class Again(Frozen):
    """Declares a slot a second time."""

    __slots__ = ("out",)


class Half(Frozen):
    """Slots, and a `__dict__`."""


@pytest.mark.parametrize("executor", ["vmap", "loop"])
@pytest.mark.parametrize("kind", [Frozen, Again, Half])
def test_outputs_in_slots_are_stacked(kind: type[Frozen], executor: str) -> None:
    """Every tensor in an object with slots comes back as (K, ...), and equals a plain run with each weight set."""

    class Returns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2).double()

        def forward(self, x: Tensor) -> list[Frozen]:
            out = self.layer(x)
            return [kind(out, out.sum(1))]

    torch.manual_seed(0)
    net, x = Returns(), torch.randn(4, 3).double()
    sets = {n: torch.stack([p.detach(), 1.5 * p.detach()]) for n, p in net.named_parameters()}
    (found,) = modhook.stack(net, samples=2, executor=executor)(sets, modhook.shared(x))
    plain = torch.stack([x @ sets["layer.weight"][k].T + sets["layer.bias"][k] for k in range(2)])  # (2, 4, 2)
    assert type(found) is kind
    torch.testing.assert_close(found.out, plain)
    torch.testing.assert_close(found.secret(), plain.sum(2))


def test_inputs_in_slots_are_cut_apart() -> None:
    """An argument with slots gives every sample its own tensors, and is itself not written."""

    class Takes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2).double()

        def forward(self, given: Frozen) -> Tensor:
            return self.layer(given.out) + given.secret()  # type: ignore[no-any-return]

    torch.manual_seed(0)
    net, x, shift = Takes(), torch.randn(2, 4, 3).double(), torch.randn(2, 1, 2).double()
    given = Frozen(x, shift)
    sets = {n: torch.stack([p.detach(), 1.5 * p.detach()]) for n, p in net.named_parameters()}
    found = modhook.stack(net, samples=2)(sets, given)
    plain = [x[k] @ sets["layer.weight"][k].T + sets["layer.bias"][k] + shift[k] for k in range(2)]
    torch.testing.assert_close(found, torch.stack(plain))
    assert given.out is x
    assert given.secret() is shift
