"""Heads and neurons whose weights stand in parameters of a module itself and not in linear layers: one axis per head, or experts stacked.

What the axes mean is read from their sizes, and tried like every other reading (`modhook.unit.probe`); only what is proven is a unit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from modhook.unit.attention import HEADS, UNCLEAR, Readings, number, within
from modhook.unit.group import Part, rows

STACKED = "have weights that are stacked as those of experts, but no reading of them could be proven"
_PLACES = (-2, 0, -1, 1)
"""Where the axis of heads may be, the same in every parameter: (features, heads, each), (heads, features, each), ..."""


def heads(readings: Readings) -> None:
    """Look for heads in every module that names their number and has an axis of that size in several of its own parameters."""
    for path, module in readings.model.named_modules():
        own = _floating(module)
        count = number(module, HEADS) if sum(p.dim() > 2 for p in own.values()) > 2 else None
        if count is None or any(within(g.module, path) for g in readings.groups if g.kind == "head"):
            continue
        probe = readings.probe(path, module, *_widths(readings, path, own))
        tried = False
        for parts in _head_readings(own, count):
            tried = True
            used = [p for p in parts if probe.matters(p, count)]  # of what makes no difference nothing can be proven
            if readings.proven(path, module, used, count, 0, mixes=True):
                readings.add("head", path, path, module, count, used, [p.parameter for p in used if p.gate])
                whole = type(readings.model).__name__
                for other in [p for p in readings.lost if p == whole or within(path, p)]:
                    del readings.lost[other]
                break
        else:
            kind = type(module).__name__
            said = f"{UNCLEAR}: {kind} is said to have {count}"
            if tried and probe.sees():
                readings.lost[path or kind] = f"{said}, but no reading of its parameters could be proven; give them as a mapping"
            elif not tried and any(isinstance(getattr(module, name, None), int) for name in HEADS):
                readings.lost[path or kind] = f"{said}, but no three of its parameters have that size; give them as a mapping"


def neurons(readings: Readings) -> None:
    """Look for the neurons of experts whose weights are stacked: (experts, neurons, features) and (experts, features, neurons)."""
    for path, module in readings.model.named_modules():
        own = _floating(module)
        stacks = {n: p for n, p in own.items() if p.dim() == 3}
        if len(stacks) < 2 or len({p.shape[0] for p in stacks.values()}) > 1 or type(module).__module__.startswith("torch.nn"):
            continue
        if any(p.parameter.rpartition(".")[0] == path for g in readings.groups for p in g.parts):
            continue
        readings.probe(path, module, *_widths(readings, path, own))
        tried = False
        for parts, size in _expert_readings(stacks, own):
            tried = next(iter(stacks.values())).shape[0] > 1
            count = len(next(iter(stacks.values()))) * size
            if readings.proven(path, module, parts, count, 0):
                labels = [f"{i // size}.{i % size}" for i in range(count)]
                home = [p.parameter for p in parts if not p.gate]
                readings.add("neuron", path, path, module, count, parts, home[:1], labels=labels)
                break
        else:
            if tried:
                readings.lost.setdefault(path or type(module).__name__, f"{STACKED}; give them as a mapping")


def _floating(module: nn.Module) -> dict[str, Tensor]:
    return {n: p for n, p in module._parameters.items() if p is not None and p.is_floating_point() and p.dim() > 1}


def _widths(readings: Readings, path: str, own: Mapping[str, Tensor]) -> list[int]:
    """Return how many features a module's input may have: as many as it was seen with, or one of its largest parameter's sizes."""
    for args, kwargs in readings.seen.get(path, ()):
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 1:
                return [int(value.shape[-1])]
    return list(dict.fromkeys(max(own.values(), key=lambda p: p.numel()).shape))


def _head_readings(own: Mapping[str, Tensor], count: int) -> Iterator[list[Part]]:
    """Yield what the heads' parts may be; the last parameters are the likeliest to take what heads give."""
    for place in _PLACES:
        axes = {n: place % p.dim() for n, p in own.items() if -p.dim() <= place < p.dim()}
        axes = {n: axis for n, axis in axes.items() if own[n].shape[axis] == count}
        takers = [n for n in axes if own[n].dim() > 2]
        if len(takers) < 3:
            continue
        for taker in reversed(takers):
            yield [Part(n, rows(count, axis, own[n].dim()), gate=n == taker) for n, axis in axes.items()]


def _expert_readings(stacks: Mapping[str, Tensor], own: Mapping[str, Any]) -> Iterator[tuple[list[Part], int]]:
    """Yield what the neurons' parts may be, and how many an expert has; twice as many rows are its gates, before or between the others."""
    for taker, axis in itertools.product(list(stacks)[::-1], (2, 1)):
        (experts, *_), size, features = stacks[taker].shape, stacks[taker].shape[axis], stacks[taker].shape[3 - axis]
        units = torch.arange(experts * size, device="cpu").view(experts, size)
        gate = Part(taker, units.view((experts, 1, size) if axis == 2 else (experts, size, 1)), gate=True)
        for times, between in ((1, False), (2, False), (2, True)):
            many = times * size
            wide = units.repeat_interleave(2, 1) if between else units.repeat(1, times)  # (experts, many)
            biases = [Part(n, wide) for n, p in own.items() if tuple(p.shape) == (experts, many)]
            options = []
            for name, other in stacks.items():
                if name != taker:
                    fitting = [(many, features, (experts, many, 1)), (features, many, (experts, 1, many))]
                    options.append([Part(name, wide.view(v)) for a, b, v in fitting if tuple(other.shape[1:]) == (a, b)])
            for makers in itertools.product(*options):
                yield [*makers, *biases, gate], size
