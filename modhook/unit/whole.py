"""Whole layers and whole blocks as units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from modhook.unit.group import Group, Part


def layers(model: nn.Module, names: Mapping[str, Sequence[str]]) -> list[Group]:
    """Return the layers as one group: every module with weights of its own, normalisation aside, with all of them.

    A layer that is gone gives zeros. `nn.MultiheadAttention` is one layer, and so is a recurrent layer of several levels.
    """
    found: dict[str, list[str]] = {}
    for path, module in model.named_modules():
        inside = any(
            _under(path, other) for other in found if isinstance(model.get_submodule(other), nn.MultiheadAttention)
        )
        if _norm(module) or inside:
            continue
        deep = isinstance(module, nn.MultiheadAttention)
        own = [
            f"{path}.{n}" if path else n
            for n, p in module.named_parameters(recurse=deep)
            if p.is_floating_point() and p.numel()
        ]
        own = [n for n in own if n in names]  # a tied weight belongs to the layer that has it first
        if own:
            found[path] = own
    return _group("layer", {path or type(model).__name__: own for path, own in found.items()}, model)


def blocks(model: nn.Module, names: Mapping[str, Sequence[str]]) -> list[Group]:
    """Return the blocks as one group: the members of lists of modules that hold several layers each, the outermost.

    A block is its weights, but for those of layer norms and their like: without them a residual block adds nothing.
    """
    found: dict[str, list[str]] = {}
    for path, module in _members(model, ""):
        own = []
        for inner, child in module.named_modules():
            if not _norm(child) or isinstance(child, _NormBase):
                before = f"{path}.{inner}." if inner else f"{path}."
                own += [
                    before + n for n, p in child.named_parameters(recurse=False) if p.is_floating_point() and p.numel()
                ]
        if own := [n for n in own if n in names]:
            found[path] = own
    return _group("block", found, model)


def _members(model: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in model.named_children():
        inner = f"{path}.{name}" if path else name
        several = sum(any(p is not None for p in m._parameters.values()) for m in child.modules()) > 1
        lists = nn.ModuleList | nn.ModuleDict
        if several and isinstance(model, lists | nn.Sequential) and not isinstance(child, lists):
            yield inner, child
        else:
            yield from _members(child, inner)


def _group(kind: str, found: Mapping[str, Sequence[str]], model: nn.Module) -> list[Group]:
    if not found:
        return []
    parameters = dict(model.named_parameters())
    parts = [
        Part(name, torch.full([1] * parameters[name].dim(), number, dtype=torch.int64, device="cpu"))
        for number, own in enumerate(found.values())
        for name in own
    ]
    return [Group(f"{kind}s", kind, "", tuple(found), tuple(parts), tuple(own[0] for own in found.values()))]


def _norm(module: nn.Module) -> bool:
    """Return whether a module normalises: torch's own kinds, and those that are called so."""
    return isinstance(module, _NormBase | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm) or "Norm" in type(module).__name__


def _under(path: str, outer: str) -> bool:
    return bool(path) and (not outer or path.startswith(f"{outer}."))
