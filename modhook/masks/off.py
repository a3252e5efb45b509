"""What a weight becomes that a mask does not keep: zero, another network's weight, or its own, shuffled or drawn anew.

With `off` the weight w of a network under the mask m is off + m (w - off). With the weights before fine-tuning as `off`, masks say
which *changes* a function needs (Panigrahi et al. 2023, "Task-Specific Skill Localization in Fine-tuned Language Models").
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from modhook.errors import UserError, WeightsError, listing, near_miss
from modhook.masks.names import one_per_parameter
from modhook.network.scope import parameter_names
from modhook.values.arguments import checked, shown

Off: TypeAlias = "str | Mapping[str, Tensor] | nn.Module | None"
KINDS = ("zero", "shuffled", "redrawn")
NOTHING = (
    "off holds the very weights that the network has, in every masked tensor, so that masks change nothing: every mask scores what the "
    "network scores; give the other network's weights."
)


def off_weights(model: nn.Module, names: Iterable[str], off: Off, seed: int = 0) -> dict[str, Tensor] | None:
    """Return what weights become that are not kept, on the parameters' devices: {first name: (*shape)}; None: zero.

    Args:
        model: the network whose weights are masked.
        names: the masked parameters, by first name.
        off: "zero" or None; "shuffled": the same weights of each tensor in another order; "redrawn": drawn from the normal
            distribution with each tensor's mean and deviation; a second network, or its tensors by name (a state dict: what is not
            masked is left aside), in which every masked parameter has its tensor, a tied one under any of its names.
        seed: of the order, or of what is drawn; each tensor's depend on it and on the parameter's name alone.

    Raises:
        WeightsError: tensors that do not fit: a name, a shape, a dtype, values that are not finite.
        UserError: no such kind. MaskError: two names of one tied parameter with different tensors.
    """
    if off is None or (isinstance(off, str) and off == "zero"):
        return None
    parameters = dict(model.named_parameters(remove_duplicate=False))
    if isinstance(off, str):
        if off not in KINDS:
            raise UserError(
                f"unknown off {shown(off)}{near_miss(off, KINDS)}; valid are {', '.join(KINDS)}, {{name: tensor}}, or a network."
            )
        seed = checked("seed", seed, int)
        return {n: _own(off, n, parameters[n].detach(), seed) for n in names}
    given = dict(off.named_parameters(remove_duplicate=False)) if isinstance(off, nn.Module) else off
    if not isinstance(given, Mapping):
        raise UserError(f"off must be one of {', '.join(KINDS)}, {{name: tensor}}, or a network, not {shown(off)}.")
    return _fitting(model, parameters, list(names), given)


def the_same(model: nn.Module, others: Mapping[str, Tensor] | None) -> bool:
    """Return whether what `off_weights` returned, on whatever device, is what the network has already."""
    if not others:
        return False
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return all(torch.equal(parameters[n].detach(), tensor.to(parameters[n].device)) for n, tensor in others.items())


def _own(kind: str, name: str, weight: Tensor, seed: int) -> Tensor:
    key = hashlib.blake2b(f"{seed}\x1foff\x1f{name}".encode(), digest_size=8).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(key, "little") >> 1)
    if kind == "shuffled":
        order = torch.randperm(weight.numel(), generator=generator, device="cpu").to(weight.device)
        return weight.reshape(-1)[order].view(weight.shape)
    if not weight.is_floating_point():
        raise WeightsError(f"{name!r} holds no real numbers ({weight.dtype}), and cannot be redrawn; shuffle it.")
    wide = weight.to(torch.float64)
    drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float64, device="cpu").to(weight.device)
    return (wide.mean() + wide.std(correction=0) * drawn).to(weight.dtype)


def _fitting(
    model: nn.Module, parameters: Mapping[str, Tensor], names: list[str], given: Mapping[Any, Any]
) -> dict[str, Tensor]:
    known = {*parameters, *(name for name, _ in model.named_buffers(remove_duplicate=False))}
    unknown = [n for n in given if n not in known and not str(n).endswith("_extra_state")]
    if unknown:
        raise WeightsError(
            f"off holds {listing(map(str, unknown))}{near_miss(str(unknown[0]), known)}, which the network does not have; is it of "
            "the same network?"
        )
    aliases, wanted = parameter_names(model), set(names)
    for name, tensor in given.items():
        if aliases.get(name) in wanted:
            _check(name, tensor, parameters[name])
    found = one_per_parameter({n: t for n, t in given.items() if aliases.get(n) in wanted}, aliases, "off")
    if missing := [n for n in names if n not in found]:
        raise WeightsError(
            f"off lacks {listing(missing)}, which the masks cover; give every masked parameter a tensor, or leave it out of the masks."
        )
    return {n: found[n].detach().to(parameters[n].device) for n in names}


def _check(name: str, tensor: Any, parameter: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise WeightsError(f"off[{name!r}] must be a tensor, not {shown(tensor)}.")
    if tensor.shape != parameter.shape:
        raise WeightsError(
            f"off[{name!r}] has shape {tuple(tensor.shape)}, but the parameter has {tuple(parameter.shape)}."
        )
    if tensor.dtype != parameter.dtype:
        raise WeightsError(
            f"off[{name!r}] is {tensor.dtype}, but the parameter is {parameter.dtype}; convert one of them, since rounding would "
            "pass for a change of weights."
        )
    if tensor.is_meta or tensor.layout is not torch.strided:
        raise WeightsError(f"off[{name!r}] is no plain tensor with values ({tensor.device}, {tensor.layout}); load it first.")
    if not bool(tensor.isfinite().all()):
        raise WeightsError(f"off[{name!r}] holds numbers that are not finite.")
