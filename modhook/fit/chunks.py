"""How many mask samples run at once in the memory that a fit may take, and whether their weights are made layer by layer."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from modhook.errors import UserError

LARGE = 1 << 28
"""From this many masked weights of all samples on they are made layer by layer: 1 GiB, in float32, of each thing that is K times W.

A step takes half as long again that way."""


def at_once(samples: int, logits: Mapping[str, Tensor], memory: int, stored: int, wide: int = 3) -> int:
    """Return how many samples fit into `memory` bytes at once: noise, masked weights and their gradient are K x W each.

    `wide` counts these and what else is K x W. `stored` bytes are needed beside them, however many samples there are.
    """
    each = wide * sum(_bytes(logits))
    if memory < each + stored:
        raise UserError(
            f"memory={memory} bytes is less than the {each + stored} bytes that one mask sample of this network needs; "
            f"give memory={each + stored} or more, or leave it away."
        )
    return min(samples, (memory - stored) // max(1, each))


def by_layers(samples: int, masked: Mapping[str, Tensor], memory: int | None, stored: int, wide: int = 3) -> bool:
    """Return whether weights should be made layer by layer: where there is memory for one sample at most, or they are many.

    Raises `UserError` for less memory than the largest parameter of one sample needs.
    """
    large = samples * sum(weight.numel() for weight in masked.values()) >= LARGE
    if memory is None:
        return large
    least, each = wide * max(_bytes(masked), default=0) + stored, wide * sum(_bytes(masked))
    if memory < least:
        raise UserError(
            f"memory={memory} bytes is less than the {least} bytes that one mask sample of this network's largest masked parameter "
            f"needs; give memory={least} or more, or leave it away."
        )
    return memory < (samples if large else min(samples, 2)) * each + stored


def _bytes(tensors: Mapping[str, Tensor]) -> list[int]:
    return [tensor.numel() * tensor.element_size() for tensor in tensors.values()]
