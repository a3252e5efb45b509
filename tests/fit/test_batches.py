"""What a batch may be made of: containers are taken apart item by item, every other object reaches each group as it is."""

from __future__ import annotations

import collections
import dataclasses
import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import attrs
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

import modhook
from modhook.errors import UserError
from modhook.fit.groups import batch_size, cut, one_group, part
from modhook.stacked import Kept

B, K = 8, 2


@pytest.fixture
def data() -> tuple[nn.Module, Tensor, Tensor]:
    """A network in float64, inputs (8, 4) and targets (8, 2)."""
    torch.manual_seed(0)
    return nn.Linear(4, 2).double(), torch.randn(B, 4).double(), torch.randn(B, 2).double()


def first_loss(net: nn.Module, batch: Any, loss: Any, executor: str = "auto") -> float:
    """The loss of the first step under masks that keep everything."""
    fit = modhook.fit_masks(net, [batch], loss, steps=1, samples=K, init=40.0, executor=executor, progress=False)
    return float(fit.history["loss"][0])


def by_hand(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """The mean of the losses of both halves of a batch, in a plain loop."""
    return sum(F.mse_loss(net(x[i : i + 4]), y[i : i + 4]).item() for i in (0, 4)) / 2


class Own(dict[str, Tensor]):
    """A dict with a constructor of its own."""

    def __init__(self, **items: Tensor) -> None:
        super().__init__(**items)


class Locked(Mapping[str, Tensor]):
    """A mapping that cannot be written."""

    def __init__(self, items: Mapping[str, Tensor]) -> None:
        self._items = dict(items)

    def __getitem__(self, key: str) -> Tensor:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


class Open(Locked, collections.abc.MutableMapping[str, Tensor]):
    """A mapping that can be written, keeps its items in a dict, and cannot be made of one."""

    def __init__(self, x: Tensor, y: Tensor, device: str) -> None:
        self._items, self.device = {"x": x, "y": y}, device

    def __setitem__(self, key: str, value: Tensor) -> None:
        self._items[key] = value

    def __delitem__(self, key: str) -> None:
        del self._items[key]


class Pair(NamedTuple):
    """A named tuple."""

    x: Tensor
    y: Tensor


class Strict(collections.namedtuple("Strict", "x y")):
    """A named tuple that is not made of its two fields."""

    def __new__(cls, both: Any) -> Strict:
        """Take both at once."""
        return super().__new__(cls, *both)


class Row(list[Any]):
    """A list with a constructor of its own, and an attribute."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        super().__init__([x, y])
        self.origin = "here"


class Twin(tuple[Any, ...]):
    """A tuple with a constructor of its own, and an attribute."""

    def __new__(cls, x: Tensor, y: Tensor) -> Twin:
        """Take its items one by one."""
        made = super().__new__(cls, (x, y))
        made.origin = "here"  # type: ignore[attr-defined]
        return made


@dataclasses.dataclass(frozen=True)
class Items:
    """A dataclass of one batch."""

    x: Tensor
    y: Tensor
    note: str = "free"

    @functools.cached_property
    def total(self) -> Tensor:
        """Computed from the items."""
        return self.x.sum()


class Registered:
    """A class that pytree knows."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y


pytree.register_pytree_node(Registered, lambda r: ([r.x, r.y], None), lambda children, _: Registered(*children))


KINDS: dict[str, Any] = {
    "dict": lambda x, y: {"x": x, "y": y},
    "OrderedDict": lambda x, y: collections.OrderedDict(x=x, y=y),
    "defaultdict": lambda x, y: collections.defaultdict(list, x=x, y=y),
    "UserDict": lambda x, y: collections.UserDict(x=x, y=y),
    "ChainMap": lambda x, y: collections.ChainMap({"x": x}, {"y": y}),
    "proxy": lambda x, y: types.MappingProxyType({"x": x, "y": y}),
    "own dict": lambda x, y: Own(x=x, y=y),
    "locked mapping": lambda x, y: Locked({"x": x, "y": y}),
    "open mapping": lambda x, y: Open(x, y, "cpu"),
    "tuple": lambda x, y: (x, y),
    "list": lambda x, y: [x, y],
    "deque": lambda x, y: collections.deque([x, y]),
    "named tuple": Pair,
    "strict named tuple": lambda x, y: Strict((x, y)),
    "own list": Row,
    "own tuple": Twin,
    "dataclass": Items,
    "registered": Registered,
    "nested": lambda x, y: {"x": [Items(x, y)], "y": (Own(y=y),)},
}


def _inputs(batch: Any) -> tuple[Tensor, Tensor]:
    if isinstance(batch, Mapping):
        x, y = batch["x"], batch["y"]
        return (x[0].x, y[0]["y"]) if isinstance(x, list) else (x, y)
    return (batch.x, batch.y) if hasattr(batch, "x") else tuple(batch)


@pytest.mark.parametrize("executor", ["vmap", "loop"])
@pytest.mark.parametrize("kind", KINDS)
def test_containers_are_cut_item_by_item(kind: str, executor: str, data: tuple[nn.Module, Tensor, Tensor]) -> None:
    """In every container the groups are consecutive halves: the loss is a plain loop's; the class and the batch stay."""
    net, x, y = data
    batch, seen = KINDS[kind](x, y), []

    def loss(f: Any, b: Any) -> Tensor:
        found = _inputs(b)
        seen.append((type(b), tuple(found[0].shape), getattr(b, "origin", "here"), getattr(b, "note", "free")))
        return F.mse_loss(f(found[0]), found[1])

    assert first_loss(net, batch, loss, executor) == pytest.approx(by_hand(net, x, y), abs=1e-12)
    assert set(seen) == {(type(batch), (4, 4), "here", "free")}
    assert all(a is b for a, b in zip(_inputs(batch), (x, y), strict=True))


class Plain:
    """No container: an object with a tensor."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights


@attrs.define(eq=False)
class Attributes:
    """No container: an attrs class with a tensor."""

    weights: Tensor


@dataclasses.dataclass(eq=False)
class Options:
    """A dataclass that holds nothing of the batch's items."""

    weights: Tensor
    more: Any = None


@pytest.mark.parametrize("executor", ["vmap", "loop"])
@pytest.mark.parametrize(
    "make", [Plain, Attributes, Options, lambda w: Options(w, {"b": Plain(w)}), lambda w: {"in": Plain(w)}]
)
def test_other_objects_reach_every_group_untouched(
    make: Any, executor: str, data: tuple[nn.Module, Tensor, Tensor]
) -> None:
    """An object whose tensor has K numbers is the very same object in every group: the loss is a plain loop's."""
    net, x, y = data
    weights = torch.tensor([1.0, 100.0]).double()
    held, seen = make(weights), []

    def loss(f: Any, b: Any) -> Tensor:
        found = b[2]["in"] if isinstance(b[2], dict) else b[2]
        seen.append(found)
        return ((f(b[0]) - b[1]) ** 2 * found.weights).mean()

    right = sum(((net(x[i : i + 4]) - y[i : i + 4]) ** 2 * weights).mean().item() for i in (0, 4)) / 2
    assert first_loss(net, (x, y, held), loss, executor) == pytest.approx(right, abs=1e-12)
    original = held["in"] if isinstance(held, dict) else held
    assert all(found is original for found in seen)


def test_a_dataclass_belongs_to_the_batch_by_its_items() -> None:
    """Alone it is the batch; with B items it is cut, without them it is kept, with both it is an error that says so."""
    x = torch.arange(8.0)
    assert batch_size(Items(x, x)) == 8
    groups = cut((x, Items(x, x), Options(torch.ones(2)), Options(torch.tensor(3.0))), 2)
    assert groups[1].x.tolist() == [[0.0, 1, 2, 3], [4.0, 5, 6, 7]]
    assert isinstance(groups[2], Kept)
    assert isinstance(groups[3], Kept)
    with pytest.raises(
        UserError, match=r"of the tensors in a Options, some have the batch's 8 items .* \(2, 8\); wrap"
    ):
        cut((x, Options(x, torch.ones(2))), 2)
    with pytest.raises(UserError, match="same number of items, but have 2, 8"):
        cut((Items(x, x), Options(torch.ones(2))), 2)
    whole = cut((x, modhook.shared(Options(x, torch.ones(2)))), 2)
    assert one_group(whole)[1].weights is x


def test_derived_values_of_a_dataclass_are_not_carried_over() -> None:
    """What a dataclass has computed from the whole batch is computed again from the group."""
    whole = Items(torch.arange(8.0), torch.zeros(8))
    assert whole.total == 28
    assert one_group(cut(whole, 2)).total == 0 + 1 + 2 + 3


def test_parts_are_consecutive_groups_of_every_container() -> None:
    """Taking some of the groups of a cut batch takes the same ones everywhere, and leaves what is kept."""
    x, plain = torch.arange(8.0), Plain(torch.ones(4))
    chosen = part(cut({"x": collections.UserDict(a=x), "d": Items(x, x), "p": plain, "n": None}, 4), 1, 3)
    assert chosen["x"]["a"].tolist() == chosen["d"].y.tolist() == [[2.0, 3.0], [4.0, 5.0]]
    assert chosen["p"].value is plain


@pytest.mark.parametrize("batch", [Plain(torch.ones(8)), torch.tensor(1.0), {}, "text", None, [Kept(torch.ones(8))]])
def test_a_batch_without_items_is_refused(batch: Any) -> None:
    """What holds no item anywhere is one sentence that says of what a batch is made."""
    with pytest.raises(UserError, match=r"a batch must hold at least one tensor .* holds none\."):
        batch_size(batch)


class Once(list[Any]):
    """A list that cannot be copied."""

    def __copy__(self) -> Once:
        return self


def test_a_container_that_cannot_be_made_again_is_named() -> None:
    """A container of which no other can be made is one sentence, and is left as it was."""
    x = torch.arange(8.0)
    held = Once([x])
    with pytest.raises(UserError, match="a Once cannot be made again with other tensors in it; give a dict"):
        cut(held, 2)
    assert held[0] is x


def test_flags_of_numpy_choose_routes_as_those_of_python() -> None:
    """A flag of numpy is part of a call's kind: another value is checked anew, and computes the other branch."""
    import numpy as np

    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor, flag: Any) -> Tensor:
            return self.one(x) if flag else self.two(x)

    net, x = Branch(), torch.randn(2, 5, 3)
    stacked = modhook.stack(net, samples=2)
    params = {n: torch.stack([p.detach()] * 2) for n, p in net.named_parameters()}
    for flag in (np.True_, np.False_):
        expected = torch.stack([net(x[k], flag) for k in range(2)])
        torch.testing.assert_close(stacked(params, x, flag), expected)
    assert len(stacked.state_dict()["known"]) == 2


@dataclasses.dataclass
class Attributes(collections.OrderedDict[str, Any]):
    """A dictionary whose items are attributes too, as those of `transformers`' outputs."""

    x: Tensor | None = None
    y: Tensor | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            self[field.name] = getattr(self, field.name)


class Pair(list[Tensor]):
    """A list that names its items."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        super().__init__([x, y])
        self.x, self.y = x, y


@pytest.mark.parametrize("make", [Attributes, Pair])
def test_attributes_that_hold_items_of_a_container_are_cut_with_them(
    make: Any, data: tuple[nn.Module, Tensor, Tensor]
) -> None:
    """An item reached as attribute is the group's, as it is by key; the user's container keeps the whole ones."""
    net, x, y = data
    batch = make(x, y)

    def loss(net: Any, batch: Any) -> Tensor:
        assert len(batch.x) == len(batch.y) == B // K
        return F.mse_loss(net(batch.x), batch.y)

    assert first_loss(net, batch, loss) == pytest.approx(by_hand(net, x, y))
    assert batch.x is x
    assert batch["y" if make is Attributes else 1] is batch.y is y


class Shrinks:
    """Batches whose first pass can be used and whose later passes cannot."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y, self.passes = x, y, 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.passes += 1
        items = B if self.passes == 1 else 1
        assert self.passes < 9, "gone through for ever"
        yield self.x[:items], self.y[:items]
        yield self.x[:1], self.y[:1]


def test_passes_without_a_usable_batch_end_in_one_sentence(data: tuple[nn.Module, Tensor, Tensor]) -> None:
    """Batches that are empty, or too small for a whole pass, are an error: they were drawn again and again for ever."""
    net, x, y = data

    def loss(net: Any, batch: Any) -> Tensor:
        return F.mse_loss(net(batch[0]), batch[1])

    with pytest.raises(UserError, match="a batch of 0 items cannot be cut into 2 equal groups"):
        modhook.fit_masks(net, iter([(x[:0], y[:0])] * 3), loss, sampler="gumbel", samples=K, steps=3, progress=False)
    with (
        pytest.raises(UserError, match="no batch of a whole pass could be used for step 2"),
        pytest.warns(modhook.ModhookWarning, match="a batch of 1 items is left out"),
    ):
        modhook.fit_masks(net, Shrinks(x, y), loss, sampler="gumbel", samples=K, steps=3, progress=False)
