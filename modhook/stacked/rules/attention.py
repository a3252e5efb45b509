"""Scaled-dot-product attention: on CPU vmap takes it sample by sample through a slow fallback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from modhook.stacked.rules.bridge import bridge
from modhook.stacked.rules.memory import Memory
from modhook.stacked.rules.recurrent import per_sample


def attention(memory: Memory, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Merge K into the batch, so that one call of the stock kernel serves all samples."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    q, k, v = given.pop("query"), given.pop("key"), given.pop("value")
    mask = given.pop("attn_mask", None)
    if not q.dim() == k.dim() == v.dim() == 4 or (mask is not None and mask.dim() > 4):
        return per_sample(memory, func, args, kwargs, len(args))

    def compute(samples: int, tensors: Sequence[Tensor], stacked: Sequence[bool]) -> tuple[Tensor, ...]:
        def merged(tensor: Tensor, has_k: bool) -> Tensor:
            tensor = tensor if has_k else tensor.expand(samples, *tensor.shape)
            return tensor.reshape(-1, *tensor.shape[2:])  # (K B, heads, T, d)

        batch = max(t.shape[1 if has_k else 0] for t, has_k in zip(tensors[:3], stacked[:3], strict=True))
        merged_mask = None
        if len(tensors) == 4:
            merged_mask = tensors[3]
            if stacked[3] or merged_mask.dim() == 4:
                merged_mask = merged_mask if stacked[3] else merged_mask.unsqueeze(0)
                missing = 5 - merged_mask.dim()
                merged_mask = merged_mask[(slice(None), *[None] * missing)]  # (K or 1, B or 1, heads or 1, T, S)
                merged_mask = merged_mask.expand(samples, batch, *merged_mask.shape[2:])
                merged_mask = merged_mask.reshape(samples * batch, *merged_mask.shape[2:])
        inputs = [merged(t, s) for t, s in zip(tensors[:3], stacked[:3], strict=True)]
        out = func(*inputs, merged_mask, **given)
        return (out.unflatten(0, (samples, -1)),)

    return bridge(compute, [q, k, v, *([] if mask is None else [mask])])[0]
