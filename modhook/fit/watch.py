"""What is measured per parameter at the steps that a history records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modhook.plugin.interfaces import Sampler
from modhook.values.moving import floats

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
        self._norms = floats({n: 0.0 if logit.grad is None else logit.grad.norm() for n, logit in logits.items()})

    def measure(self, logits: Mapping[str, Tensor], samplers: Mapping[str, Sampler]) -> Measured:
        """Return the density of the deterministic mask, and all that is measured per parameter."""
        counts: dict[str, dict[str, float | Tensor]] = {"kept": {}, "changed": {}, "shared": {}}
        for name, logit in logits.items():
            mask = samplers[name].deterministic(logit.detach())
            counts["kept"][name] = mask.count_nonzero()
            if name in self._sides:
                counts["changed"][name] = (mask ^ self._sides[name]).count_nonzero()
            if name in self._reference:
                counts["shared"][name] = (mask & self._reference[name]).count_nonzero()
            self._sides[name] = mask
        told = floats({f"{kind} {n}": count for kind, own in counts.items() for n, count in own.items()})  # read together
        kept, changed, shared = ({n: told[f"{kind} {n}"] for n in own} for kind, own in counts.items())
        density = {n: kept[n] / max(1, logit.numel()) for n, logit in logits.items()}
        remaining = {n: shared[n] / max(1, self._sizes[n]) if n in shared else density[n] for n in logits}
        return {
            "density": sum(kept.values()) / max(1, sum(logit.numel() for logit in logits.values())),
            "changed": sum(changed.values(), 0.0),
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
