"""Containers of any class, numpy arrays and random generators that a module keeps are afterwards what they were before."""

from __future__ import annotations

import array
import collections
import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import modhook


class Once(dict):  # type: ignore[type-arg]
    """A dict whose own methods refuse to write anything twice."""

    def __setitem__(self, key: Any, value: Any) -> None:
        if key in self:
            raise KeyError(key)
        super().__setitem__(key, value)

    def clear(self) -> None:
        raise RuntimeError("never")


class Named(list):  # type: ignore[type-arg]
    """A list with an attribute."""

    seen = 0


class Recent(collections.OrderedDict):  # type: ignore[type-arg]
    """A cache in the order of use."""


class Ring(collections.deque):  # type: ignore[type-arg]
    """A deque of one's own."""


class Bag(set):  # type: ignore[type-arg]
    """A set of one's own."""


def _count(state: Any) -> float:
    state["n"] += 1
    return float(state["n"])


def _write_once(state: Any) -> float:
    dict.__setitem__(state, "n", state["n"] + 1)
    state[len(state)] = 2
    return float(sum(state.values()))


def _name(state: Any) -> float:
    state.append(2)
    state.seen += 1
    return float(len(state) + state.seen)


def _use(state: Any) -> float:
    before = list(state).index("a")
    state.move_to_end(next(iter(state)))
    return before + 1.0


def _push(state: Any) -> float:
    state.append(state[0] + 3)
    return float(state[0] + state[-1])


def _throw_in(state: Any) -> float:
    state.add(len(state))
    return float(len(state))


def _grow(state: Any) -> float:
    state.append(state[0] + 1)
    state[0] = 7
    return float(sum(state))


def _add(state: Any) -> float:
    state += 1
    return float(np.asarray(state, np.float64).sum())


def _write_text(state: Any) -> float:
    state[0] += "x"
    return float(len(str(state[0])))


def _into_object(state: Any) -> float:
    state[0].append(1)
    state[1] = state[1] + 1
    return float(len(state[0]) + state[1])


def _in_tuple(state: Any) -> float:
    state[0].append(1)
    state[1]["n"] = state[1].get("n", 0) + 1
    state[2][:] += 1
    return float(len(state[0]) + state[1]["n"] + state[2].sum())


def _deep(state: Any) -> float:
    state["a"][0]["n"] += 1
    state["a"][1] += 2
    return float(state["a"][0]["n"] + state["a"][1].sum())


_KEPT: dict[str, tuple[Callable[[], Any], Callable[[Any], float]]] = {
    "Counter": (lambda: collections.Counter(n=2), _count),
    "defaultdict": (lambda: collections.defaultdict(int), _count),
    "subclass of dict": (lambda: Once(n=1), _write_once),
    "subclass of list": (lambda: Named([1]), _name),
    "OrderedDict": (lambda: collections.OrderedDict(a=1, b=2), _use),
    "subclass of OrderedDict": (lambda: Recent(a=1, b=2), _use),
    "subclass of deque": (lambda: Ring([1, 2], maxlen=2), _push),
    "subclass of set": (lambda: Bag([0]), _throw_in),
    "UserDict": (lambda: collections.UserDict(n=1), _count),
    "bytearray": (lambda: bytearray([1, 2]), _grow),
    "array.array": (lambda: array.array("d", [1.0, 2.0]), _grow),
    "numpy": (lambda: np.zeros(2), _add),
    "numpy number": (lambda: np.array(1, np.int16), _add),
    "numpy view": (lambda: np.zeros((4, 6), ">f4")[::-2, ::3], _add),
    "numpy text": (lambda: np.array(["a", "bcde"]), _write_text),
    "numpy objects": (lambda: np.array([[], 3], object), _into_object),
    "tuple": (lambda: ([], {}, np.zeros(2)), _in_tuple),
    "nested": (lambda: {"a": [collections.Counter(n=1), np.zeros(2)]}, _deep),
    "torch.Generator": (lambda: torch.Generator().manual_seed(3), lambda g: float(torch.rand((), generator=g))),
    "random.Random": (lambda: random.Random(3), lambda g: g.gauss(0, 1)),
    "numpy Generator": (lambda: np.random.default_rng(3), lambda g: float(g.random())),
    "numpy RandomState": (lambda: np.random.RandomState(3), lambda g: float(g.rand())),
    "generator in a list": (lambda: [torch.Generator().manual_seed(3)], lambda g: float(torch.rand((), generator=g[0]))),
}


class Keeps(nn.Module):
    """Scales its output by a number that it makes by writing into what it keeps."""

    def __init__(self, state: Any, use: Callable[[Any], float]) -> None:
        super().__init__()
        self.layer, self.state, self.use = nn.Linear(3, 2).double(), state, use

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out * self.use(self.state)


def _loss(net: Any, batch: Any) -> Tensor:
    return net(batch).square().mean()  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", list(_KEPT))
def test_what_a_module_keeps_is_put_back(kind: str) -> None:
    """Each sample of each call gets what one plain run of the state as it was gives; then the state is that again."""
    make, use = _KEPT[kind]
    torch.manual_seed(0)
    net, x = Keeps(make(), use), torch.randn(2, 4, 3).double()
    state, factor = net.state, use(make())
    parts = [id(part) for part in state] if isinstance(state, (list, tuple)) else []
    second = make()
    use(second)
    assert use(second) != factor, "the test would not see a state that moved on"
    sets = {n: torch.stack([p.detach(), 1.5 * p.detach()]) for n, p in net.named_parameters()}
    plain = torch.stack([x[k] @ sets["layer.weight"][k].T + sets["layer.bias"][k] for k in range(2)]) * factor

    def unchanged() -> bool:
        same = [id(part) for part in state] == parts if parts else True
        return same and net.state is state and use(copy.deepcopy(state)) == factor

    for executor in ("auto", "loop"):
        stacked = modhook.stack(net, samples=2, executor=executor)
        for _ in range(2):
            torch.testing.assert_close(stacked(sets, x), plain)
            assert unchanged(), executor
        modhook.fit_masks(net, [x.flatten(0, 1)], _loss, samples=2, steps=3, executor=executor, progress=False)
        assert unchanged(), executor
    modhook.inspect(net, x[0])
    assert unchanged()
    seen: list[float] = []

    def score(net: nn.Module, batch: Tensor) -> Tensor:
        out: Tensor = net(batch)[:, 0]
        seen.append(float(out[0]))
        return out

    modhook.evaluate(net, None, [x[0], x[0]], score)
    assert unchanged()
    assert seen[0] != seen[1], "within evaluate, what forward writes lasts from batch to batch"


def test_large_arrays_are_put_back_too() -> None:
    """An array beyond what a step compares is put back at the end of a fit, and starts afresh for every sample."""

    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.a = nn.Linear(3, 2), np.zeros(500_000)

        def forward(self, x: Tensor) -> Tensor:
            self.a[-1] += 1
            return self.layer(x) * float(self.a[-1])  # type: ignore[no-any-return]

    net, seen = Large(), []
    own = net.a

    def loss(model: Any, batch: Tensor) -> Tensor:
        out: Tensor = model(batch)
        seen.append(float(net.a[-1]))
        return out.square().mean()

    modhook.fit_masks(net, [torch.randn(8, 3)], loss, samples=2, steps=4, executor="loop", progress=False)
    assert net.a is own
    assert not own.any()
    assert max(seen) == 1.0


def test_the_random_state_of_the_process_moves_on() -> None:
    """A module that keeps the generator that torch.rand draws from gets new numbers in every call."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.g, self.r = nn.Linear(3, 2), torch.default_generator, np.random.mtrand._rand

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) + torch.rand((), generator=self.g) * 0  # type: ignore[no-any-return]

    net = Shared()
    stacked = modhook.stack(net, samples=2, executor="loop")
    stacked({}, modhook.shared(torch.ones(4, 3)))
    before = torch.get_rng_state()
    stacked({}, modhook.shared(torch.ones(4, 3)))
    assert not torch.equal(before, torch.get_rng_state())
