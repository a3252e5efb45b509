"""Networks in which there is nothing to find, so that a method that finds "modules" anyway is seen to.

`untrained`: the same network, newly initialised. `shuffled`: the weights of each tensor at random places in it. `permuted`: the network
as it is, asked for labels that it never learned.
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor, nn

from modhook_tasks.known.structure import Data, Function

CONTROLS = ("untrained", "shuffled", "permuted")


def untrain(model: nn.Module, seed: int) -> None:
    """Initialise every parameter anew, as its module does, in place; constants (buffers) stay."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in model.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()


def shuffle(model: nn.Module, seed: int) -> None:
    """Put the weights of each tensor at random places in it, in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            order = torch.randperm(weight.numel(), generator=generator, device="cpu")
            weight.copy_(weight.flatten()[order].view(weight.shape))


def permute(functions: dict[str, Function], seed: int) -> dict[str, Function]:
    """Return the functions with other answers: every output or class stands for another one; a lone number y becomes 1 - y."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, function in functions.items():
        outputs = _outputs(function)
        moved = outputs[_derangement(len(outputs), generator)]

        def answers(data: Data, outputs: Tensor = outputs, moved: Tensor = moved) -> Data:
            return {**data, "target": _relabelled(data, outputs, moved)}

        doc = f"{function.doc}; permuted labels"
        found[name] = attrs.evolve(function, doc=doc, train=answers(function.train), test=answers(function.test))
    return found


def _outputs(function: Function) -> Tensor:
    """Return the numbers of the outputs or classes that a function uses."""
    if function.kind == "classes":
        used: Tensor = torch.cat([function.train["target"], function.test["target"]]).unique()
        return used
    return function.train["tolerance"].isfinite().flatten(0, -2).any(0).nonzero().flatten()


def _relabelled(data: Data, outputs: Tensor, moved: Tensor) -> Tensor:
    target = data["target"]
    if "tolerance" not in data:
        table = torch.arange(int(outputs.max()) + 1, device="cpu")
        table[outputs] = moved
        return table[target]
    changed = target.clone()
    changed[..., outputs] = 1 - target[..., outputs] if len(outputs) == 1 else target[..., moved]
    return changed


def _derangement(size: int, generator: torch.Generator) -> Tensor:
    """Return a permutation that leaves nothing at its place (a lone thing stays)."""
    while True:
        order = torch.randperm(size, generator=generator, device="cpu")
        if size == 1 or not bool((order == torch.arange(size, device="cpu")).any()):
            return order


def control(model: nn.Module, functions: dict[str, Function], kind: str, seed: int) -> dict[str, Function]:
    """Change a network in place (or only its functions' labels) and return its functions."""
    if kind == "permuted":
        return permute(functions, seed)
    if kind == "untrained":
        untrain(model, seed)
    else:
        shuffle(model, seed)
    return functions
