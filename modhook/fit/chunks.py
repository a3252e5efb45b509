"""How many mask samples fit into the memory that a fit may take."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from modhook.errors import RunError


def at_once(samples: int, logits: Mapping[str, Tensor], memory: int, stored: int, wide: int = 3) -> int:
    """Return how many samples fit into `memory` bytes at once: noise, masked weights and their gradient are K x W each.

    `wide` counts these and what else is K x W. `stored` bytes are needed beside them, however many samples there are.
    """
    each = wide * sum(logit.numel() * logit.element_size() for logit in logits.values())
    if memory < each + stored:
        raise RunError(
            f"memory={memory} bytes is less than the {each + stored} bytes that one mask sample of this network needs; "
            "raise it."
        )
    return min(samples, (memory - stored) // each)
