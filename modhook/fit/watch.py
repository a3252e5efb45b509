"""What is measured per parameter at the steps that a history records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modhook.plugin.interfaces import Sampler

Measured = dict[str, float | dict[str, float]]


class Watch:
    """Per masked parameter: the norm of the loss' gradient, the density, and what remains of a reference's weights; of all
    together, how many logits changed side of the deterministic mask since the record before, or since the first step.

    With m the deterministic mask and r the reference of one parameter, `remaining` is |m & r| / |r| (reference, section 1), or
    |m| / |weights| without a reference; an empty r gives 0.
    """

    def __init__(self, logits: Mapping[str, Tensor], reference: Mapping[str, Tensor] | None = None) -> None:
        self._norms = dict.fromkeys(logits, 0.0)
        self._reference = {n: m.to(logits[n].device) for n, m in (reference or {}).items() if n in logits}
        self._sizes = {n: int(m.count_nonzero()) for n, m in self._reference.items()}
        self._sides: dict[str, Tensor] = {}

    def begin(self, logits: Mapping[str, Tensor], samplers: Mapping[str, Sampler]) -> None:
        """Count changes from these logits on; later calls do nothing."""
        if not self._sides:
            self._sides = {n: samplers[n].deterministic(logit.detach()) for n, logit in logits.items()}

    def gradients(self, logits: Mapping[str, Tensor]) -> None:
        """Take in the gradients of the loss alone, before the regulariser and clipping."""
        norms = [
            torch.zeros((), device="cpu") if logit.grad is None else logit.grad.norm().double().cpu()
            for logit in logits.values()
        ]
        self._norms = dict(zip(logits, [float(n) for n in norms], strict=True))

    def measure(self, logits: Mapping[str, Tensor], samplers: Mapping[str, Sampler]) -> Measured:
        """Return the density of the deterministic mask, and all that is measured per parameter."""
        kept, changed, density, remaining = 0, 0, {}, {}
        for name, logit in logits.items():
            mask = samplers[name].deterministic(logit.detach())
            own = int(mask.count_nonzero())
            if name in self._sides:
                changed += int((mask ^ self._sides[name]).count_nonzero())
            self._sides[name] = mask
            kept += own
            density[name] = remaining[name] = own / max(1, logit.numel())
            if name in self._reference:
                remaining[name] = int((mask & self._reference[name]).count_nonzero()) / max(1, self._sizes[name])
        return {
            "density": kept / max(1, sum(logit.numel() for logit in logits.values())),
            "changed": float(changed),
            "parameter_gradient_norm": dict(self._norms),
            "parameter_density": density,
            "remaining": remaining,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the sides at the latest record, eight to a byte."""
        return {n: np.packbits(mask.cpu().numpy().reshape(-1)) for n, mask in self._sides.items()}

    def load_state_dict(self, state: Mapping[str, Any], logits: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict()`'s result."""
        for name, packed in state.items():
            logit = logits[name]
            bits = np.unpackbits(packed, count=logit.numel()).astype(bool)
            self._sides[name] = torch.from_numpy(bits).view(logit.shape).to(logit.device)
