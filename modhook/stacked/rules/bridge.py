"""Lets a rule see the tensors behind vmap: the whole stack, with K in front."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_pop_interpreter_stack

Compute = Callable[[int, Sequence[Tensor], Sequence[bool]], tuple[Tensor, ...]]


class _Bridge(torch.autograd.Function):
    """Never runs itself: vmap hands its tensors, unwrapped, to `vmap`, where ordinary autograd records what happens."""

    @staticmethod
    def forward(compute: Compute, *tensors: Tensor) -> Any:
        raise NotImplementedError("a rule was reached without a stacked tensor")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Save nothing."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, compute: Compute, *tensors: Tensor) -> Any:
        """Call `compute(K, tensors, stacked)`, every stacked tensor with K in front."""
        dims = in_dims[1:]
        front = [t if d is None else t.movedim(d, 0) for t, d in zip(tensors, dims, strict=True)]
        return compute(info.batch_size, front, [d is not None for d in dims]), 0


def bridge(compute: Compute, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Inside vmap, return `compute(K, tensors, stacked)`, whose results are (K, ...), as vmap's own tensors."""
    functorch: Any = torch._C._functorch
    innermost = functorch.peek_interpreter_stack()
    if innermost is None or innermost.key() != functorch.TransformType.Vmap:
        return _Bridge.apply(compute, *tensors)  # type: ignore[no-any-return]
    # What torch does for `_Bridge`, without looking for tensors in trees: that takes a quarter of a millisecond per call.
    vmap = functorch.CVmapInterpreterPtr(innermost)
    level = vmap.level()
    pairs = [functorch._unwrap_batched(functorch.unwrap_if_dead(t), level) for t in tensors]
    if all(dim is None for _, dim in pairs):  # stacked by an outer vmap, or not at all
        return _Bridge.apply(compute, *tensors)  # type: ignore[no-any-return]
    front = [t if dim is None else t.movedim(dim, 0) for t, dim in pairs]
    with temporarily_pop_interpreter_stack():
        found = compute(vmap.batchSize(), front, [dim is not None for _, dim in pairs])
    return tuple(functorch._add_batch_dim(t, 0, level) for t in found)


def is_stacked(tensor: Any) -> bool:
    """Return whether vmap carries a leading K behind this tensor."""
    return isinstance(tensor, Tensor) and bool(torch._C._functorch.is_batchedtensor(tensor))
