"""What a network with a known answer consists of: the network, its functions with their data, and the truth about its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, Literal

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

Data = dict[str, Tensor]
"""Items first. `values`: inputs (N, ...), target (N, ..., O), tolerance, of which the target's shape can be made by expansion: how
far off an output may be, infinity where it is not asked for. `classes`: inputs (N, ...), target (N,), int64."""
Net = Callable[..., Any]
Chosen = dict[str, dict[str, Tensor]]
"""{function: {parameter: bool tensor of its shape}}."""


@attrs.frozen
class Batches:
    """Training batches that can be gone through again and are the same each time: `passes` shuffled passes over the data."""

    data: Data
    size: int
    seed: int
    passes: int

    def __iter__(self) -> Iterator[Data]:
        generator = torch.Generator().manual_seed(self.seed)
        count = len(self.data["inputs"])
        for _ in range(self.passes):
            order = torch.randperm(count, generator=generator, device="cpu")
            for start in range(0, count - self.size + 1, self.size):  # no smaller last batch
                picked = order[start : start + self.size]
                yield {name: tensor[picked] for name, tensor in self.data.items()}

    def __len__(self) -> int:
        return self.passes * (len(self.data["inputs"]) // self.size)


@attrs.frozen(eq=False, repr=False)
class Function:
    """One function of a network: its data, how far off the network is, and when an answer is right.

    Attributes:
        name: the function's name.
        doc: what it computes.
        number: its number in `Truth.owner`, from 1.
        kind: `values`: the squared distance to the exact outputs; right if every output that is asked for is within its
            tolerance. `classes`: cross-entropy; right if the largest output is the right class.
        train, test: the data, with no item in both.
    """

    name: str
    doc: str
    number: int
    kind: Literal["values", "classes"]
    train: Data
    test: Data

    def loss(self, net: Net, batch: Data) -> Tensor:
        """Return the loss of a batch, a scalar: for `fit_masks`."""
        return loss(net, batch)

    def score(self, net: Net, batch: Data) -> Tensor:
        """Return 1 for each item (B,) that is right in every place, else 0: for `evaluate`."""
        return score(net, batch)

    def batches(self, seed: int = 0, size: int = 128, passes: int = 100) -> Batches:
        """Return training batches, a re-iterable: `passes` shuffled passes, the same ones for the same seed."""
        return Batches(self.train, min(size, len(self.train["inputs"])), seed, passes)

    def test_batches(self, size: int = 512) -> list[Data]:
        """Return the held-out data in order, in batches."""
        count = len(self.test["inputs"])
        return [{n: t[i : i + size] for n, t in self.test.items()} for i in range(0, count, size)]

    def everything(self) -> Data:
        """Return training and held-out data together."""
        return {name: torch.cat([tensor, self.test[name]]) for name, tensor in self.train.items()}


def loss(net: Net, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the squared distance to the exact outputs (mean over items and positions), or the cross-entropy; a scalar."""
    output: Tensor = net(batch["inputs"])
    target = batch["target"]
    if "tolerance" not in batch:
        return F.cross_entropy(output, target)
    asked = batch["tolerance"].isfinite()
    return ((output - target).square() * asked).sum(-1).mean()


def score(net: Net, batch: Mapping[str, Tensor]) -> Tensor:
    """Return 1 for each item (B,) that is right in every place, else 0, float64."""
    output: Tensor = net(batch["inputs"])
    target = batch["target"]
    if "tolerance" not in batch:
        return (output.argmax(-1) == target).double()
    right = (output - target).abs() < batch["tolerance"]  # (B, ..., O)
    return right.flatten(1).all(-1).double()


@attrs.define(eq=False, repr=False, slots=False)
class Truth:
    """What is known about the weights.

    Attributes:
        owner: {parameter: int64 tensor of its shape}: 0 for a weight of no function, else the function's number. None where only
            accuracies and sizes can be judged (a changed basis, nothing to find).
    """

    owner: dict[str, Tensor] | None
    _find: Callable[[], tuple[Chosen, Chosen] | None]

    @cached_property
    def _found(self) -> tuple[Chosen, Chosen] | None:
        return self._find()

    @property
    def necessary(self) -> Chosen | None:
        """{function: {parameter: bool}}: weights that, alone set to zero, make more than 1 % of the function's inputs fail that are
        right in the whole network."""
        return None if self._found is None else self._found[0]

    @property
    def minimal(self) -> Chosen | None:
        """{function: {parameter: bool}}: a small mask that loses at most 1 % of the function's inputs, found greedily."""
        return None if self._found is None or not self._found[1] else self._found[1]


@attrs.frozen(eq=False, repr=False)
class Known:
    """A network with a known answer.

    Attributes:
        name, seed: what it was built from.
        model: the finished network in eval mode, frozen; every call of `build` makes a new one.
        functions: {name: `Function`}.
        truth: what is known about its weights.
        parts: {function: held-out accuracy of the part alone, before it was joined with the other}.
    """

    name: str
    seed: int
    model: nn.Module
    functions: dict[str, Function]
    truth: Truth
    parts: dict[str, float]


def accuracy(net: Net, data: Mapping[str, Tensor]) -> float:
    """Return the share of items that are right."""
    with torch.no_grad():
        return float(score(net, data).mean())


def halves(data: Data, seed: int = 0) -> tuple[Data, Data]:
    """Split data into two halves without overlap."""
    count = len(data["inputs"])
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed), device="cpu")
    first, second = order[: count // 2], order[count // 2 :]
    return {n: t[first] for n, t in data.items()}, {n: t[second] for n, t in data.items()}
