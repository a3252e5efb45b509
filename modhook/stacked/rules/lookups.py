"""Embedding, EmbeddingBag, Bilinear and the like where vmap is slow or counts over samples that do not belong together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from modhook.stacked.rules.bridge import is_stacked
from modhook.stacked.rules.memory import Memory
from modhook.stacked.rules.recurrent import per_sample


def embedding(memory: Memory, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Look up one sample at a time where the input has a say in the weight or its gradient.

    `scale_grad_by_freq` divides by how often an index occurs in that sample's input; `max_norm` shrinks the rows used;
    and vmap would give the row of `padding_idx` a gradient.
    """
    names = ("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if given.get("max_norm") is not None:
        return per_sample(memory, func, args, kwargs, len(args), writes=True)
    own = given.get("scale_grad_by_freq") or given.get("padding_idx") is not None
    return per_sample(memory, func, args, kwargs, 1) if own and is_stacked(given["weight"]) else NotImplemented


def one_by_one(memory: Memory, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call the stock kernel once per sample."""
    return per_sample(memory, func, args, kwargs, len(args))


def bilinear(memory: Memory, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Write y_o = x W_o z + b_o as one product, which vmap knows."""
    given = {**dict(zip(("input1", "input2", "weight", "bias"), args, strict=False)), **kwargs}
    bias = given.get("bias")
    out = torch.einsum("...i,oij,...j->...o", given["input1"], given["weight"], given["input2"])
    return out if bias is None else out + bias
