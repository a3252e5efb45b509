"""A pull towards fewer weights that rises from step to step, so that weights go in the order in which they are needed."""

from __future__ import annotations

from typing import Any

from modhook.errors import UserError


def pull_at(beta: float, start: float | None, step: int, steps: int) -> float:
    """Return the pull of optimiser step `step` (from 0) of `steps`: `beta`, or by equal factors from `start` to it.

    start (beta / start)^(step / (steps - 1)): a weight goes where what it costs outgrows what the loss gains by it, and what is needed
    less goes earlier. A logit that has gone sinks on, so that logits below 0 still say in which order weights went.
    """
    if start is None or step >= steps - 1:
        return beta
    return float(start * (beta / start) ** (step / (steps - 1)))


AS_THEY_ARE = (0.01, 100.0)
"""What a network may save on its loss for losses to be learned from as they are."""


def counted(unit: float) -> float:
    """Return what losses are divided by under a relative pull: 1, or what the network saves where that is very small or large.

    Adam's epsilon (1e-8 of a gradient) and the limit of the gradient's norm do not scale with the loss: of a loss of 1e-9 no logit moved.
    """
    least, most = AS_THEY_ARE
    return 1.0 if least <= unit <= most else unit


def refuse_start(start: float | None, beta: float | None, density: Any, stop: str | None) -> None:
    """Raise `UserError` for a start of beta that does not fit the other arguments."""
    if start is None:
        return
    if density is not None:
        raise UserError("give density= or beta_start=, not both: with a density, beta follows from it in every step.")
    if beta is None:
        raise UserError("beta_start= is where beta begins to rise; give beta=, where it ends, too.")
    if start > beta:
        raise UserError(f"beta_start={start:g} is above beta={beta:g}, but beta rises from it; give a smaller one.")
    if stop == "settled":
        raise UserError("with beta_start= beta rises until the last step, and no mask settles before; leave stop= away.")
