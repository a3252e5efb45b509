"""What the limit on the gradient norm covers in a mask stage: the logits alone, or all that the reference clips.

The reference clips the norm over every parameter of its masked model: the current logits, the frozen weights, and the logits
of earlier stages. Its mask optimiser zeroes the current logits' gradients only. So those of the frozen weights add up from step
to step and from stage to stage, on top of the last gradient of base training, and each clipping scales what is stored as
well. With G_t the gradient of the loss by the frozen weights in step t, g_t that by the logits (regulariser included) and
e the last gradients of earlier stages' logits:

    N_t = sqrt(|A_{t-1} + G_t|^2 + |g_t|^2 + |e_{t-1}|^2),    c_t = min(1, limit / (N_t + 1e-6)),
    A_t = c_t (A_{t-1} + G_t),    e_t = c_t e_{t-1},    and the optimiser sees c_t g_t.

A masked weight's gradient is that by the weight *before* its mask: the sum over samples of mask times dL/d(masked weight).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modhook.errors import UserError, listing, near_miss
from modhook.plugin.contract import CarriedGradients
from modhook.steps.optim import clip_gradients
from modhook.steps.ranks import rank
from modhook.values.moving import floats

CLIP_OVER = ("logits", "all")
_EPSILON = 1e-6  # as in torch.nn.utils.clip_grad_norm_


class Clipping:
    """The limit on the gradient norm of one stage, and the gradients that it covers beside the learned ones.

    Attributes:
        leaves: {first name: the frozen weight, requiring a gradient}; `.grad` adds up. Empty unless `over` is "all".
    """

    def __init__(
        self, model: nn.Module, learned: Iterable[str], limit: float | None, over: str, carried: CarriedGradients | None
    ) -> None:
        if over not in CLIP_OVER:
            raise UserError(
                f"unknown clip_over {over!r}{near_miss(str(over), CLIP_OVER)}; give one of {', '.join(CLIP_OVER)}."
            )
        self.limit, self.all = limit, over == "all" and bool(limit)
        self.leaves: dict[str, Tensor] = {}
        self.earlier = carried.logits if carried is not None else 0.0
        self.last = 0.0
        if not self.all:
            return
        parameters = {n: p for n, p in model.named_parameters() if p.is_floating_point() and p.numel()}
        chosen = {n: p for n, p in parameters.items() if p.requires_grad} or parameters
        skipped = set(learned)
        for name, parameter in chosen.items():
            if name not in skipped:
                self.leaves[name] = parameter.detach().requires_grad_()  # the same memory
                # Made here: autograd would else keep a buffer that the next step writes again.
                self.leaves[name].grad = torch.zeros_like(parameter)
        stored = dict(carried.weights) if carried is not None else {}
        if unknown := sorted(n for n, g in stored.items() if n not in parameters or g.shape != parameters[n].shape):
            raise UserError(f"carried holds gradients of another network: {listing(unknown)}.")
        for name, leaf in self.leaves.items():
            if name in stored:
                leaf.grad.copy_(stored[name])  # type: ignore[union-attr]

    @property
    def size(self) -> int:
        """Bytes of the stored gradients and of one step's."""
        return 2 * sum(leaf.numel() * leaf.element_size() for leaf in self.leaves.values())

    def begin(self) -> None:
        """Prepare for a step's gradients: the ranks' are added up, so that only one may bring what is stored."""
        if rank():
            for leaf in self.leaves.values():
                leaf.grad.zero_()  # type: ignore[union-attr]

    def clip(self, logits: Sequence[Tensor], weights: Sequence[Tensor]) -> dict[str, float | Tensor]:
        """Scale all gradients; return the norm of the learned ones before, and with "all" the factor."""
        if not self.all:
            return {"gradient_norm": clip_gradients([*logits, *weights], self.limit)}
        assert self.limit
        own, trained, frozen = floats({str(i): _norm(t) for i, t in enumerate((logits, weights, self.leaves.values()))}).values()
        norm = math.hypot(own, trained, frozen, self.earlier)
        factor = min(1.0, self.limit / (norm + _EPSILON)) if math.isfinite(norm) else math.nan
        gradients = [t.grad for t in (*logits, *weights, *self.leaves.values()) if t.grad is not None]
        if factor < 1:
            torch._foreach_mul_(gradients, factor)
        self.earlier *= factor
        self.last = own * factor
        return {"gradient_norm": math.hypot(own, trained), "clip_factor": factor}

    def carried(self) -> CarriedGradients | None:
        """Return what the next stage starts with; None unless all is covered."""
        if not self.all:
            return None
        weights = {n: leaf.grad.detach().cpu().clone() for n, leaf in self.leaves.items()}  # type: ignore[union-attr]
        return CarriedGradients(weights, math.hypot(self.earlier, self.last))

    def state_dict(self) -> dict[str, Any]:
        """Return the stored gradients."""
        stored = {n: leaf.grad.detach().clone() for n, leaf in self.leaves.items()}  # type: ignore[union-attr]
        return {"weights": stored, "earlier": self.earlier, "last": self.last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`'s result."""
        for name, value in state["weights"].items():
            self.leaves[name].grad.copy_(value)  # type: ignore[union-attr]
        self.earlier, self.last = state["earlier"], state["last"]


def _norm(tensors: Iterable[Tensor]) -> float | Tensor:
    gradients = [t.grad for t in tensors if t.grad is not None]
    return torch.nn.utils.get_total_norm(gradients) if gradients else 0.0
