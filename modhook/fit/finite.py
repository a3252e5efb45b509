"""Numbers that are not finite: weights that no mask can be put on, and a loss that only masks make so, with what to do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from modhook.errors import UserError, listing

_PARAMETRIZED = "parametrizations"
_HOOKS = ("WeightNorm", "SpectralNorm")
"""Hooks of torch.nn.utils that compute a weight from parameters, as they did before parametrizations."""


def refuse_not_finite(parameters: Mapping[str, Tensor], masked: Iterable[str]) -> None:
    """Raise `UserError` for masked parameters that hold an infinity or NaN: times a mask of 0 they are NaN."""
    wrong = [n for n in masked if not bool(torch.isfinite(parameters[n].detach()).all())]
    if wrong:
        verb = "holds a number that is" if len(wrong) == 1 else "hold numbers that are"
        raise UserError(
            f"{listing(wrong)} {verb} not finite, and would be NaN under a mask; leave what is no weight, such as an attention mask, out "
            "with exclude= (beside '*bias*', which is left out by default), or load weights that are finite."
        )


def parametrized(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Return those of the names of parameters that are no weights, but what a parametrization or hook computes weights from."""
    hooked = {
        f"{path}.{parameter}" if path else parameter
        for path, module in model.named_modules()
        if any(type(hook).__name__ in _HOOKS for hook in module._forward_pre_hooks.values())
        for parameter in module._parameters
        if parameter.endswith(("_g", "_v", "_orig"))
    }
    return [n for n in names if _PARAMETRIZED in n.split(".") or n in hooked]


def advice(
    model: nn.Module, names: Iterable[str], whole: float | None, *, learning: bool, samples: int = 1, uncut: float | None = None
) -> str:
    """Say what to do about a loss, or gradient, that is not finite in a step of learning masks.

    Args:
        model: the network. names: its masked parameters.
        whole: the mean loss of the same batch's groups without masks; None where it is not known.
        learning: whether weights learn, too.
        samples: how many groups the batch is cut into. uncut: the loss of the batch in one piece without masks, where it is known.
    """
    if whole is None:
        return "look at the data, at the network, and at what it divides by, which a mask may make 0"
    if not math.isfinite(whole) and uncut is not None and math.isfinite(uncut):
        return (
            f"without masks the loss of the batch is {uncut:.3g}, and {whole} where it is cut into {samples} groups, one per mask "
            "sample: a group may have nothing that the loss can be a mean of, such as no label; give a smaller samples=, larger batches, "
            "or a loss that is a sum over what counts, as modhook.objectives.model_loss() makes of a network's own"
        )
    if not math.isfinite(whole):
        return f"without masks the loss is {whole} as well: look at the data and the network"
    found = parametrized(model, names)
    lower = ", or lower the learning rate of the weights that learn" if learning else ""
    if found:
        path, new, _ = found[0].partition(f".{_PARAMETRIZED}.")
        if not new:  # a hook's
            path = path.rpartition(".")[0]
        call = "torch.nn.utils.parametrize.remove_parametrizations" if new else "torch.nn.utils.remove_weight_norm"
        return (
            f"without masks the loss is {whole:.3g}: {listing(found, 4)} are no weights, but what a parametrization computes them from, "
            f"and divides by where a mask makes it 0; make them weights first, with {call} on {path!r}{lower}"
        )
    return (
        f"without masks the loss is {whole:.3g}: under some masks the network divides by 0, or the like; leave the weights that it divides "
        f"by out with exclude=, or add an eps there{lower}"
    )
