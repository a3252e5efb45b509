"""Toy models of superposition (Elhage et al. 2022): more sparse features than dimensions, `ReLU(W^T W x + b)`.

Column i of W is the direction of feature i. One feature's module is its column: with the column alone, its output no longer sees the
other features at all.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.func import functional_call

from modhook_tasks.known.compiled import FILES
from modhook_tasks.known.structure import Data, Function, Net, accuracy, halves

SIZES = {"superposed_5_2": (5, 2, 0.05), "superposed_40_10": (40, 10, 0.02)}
"""Features, dimensions, and how often each feature is there (else it is 0; where it is there it is uniform in 0..1)."""
ITEMS = 2048
TOLERANCE = 0.25
"""An output is right within this of its feature."""
STEPS, BATCH = 8_000, 1024


class Superposed(nn.Module):
    """Features (B, n) to features (B, n) through m < n dimensions, with one weight (m, n) used twice."""

    def __init__(self, features: int, dimensions: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dimensions, features, device="cpu"))
        self.bias = nn.Parameter(torch.empty(features, device="cpu"))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights."""
        nn.init.xavier_normal_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return what is left of the features, (B, n)."""
        return torch.relu(features @ self.weight.T @ self.weight + self.bias)


def networks() -> tuple[str, ...]:
    """Return the names of the superposed networks."""
    return tuple(SIZES)


def empty(name: str) -> Superposed:
    """Return a new, untrained network."""
    features, dimensions, _ = SIZES[name]
    return Superposed(features, dimensions)


def draw(name: str, count: int, generator: torch.Generator) -> Tensor:
    """Return sparse features (count, n)."""
    features, _, often = SIZES[name]
    values, there = torch.rand(2, count, features, generator=generator, device="cpu")
    sparse: Tensor = values * (there < often)
    return sparse


class Everywhere:
    """Batches of base training: all features."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(STEPS):
            yield draw(self.name, BATCH, generator)

    def __len__(self) -> int:
        return STEPS


def everywhere_loss(net: Net, features: Tensor) -> Tensor:
    """Return the squared error over all features, all equally important."""
    error: Tensor = (net(features) - features).square().sum(-1).mean()
    return error


def build(name: str) -> tuple[Superposed, dict[str, Function], dict[str, Tensor]]:
    """Return network, one function per feature, and owner of each weight: column i is feature i's (biases too)."""
    model = empty(name)
    model.load_state_dict(load_file(FILES / f"{name}.safetensors"))
    count = SIZES[name][0]
    functions = {f"feature{i}": _function(name, i) for i in range(count)}
    numbers = torch.arange(1, count + 1, device="cpu")
    owner = {"weight": numbers.expand(model.weight.shape).clone(), "bias": numbers.clone()}
    return model.eval().requires_grad_(False), functions, owner


def alone(model: Superposed, functions: dict[str, Function], owner: dict[str, Tensor]) -> dict[str, float]:
    """Return each feature's held-out accuracy with its own column and every bias."""

    def net(number: int) -> Net:
        column = {"weight": model.weight * (owner["weight"] == number)}
        return lambda features: functional_call(model, column, (features,))

    return {name: accuracy(net(function.number), function.test) for name, function in functions.items()}


def _function(name: str, feature: int) -> Function:
    """Return one feature's function: it is there in half of the items, the others as sparsely as ever."""
    generator = torch.Generator().manual_seed(feature + 1)
    inputs = draw(name, ITEMS, generator)
    inputs[:, feature] = torch.rand(ITEMS, generator=generator, device="cpu") * (torch.arange(ITEMS, device="cpu") % 2)
    tolerance = torch.full_like(inputs, torch.inf)
    tolerance[:, feature] = TOLERANCE
    data: Data = {"inputs": inputs, "target": inputs.clone(), "tolerance": tolerance}
    train, test = halves(data)
    return Function(f"feature{feature}", f"pass on feature {feature}", feature + 1, "values", train, test)
