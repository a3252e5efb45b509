"""Heads of `nn.MultiheadAttention`, and the hidden neurons of torch's own Transformer layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from modhook.unit.group import Group, Part, numbered, rows
from modhook.unit.layers import ELEMENTWISE

_ACTIVATIONS = (F.relu, F.gelu, torch.relu, F.silu, F.elu, F.leaky_relu, torch.tanh, torch.sigmoid, F.mish, F.selu)


def heads(model: nn.Module, names: Mapping[str, Sequence[str]]) -> tuple[list[Group], dict[str, str]]:
    """Return the heads of every `nn.MultiheadAttention`, and why others are none.

    A head is its slices of queries, keys and values, and its columns of the output layer, which alone decide whether it is there.
    """
    groups: list[Group] = []
    lost: dict[str, str] = {}
    for path, module in model.named_modules():
        if not isinstance(module, nn.MultiheadAttention):
            continue
        before, count, each = f"{path}." if path else "", module.num_heads, module.head_dim
        parts = []
        for name, value in module.named_parameters():
            if name == "in_proj_weight" or name == "in_proj_bias":
                parts.append(Part(before + name, rows(count, 0, value.dim(), each=each, times=3)))
            elif name in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
                parts.append(Part(before + name, rows(count, 0, 2, each=each)))
            elif name in ("bias_k", "bias_v"):
                parts.append(Part(before + name, rows(count, 2, 3, each=each)))
            elif name == "out_proj.weight":
                parts.append(Part(before + name, rows(count, 1, 2, each=each), gate=True))
        _add(groups, lost, names, "head", path or type(module).__name__, count, parts, [f"{before}out_proj.weight"])
    return groups, lost


def hidden(model: nn.Module, names: Mapping[str, Sequence[str]]) -> tuple[list[Group], dict[str, str]]:
    """Return the neurons between the two linear layers of torch's encoder and decoder layers, and why others are none."""
    groups: list[Group] = []
    lost: dict[str, str] = {}
    for path, module in model.named_modules():
        if type(module) not in (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer):
            continue
        before = f"{path}." if path else ""
        count = module.linear1.out_features
        act: Any = module.activation
        if act not in _ACTIVATIONS and not isinstance(act, ELEMENTWISE):
            lost[f"{before}linear1"] = "pass an activation that is not known to leave each of them by itself"
            continue
        parts = [Part(f"{before}linear1.weight", rows(count, 0, 2))]
        if module.linear1.bias is not None:
            parts.append(Part(f"{before}linear1.bias", rows(count, 0, 1)))
        parts.append(Part(f"{before}linear2.weight", rows(count, 1, 2), gate=True))
        _add(groups, lost, names, "neuron", f"{before}linear1", count, parts, [f"{before}linear1.weight"])
    return groups, lost


def _add(
    groups: list[Group],
    lost: dict[str, str],
    names: Mapping[str, Sequence[str]],
    kind: str,
    path: str,
    count: int,
    parts: list[Part],
    home: list[str],
) -> None:
    """Add a group, unless a weight of it is tied."""
    for part in parts:
        if len(aliases := names.get(part.parameter, ())) != 1:
            lost[path] = (
                f"own weights of {part.parameter!r}, which is tied to another"
                if not aliases
                else (f"own weights of {aliases[0]!r}, which is tied to {aliases[1]!r}")
            )
            return
    groups.append(numbered(f"{kind}:{path}", kind, path, count, parts, home))
