"""Which weights a function needs, by trying: each weight alone set to zero, and a small mask found by taking weights away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from modhook_tasks.known.structure import Chosen, Data, Function, accuracy, score

THRESHOLD = 0.01
"""Share of a function's inputs that must fail for a weight to be necessary, besides those that fail anyway; what `minimal` may lose."""
CHUNK = 32
"""Weights tried at once."""
ITEMS = 1024
"""Inputs that are tried at most: all of a compiled program's."""


def masked_names(model: nn.Module) -> tuple[str, ...]:
    """Return the parameters that are asked about: all but biases, as masks are learned by default."""
    return tuple(name for name, _ in model.named_parameters() if "bias" not in name)


def tried(function: Function) -> Data:
    """Return the inputs that are tried: all, or the first 1,024, held-out ones first."""
    return {name: torch.cat([tensor, function.train[name]])[:ITEMS] for name, tensor in function.test.items()}


def failing(model: nn.Module, function: Function, names: tuple[str, ...] | None = None) -> dict[str, Tensor]:
    """Return for every weight the share of the function's inputs (`tried`) that fail without that weight alone.

    Args:
        model: the network, in eval mode; it is not changed.
        function: the function whose inputs are tried.
        names: the parameters to look at; default: all but biases.

    Returns:
        {parameter: float64 tensor of its shape}. A weight that is zero has the share that fails anyway.
    """
    data = tried(function)
    own = 1 - accuracy(model, data)
    shares = {}
    for name in masked_names(model) if names is None else names:
        weight = model.get_parameter(name).detach()
        share = torch.full((weight.numel(),), own, dtype=torch.float64, device="cpu")
        places = weight.flatten().nonzero().flatten()
        for some in places.split(CHUNK):
            share[some] = _without(model, name, weight, some, data)
        shares[name] = share.view(weight.shape)
    return shares


def _without(model: nn.Module, name: str, weight: Tensor, places: Tensor, data: Mapping[str, Tensor]) -> Tensor:
    """Return the share (n,) that fails when each of the n places alone is zero in one parameter."""
    trials = weight.flatten().repeat(len(places), 1)  # (n, weights)
    trials[torch.arange(len(places), device="cpu"), places] = 0
    trials = trials.view(-1, *weight.shape)

    def right(trial: Tensor) -> Tensor:
        return score(lambda inputs: functional_call(model, {name: trial}, (inputs,)), data).mean()

    with torch.no_grad():
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):  # vmap has no rule for them
            return 1 - torch.stack([right(trial) for trial in trials])
        shares: Tensor = 1 - vmap(right)(trials)
        return shares


def necessary(model: nn.Module, function: Function) -> dict[str, Tensor]:
    """Return {parameter: bool}: True for weights without which, each alone, more than 1 % of the function's inputs fail.

    Inputs that fail in the whole network (parts that were trained are not perfect) do not count.
    """
    own = 1 - accuracy(model, tried(function))
    return {name: share > own + THRESHOLD for name, share in failing(model, function).items()}


def minimal(model: nn.Module, function: Function, start: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return {parameter: bool}: a small mask that loses at most 1 % of the function's inputs against the whole network.

    Weights of the mask `start` are taken away one by one, those that matter least alone first, as long as that holds. It is the
    smaller of two such orders (ties from the front, ties from the back): small, not proven smallest.
    """
    data = tried(function)
    shares = failing(model, function)
    places = [(float(shares[n].flatten()[i]), n, i) for n in shares for i in _kept(start[n])]
    forwards = sorted(places, key=lambda place: place[0])
    backwards = sorted(places, key=lambda place: place[0])
    found = (_taken_away(model, data, start, [(n, i) for _, n, i in order]) for order in (forwards, backwards))
    return min(found, key=lambda mask: sum(int(m.sum()) for m in mask.values()))


def _kept(mask: Tensor) -> Iterator[int]:
    yield from mask.flatten().nonzero().flatten().tolist()


def _taken_away(
    model: nn.Module, data: Mapping[str, Tensor], start: Mapping[str, Tensor], order: list[tuple[str, int]]
) -> dict[str, Tensor]:
    weights = {n: torch.where(m, model.get_parameter(n).detach(), 0.0) for n, m in start.items()}
    mask = {n: m.clone() for n, m in start.items()}
    least = accuracy(model, data) - THRESHOLD
    for name, place in order:
        flat = weights[name].view(-1)
        before = flat[place].clone()
        flat[place] = 0
        if accuracy(lambda inputs: functional_call(model, weights, (inputs,)), data) < least:
            flat[place] = before
        else:
            mask[name].view(-1)[place] = False
    return mask


def find(
    model: nn.Module, functions: Mapping[str, Function], owner: Mapping[str, Tensor] | None
) -> tuple[Chosen, Chosen]:
    """Return `Truth.necessary` and `Truth.minimal` of a network; without an owner of the weights, no minimal masks."""
    needed = {name: necessary(model, function) for name, function in functions.items()}
    if owner is None:
        return needed, {}
    names = masked_names(model)
    starts = {f.name: {n: owner[n] == f.number for n in names} for f in functions.values()}
    return needed, {name: minimal(model, functions[name], starts[name]) for name in functions}
