"""Small modules written to be nasty: what vmap cannot see, what computes again, what writes, what is used twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint
from zoo_harness import Case
from zoo_layers import B, D, floats


class Inner(nn.Module):
    """A linear map, to be spoilt."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(D, D)


class Item(Inner):
    """`.item()`."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y / (1 + abs(y.sum().item()))


class ToList(Inner):
    """`.tolist()`."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y * torch.tensor(y.mean(0).tolist())


class BooleanWrite(Inner):
    """Writes where a condition holds."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x).clone()
        y[y > 0] = 0.5 * y[y > 0]
        return y


class Branch(Inner):
    """`if tensor`."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y if y.sum() > 0 else -2 * y


class While(Inner):
    """A loop whose number of rounds depends on values."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        while y.norm() > 1:
            y = self.linear(y) / 2
        return y


class Nonzero(Inner):
    """Selects rows by a condition."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        rows = (y.sum(-1) > 0).nonzero().flatten()
        return y.index_add(0, rows, y[rows])


class NumpyRoundTrip(Inner):
    """Leaves torch and comes back."""

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * torch.from_numpy(x.detach().numpy() ** 2)


class OldDouble(torch.autograd.Function):
    """Old style: forward takes ctx."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * gradient


class NewDouble(torch.autograd.Function):
    """New style: setup_context, no vmap rule."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * x

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * gradient


class OwnFunction(Inner):
    """Calls a custom autograd function."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function.apply(self.linear(x))


class Counter(Inner):
    """Adds up in a buffer, in place, and uses it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(D))

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        self.total += y.detach().mean(0)
        self.total.mul_(0.9)
        return y + self.total


class Twice(Inner):
    """One submodule under two names, used three times."""

    def __init__(self) -> None:
        super().__init__()
        self.again = self.linear

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.linear(self.again(x).tanh()).tanh())


class Checkpointed(nn.Module):
    """Computes its block again in the backward pass."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.zeroth, self.first, self.second = (nn.Linear(D, D) for _ in range(3))
        self.reentrant = reentrant

    def block(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).tanh()).tanh()

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.block, self.zeroth(x), use_reentrant=self.reentrant)


class RequiresGrad(Inner):
    """Branches on whether a weight is trained."""

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * (2 if self.linear.weight.requires_grad else 3)


class Caching(Inner):
    """Keeps what it computed, in an attribute, a list and an object."""

    class Store:
        """Holds a tensor."""

        latest: Tensor | None = None

    def __init__(self) -> None:
        super().__init__()
        self.latest: Tensor | None = None
        self.history: list[Tensor] = []
        self.store = Caching.Store()

    def forward(self, x: Tensor) -> Tensor:
        self.latest = self.linear(x)
        self.history.append(self.latest)
        self.store.latest = self.latest
        return self.latest.tanh()


class DataPointer(Inner):
    """Writes through `.data`, and in place into what it computed."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        y.data.clamp_(-1, 1)
        return y.add_(1).relu_()


class Hooked(Inner):
    """Has a forward hook that changes the output, and a pre-hook that changes the input."""

    def __init__(self) -> None:
        super().__init__()
        self.linear.register_forward_hook(lambda module, args, out: out * module.weight.mean())
        self.linear.register_forward_pre_hook(lambda module, args: (args[0] + 1,))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def around(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Put a module between two stock ones."""
    return lambda: nn.Sequential(nn.Linear(D, D), nn.Sequential(nn.Tanh(), build()), nn.Linear(D, D))


NASTY: dict[str, Callable[[], nn.Module]] = {
    "item": Item,
    "tolist": ToList,
    "boolean write": BooleanWrite,
    "if tensor": Branch,
    "while tensor": While,
    "nonzero": Nonzero,
    "numpy round trip": NumpyRoundTrip,
    "autograd.Function, old style": lambda: OwnFunction(OldDouble),
    "autograd.Function, new style": lambda: OwnFunction(NewDouble),
    "in place on a buffer": Counter,
    "shared submodule": Twice,
    "checkpoint, reentrant": lambda: Checkpointed(True),
    "checkpoint, non-reentrant": lambda: Checkpointed(False),
    "branch on requires_grad": RequiresGrad,
    "caches": Caching,
    "data and in-place": DataPointer,
    "hooks": Hooked,
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(D, D)),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(D, D)),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Linear(D, D)),
}


def cases() -> Iterator[Case]:
    """Yield all nasty modules, inside a stock network, in train and eval mode."""
    for training in (True, False):
        for name, build in NASTY.items():
            yield Case(name, "nasty", around(build), floats((B, D)), training)
