"""The independent reference: a plain Python loop over deep copies, which knows nothing of modhook.stacked."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def parameter_sets(model: nn.Module, samples: int, names: list[str] | None = None) -> dict[str, Tensor]:
    """Return K different sets of the model's parameters, each (K, ...), leaves that need gradients."""
    generator = torch.Generator().manual_seed(5)
    sets = {}
    for name, parameter in model.named_parameters():
        if names is None or name in names:
            noise = torch.randn(samples, *parameter.shape, generator=generator).to(parameter.dtype)
            sets[name] = (parameter.detach() + 0.1 * noise).requires_grad_()
    return sets


def plain_loop(
    model: nn.Module, sets: dict[str, Tensor], call: Callable[[nn.Module, int], list[Tensor]]
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return the stacked outputs of `call(copy of the model, k)` and the gradients of their sum of squares."""
    outputs, gradients = [], []
    samples = next(iter(sets.values())).shape[0]
    for k in range(samples):
        twin = copy.deepcopy(model)
        own = dict(twin.named_parameters())
        with torch.no_grad():
            for name in sets:
                own[name].copy_(sets[name][k])
        for name, parameter in own.items():
            parameter.requires_grad_(name in sets)
        out = call(twin, k)
        total = sum(o.square().sum() for o in out)
        total.backward()
        gradients.append([own[n].grad for n in sets])
        outputs.append([o.detach() for o in out])
    grads = {}
    for name, column in zip(sets, zip(*gradients, strict=True), strict=True):
        grads[name] = torch.stack([torch.zeros_like(sets[name][0]) if g is None else g for g in column])
    return [torch.stack(list(column)) for column in zip(*outputs, strict=True)], grads


def gradients_of(outputs: list[Tensor], sets: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the gradients of the sum of squares of stacked outputs."""
    total = sum(o.square().sum() for o in outputs)
    found = torch.autograd.grad(total, list(sets.values()), allow_unused=True)
    return {n: torch.zeros_like(s) if g is None else g for (n, s), g in zip(sets.items(), found, strict=True)}


def worst(found: Any, expected: Any, floor: float = 1e-12) -> float:
    """Return the largest relative error between two tensors, or lists or dicts of tensors."""
    if isinstance(expected, dict):
        assert expected.keys() == found.keys()
        # A gradient that is zero but for rounding (a bias before batch norm) is measured against the others.
        floor = 1e-4 * max(e.abs().max().item() for e in expected.values())
        return max(worst(found[name], expected[name], floor) for name in expected)
    if isinstance(expected, list):
        assert len(expected) == len(found)
        return max(worst(f, e) for f, e in zip(found, expected, strict=True))
    assert found.shape == expected.shape
    scale = max(expected.abs().max().item(), floor)
    return float((found - expected).abs().max().item() / scale)


def fingerprint(model: nn.Module) -> str:
    """Return a hash of everything about a model that must survive: objects, values, flags, hooks, attributes."""
    digest = hashlib.sha256()
    for prefix, module in model.named_modules():
        digest.update(f"{prefix} {id(module)} {module.training} {sorted(module.__dict__)}".encode())
        digest.update(repr([(k, id(v)) for k, v in module.__dict__.items()]).encode())
        for slots in (module._parameters, module._buffers):
            for name, tensor in slots.items():
                digest.update(f"{name} {id(tensor)}".encode())
                if tensor is not None:
                    digest.update(f"{tensor.requires_grad} {tensor._version} {tensor.grad is None}".encode())
                    digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        digest.update(repr([(k, id(v)) for k, v in module._forward_hooks.items()]).encode())
    return digest.hexdigest()
