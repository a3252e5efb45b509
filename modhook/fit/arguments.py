"""What `fit_masks` was given, checked before anything runs, and made into what the trainer takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modhook.errors import MaskError, UserError, listing
from modhook.masks.names import one_per_parameter
from modhook.plugin.interfaces import Sampler
from modhook.plugin.manager import plugins
from modhook.values.arguments import checked, instance, shown
from modhook.values.bounds import Count

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def initial(
    parameters: Mapping[str, Tensor],
    names: Sequence[str],
    aliases: Mapping[str, str],
    init: Any,
    sampler: Sampler,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Return starting logits by first name: float32, or float64 where the weights are. Raises `UserError`."""
    given: Mapping[str, Tensor] = {}
    start = None
    if isinstance(init, Mapping):
        given = one_per_parameter(init, aliases, "init")
    elif isinstance(init, Tensor) and init.dim():
        raise UserError(f"init must be a number or {{name: tensor}}, not a tensor of shape {tuple(init.shape)}.")
    elif init is not None:
        start = checked("init", init, float)
    if unknown := sorted(map(str, set(given) - set(names))):
        raise UserError(f"init names parameters that are not masked: {listing(unknown)}; masked are: {listing(names)}.")
    logits: dict[str, Tensor] = {}
    for name in names:
        parameter = parameters[name]
        dtype = torch.float64 if parameter.dtype == torch.float64 else torch.float32
        if start is None:
            logits[name] = sampler.start(parameter.detach(), generator).to(parameter.device, dtype)
        else:
            logits[name] = torch.full(parameter.shape, start, dtype=dtype, device=parameter.device)
        if name in given:
            logits[name].copy_(_logits(name, given[name], parameter))
    return logits


def _logits(name: str, given: Any, parameter: Tensor) -> Tensor:
    what = f"init of {name!r}"
    if not isinstance(given, Tensor) or given.dtype == torch.bool or given.is_complex():
        kind = given.dtype if isinstance(given, Tensor) else shown(given)
        raise UserError(f"{what} must be a tensor of logits, one number per weight, not {kind}.")
    if given.shape != parameter.shape:
        raise UserError(f"{what} has shape {tuple(given.shape)}, but the parameter has {tuple(parameter.shape)}.")
    if not bool(given.isfinite().all()):
        raise UserError(f"{what} holds numbers that are not finite; logits of 40 and -40 are as good as kept and gone.")
    return given.detach()


def trained(
    parameters: Mapping[str, Tensor], aliases: Mapping[str, str], chosen: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """Return `train_weights` by first name. Raises `MaskError`."""
    if chosen is None:
        return {}
    instance("train_weights", chosen, Mapping, "a mapping {parameter name: bool tensor}")
    for name, mask in chosen.items():
        if name not in parameters:
            raise MaskError(
                f"train_weights names {name!r}, which is no parameter; the network has: {listing(parameters)}."
            )
        shape = tuple(parameters[name].shape)
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or tuple(mask.shape) != shape:
            raise MaskError(f"train_weights[{name!r}] must be a bool tensor of shape {shape}.")
        if not parameters[name].is_floating_point():
            raise MaskError(f"train_weights names {name!r}, whose weights are no real numbers and cannot learn.")
    return one_per_parameter(chosen, aliases, "train_weights")


def sampler_of(sampler: Any) -> Sampler:
    """Return a sampler, made if it was named. Raises `UserError`, `PluginError`."""
    if isinstance(sampler, Sampler):
        return sampler
    instance("sampler", sampler, str, "a sampler's name or a modhook.Sampler")
    found: Sampler = plugins().load("samplers", sampler)()
    return found


def bytes_of(memory: Any) -> int | None:
    """Return bytes for a number or a text such as "2 GB". Raises `UserError`."""
    if memory is None:
        return None
    if not isinstance(memory, str):
        return int(checked("memory", memory, Count))
    number = memory.rstrip("BKMGIbkmgi ")
    unit = memory[len(number) :].strip().upper()
    try:
        found = int(float(number) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        found = 0
    if found < 1:
        raise UserError(f"memory must be a number of bytes or a text such as '2 GB', not {memory!r}.")
    return found
