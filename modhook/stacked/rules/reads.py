"""Values that Python reads from a tensor (`if x.any()`, `.item()`, `x.nonzero()`): exact wherever all samples hold the same.

Padding masks and token ids are asked such questions all the time, and the samples mostly agree. Where they differ, the
samples would go different ways, and the call is refused with `Disagreement`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from modhook.stacked.rules.bridge import bridge, is_stacked
from modhook.stacked.rules.memory import Memory


class Disagreement(RuntimeError):
    """The samples hold different values where the module reads one."""


def together(memory: Memory, tensor: Any) -> Any:
    """Return what every sample holds in this tensor, without K. Raises `Disagreement` where samples differ."""
    if not is_stacked(tensor):
        return tensor
    memory.reads += 1
    kept: list[Tensor] = []

    def compute(samples: int, tensors: Sequence[Tensor], stacked: Sequence[bool]) -> tuple[Tensor, ...]:
        kept.append(tensors[0].detach())
        return (torch.zeros(samples, device=tensors[0].device),)

    bridge(compute, [tensor])
    whole = kept[0]  # (K, ...)
    if memory.strict or is_stacked(whole) or not torch.equal(whole[:1].expand_as(whole), whole):
        raise Disagreement("the module reads a value that differs between samples")
    return whole[0]


def read(memory: Memory, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Read from what all samples hold."""
    return func(*(together(memory, a) for a in args), **kwargs)


def contains(memory: Memory, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Answer `element in tensor`."""
    tensor, element = args
    return bool(together(memory, (tensor == element).any()))


def equal(memory: Memory, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Answer `torch.equal`."""
    one, other = args
    return one.shape == other.shape and bool(together(memory, (one == other).all()))


def where(memory: Memory, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Answer `torch.where(condition)`, which counts; with three arguments vmap does well."""
    return read(memory, func, args, kwargs) if len(args) + len(kwargs) == 1 else NotImplemented


def pick(memory: Memory, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Index by a condition that all samples share; other indices are vmap's."""
    tensor, index = args
    plain = _plain(memory, index)
    return NotImplemented if plain is None else func(tensor, plain)


def put(memory: Memory, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Write where a condition holds: a number can be written by every sample where it pleases."""
    tensor, index, value = args
    if is_stacked(index) and index.dtype is torch.bool and not isinstance(value, Tensor) and is_stacked(tensor):
        missing = tensor.dim() - index.dim()
        tensor.masked_fill_(index[(..., *[None] * missing)], value)
        return None
    plain = _plain(memory, index)
    return NotImplemented if plain is None else func(tensor, plain, value)


def requires_grad(memory: Memory, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Answer for the tensor behind vmap, as in a plain run; vmap's own always says no."""
    inner = args[0]
    while is_stacked(inner):
        inner = torch._C._functorch.get_unwrapped(inner)
    return bool(inner.requires_grad)


def _plain(memory: Memory, index: Any) -> Any:
    """Return the index with its stacked conditions as all samples hold them; None where it has none."""
    parts = list(index) if isinstance(index, tuple) else [index]
    asks = [is_stacked(part) and part.dtype in (torch.bool, torch.uint8) for part in parts]
    if not any(asks):
        return None
    parts = [together(memory, part) if asked else part for part, asked in zip(parts, asks, strict=True)]
    return tuple(parts) if isinstance(index, tuple) else parts[0]


READS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys(
        (
            Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__index__, Tensor.__complex__,
            Tensor.item, Tensor.tolist, Tensor.nonzero, torch.nonzero, torch.is_nonzero,
        ),
        read,
    ),
    Tensor.__contains__: contains,
    Tensor.equal: equal,
    torch.equal: equal,
    torch.where: where,
    Tensor.__getitem__: pick,
    Tensor.__setitem__: put,
    Tensor.requires_grad.__get__: requires_grad,  # type: ignore[attr-defined]
}  # fmt: skip

UNTOLD = frozenset([Tensor.requires_grad.__get__])  # type: ignore[attr-defined]
"""Questions that cost nothing and are in no report."""
