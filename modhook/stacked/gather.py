"""Puts the outputs of samples that ran one by one together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from modhook.errors import StackError
from modhook.stacked.trees import Tree


def stacked_outputs(outputs: Sequence[Tree]) -> list[Tensor]:
    """Return every output tensor as (K, ...). Raises `StackError` where samples differ in structure or shape."""
    first = outputs[0]
    for k, other in enumerate(outputs[1:], start=2):
        if other.structure != first.structure or len(other.leaves) != len(first.leaves):
            raise StackError(
                f"sample {k} of {len(outputs)} returned another structure than sample 1: outputs can be stacked only "
                "if every sample returns the same structure, so return tensors where values differ"
            )
    stacked = []
    for leaves in zip(*(output.leaves for output in outputs), strict=True):
        shapes = {tuple(leaf.tensor.shape) for leaf in leaves}
        if len(shapes) > 1:
            raise StackError(
                f"output {leaves[0].path} has shapes {sorted(shapes)} in different samples: outputs can be stacked only "
                "if their shape does not depend on the weights"
            )
        stacked.append(torch.stack([leaf.tensor for leaf in leaves]))  # (K, ...)
    return stacked
