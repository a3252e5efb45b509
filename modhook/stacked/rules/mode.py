"""Sends calls of stock operations on stacked tensors to their rules."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from modhook.network.recurrent import LAYERS, differentiable
from modhook.stacked.rules.attention import attention
from modhook.stacked.rules.bridge import is_stacked
from modhook.stacked.rules.fresh import FRESH, fresh
from modhook.stacked.rules.gated import Gated, by_factors
from modhook.stacked.rules.linear import linear
from modhook.stacked.rules.lookups import bilinear, embedding, one_by_one
from modhook.stacked.rules.memory import Memory
from modhook.stacked.rules.packed import pack, unpack
from modhook.stacked.rules.reads import READS, UNTOLD
from modhook.stacked.rules.recurrent import CELLS, cell, layer
from modhook.stacked.rules.through import attention_forward
from modhook.stacked.watch import Watch

listener: ContextVar[Callable[[str], None] | None] = ContextVar("listener", default=None)
"""Told the name of every operation that runs by a rule, while a report is made."""

Rule = Callable[[Memory, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]

# A rule answers NotImplemented where vmap itself does well.
_RULES: dict[Any, Rule] = {
    **{getattr(torch._VF, name): layer for name in LAYERS},
    **{getattr(torch._VF, name): cell for name in CELLS},
    F.scaled_dot_product_attention: attention,
    F.linear: linear,
    F.embedding: embedding,
    F.embedding_bag: one_by_one,
    # Private names come and go with torch's versions.
    **{getattr(torch, name): one_by_one for name in ("histc", "_weight_norm", "_grouped_mm") if hasattr(torch, name)},
    F.bilinear: bilinear,
    torch._VF._pack_padded_sequence: pack,
    torch._VF._pad_packed_sequence: unpack,
    **READS,
}


class Rules(TorchFunctionMode):
    """Active during one stacked call; an operation that has a rule and gets a stacked tensor runs by its rule."""

    def __init__(self, memory: Memory | None = None, watch: Watch | None = None) -> None:
        super().__init__()
        self._memory = memory or Memory()
        self._watch = watch or Watch()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the rule of `func`, or `func` itself."""
        args, kwargs = self._watch.look(func, args, kwargs or {})
        args = differentiable(func, args)
        if Gated in types:
            with self:
                return by_factors(self._memory, func, args, kwargs)
        if func is F.multi_head_attention_forward:
            with self:
                return attention_forward(*args, **kwargs)
        rule = _RULES.get(func)
        if rule is None and self._memory.wide and func in FRESH:
            return fresh(self._memory, func, args, kwargs)
        if rule is not None and _any_stacked(args, kwargs):
            result = rule(self._memory, func, args, kwargs)
            if result is not NotImplemented:
                if (listen := listener.get()) is not None and func not in UNTOLD:
                    listen(getattr(func, "__name__", str(func)))
                return result
        return func(*args, **kwargs)


def _any_stacked(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    for value in (*args, *kwargs.values()):
        if is_stacked(value) or (isinstance(value, (list, tuple)) and any(is_stacked(v) for v in value)):
            return True
    return False
