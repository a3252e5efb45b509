"""`modhook.units`: which neurons, channels, heads, blocks and layers a network has; and what `units=` asks for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import nn

from modhook.errors import UserError, listing
from modhook.network.threads import using
from modhook.unit import own, stock
from modhook.unit.attention import UNCLEAR, Readings
from modhook.unit.flow import ADDED, followed
from modhook.unit.given import given_units
from modhook.unit.group import KINDS, Group
from modhook.unit.probe import Call, watched
from modhook.unit.recurrent import recurrent_layers
from modhook.unit.units import Units
from modhook.unit.whole import blocks, layers
from modhook.values.arguments import instance, one_of, shown

_LAYERS = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase, nn.MultiheadAttention)
UNFOLLOWED = "could not be followed to what takes them"
UnitsLike = str | Mapping[str, Any] | Callable[[nn.Module], Any] | Sequence[Any]
"""What `units=` may be: a kind, a mapping, a callable from the network to a mapping, `Units`, or several of them."""


@attrs.frozen(eq=False)
class Levels:
    """What is masked: groups of units, and whether weights are, one by one, too."""

    groups: tuple[Group, ...] = ()
    weights: bool = True


def units(model: nn.Module, *, example: tuple[Sequence[Any], Mapping[str, Any]] | None = None) -> Units:
    """Return the units of a network, found by its layers and by what its code does with them; nothing is learned or changed.

    A *neuron* is a feature of a linear layer, or a hidden unit of a recurrent one: its row, its bias, and its column in what takes it. A
    *channel* is that of a convolution, its batch norm included. A *head* is its slices of queries, keys and values and its columns of
    the output layer. A *block* is a member of a list of modules; a *layer* is a module with weights. Found is what can be proven, by
    following tensors through the network's own code (torch.fx) or by trying: a network without a unit computes what it would compute
    if the unit's weights were taken out of it. What cannot be proven is listed with the reason.

    Args:
        model: any `nn.Module`.
        example: the arguments of one call, (args, kwargs), for attention modules that cannot be called with one tensor (places x features).

    Returns:
        `Units`: a mapping from names to groups, shown as a table.

    Raises:
        UserError: no network, or no such example.
    """
    instance("model", model, nn.Module, "an nn.Module")
    call = None
    if example is not None:
        pair = isinstance(example, tuple | list) and len(example) == 2
        if not pair or not isinstance(example[0], tuple | list) or not isinstance(example[1], Mapping):
            raise UserError(
                f"example must be the arguments of one call, a pair (args, kwargs): ((x,), {{}}), not {shown(example)}."
            )
        call = tuple(example[0]), dict(example[1])
    with using(model), torch.inference_mode(False):
        groups, lost = _found(model, call)
    return Units(groups, model, lost)


def levels_of(model: nn.Module, given: Any) -> Levels:
    """Return what `units=` asks for, checked. Raises `UserError`."""
    if isinstance(given, Levels):
        return given
    several = list(given) if isinstance(given, list | tuple | set | frozenset) else [given]
    if not several:
        raise UserError(f"units must name one kind at least; valid are {', '.join(KINDS)}, or a mapping.")
    found: Units | None = None
    groups: list[Group] = []
    weights, given_ones = False, 0
    for one in several:
        if isinstance(one, str):
            one_of("units", one, KINDS)
            if one == "weight":
                weights = True
                continue
            found = units(model) if found is None else found
            mine = [g for g in found.values() if g.kind == one]
            if not mine:
                raise UserError(_none(model, one, found))
        elif isinstance(one, Units):
            mine = _of_units(model, one)
        else:
            given_ones += 1
            if not isinstance(one, Mapping):
                if not callable(one) or isinstance(one, nn.Module | type):
                    raise UserError(
                        f"units must be one of {', '.join(KINDS)}, a mapping {{unit: {{parameter: index}}}}, a callable that makes one "
                        f"from the network, or a list of these, not {shown(one)}."
                    )
                made = _called(one, model)
                if isinstance(made, Units):
                    groups += _of_units(model, made)
                    continue
                one = made
            mine = [given_units(model, one, "units" if given_ones == 1 else f"units {given_ones}")]
        groups += mine
    names = [g.name for g in groups]
    if twice := [n for n in names if names.count(n) > 1]:
        raise UserError(f"units {twice[0]!r} are asked for twice; name each kind once.")
    return Levels(tuple(groups), weights)


def _of_units(model: nn.Module, given: Units) -> list[Group]:
    """Return groups that were found before, checked against this network. Raises `MaskError` where they are another's."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for group in given.values():
        group.check(parameters)
    return list(given.values())


def _called(function: Callable[[nn.Module], Any], model: nn.Module) -> Any:
    try:
        return function(model)
    except UserError:
        raise
    except Exception as error:
        name, why = getattr(function, "__name__", type(function).__name__), str(error).partition("\n")[0]
        raise UserError(
            f"the function {name}, which makes units, fails on {type(model).__name__}: {type(error).__name__}: {why}."
        ) from error


def _none(model: nn.Module, kind: str, found: Units) -> str:
    told = {m: why for m, why in found.left_out.items() if why.startswith(UNCLEAR) == (kind == "head")}
    why = [f"those of {module!r} {reason}" for module, reason in told.items() if kind in ("head", "neuron", "channel")]
    there = f"; it has {listing(found.kinds)}" if len(found) else ""
    because = f" ({'; '.join(why[:2])})" if why else ""
    return (
        f"no {kind} was found in {type(model).__name__}{because}{there}: give units as a mapping {{unit: {{parameter: index}}}}, or mask "
        "weights; modhook.units(model) shows what there is."
    )


def _found(model: nn.Module, call: Call | None) -> tuple[list[Group], dict[str, str]]:
    names: dict[str, tuple[str, ...]] = {}
    first: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.is_floating_point() and parameter.numel():
            one = first.setdefault(id(parameter), name)
            names[one] = (*names.get(one, ()), name)
    recurrent = recurrent_layers(model)
    groups, lost = followed(model, names, recurrent)
    further = [layer.groups(names) for layer in recurrent.values()]
    for more, others in (*further, stock.hidden(model, names), stock.heads(model, names)):
        groups += more
        lost |= others
    readings = Readings(model, names, _seen(model, call))
    readings.heads()
    own.heads(readings)
    own.neurons(readings)
    readings.neurons(
        [*groups, *readings.groups], {m for m, why in lost.items() if why.startswith((ADDED, "are the network's"))}
    )
    groups += readings.groups
    known = {p.rpartition(".")[0] for g in groups if g.kind == "head" for p in g.parameters} | {
        g.module for g in groups
    }
    lost = {m: why for m, why in {**lost, **readings.lost}.items() if m not in known}
    lost |= dict.fromkeys(_silent(model, groups, lost), UNFOLLOWED)
    order = {name: i for i, name in enumerate(names)}
    groups.sort(key=lambda g: (KINDS.index(g.kind), min(order.get(p, 0) for p in g.parameters)))
    return [*groups, *blocks(model, names), *layers(model, names)], lost


def _silent(model: nn.Module, groups: Sequence[Group], lost: Mapping[str, str]) -> list[str]:
    """Return the layers that no unit has weights of, and of which nothing is said yet, nor of a module that they are a part of."""
    known = {p.rpartition(".")[0] for g in groups for p in g.parameters} | {g.module for g in groups}
    return [
        path
        for path, module in model.named_modules()
        if path and path not in known and (isinstance(module, _LAYERS) or type(module).__name__ == "Conv1D")
        and not any(path == other or path.startswith(f"{other}.") for other in lost)
    ]


def _seen(model: nn.Module, call: Call | None) -> dict[str, list[Call]]:
    """Return with which arguments the modules of a network are called: on the example, or on what a configuration says it takes."""
    call = _dummy(model) if call is None else call
    if call is None or any(p.is_meta for p in model.parameters()):
        return {}
    modules = {
        path: m for path, m in model.named_modules() if path and not isinstance(m, nn.ModuleList | nn.Sequential)
    }
    modes = {m: m.training for m in model.modules()}
    try:
        model.eval()
        return watched(model, call, modules)
    finally:
        for module, mode in modes.items():
            module.training = mode


def _dummy(model: nn.Module) -> Call | None:
    """Return arguments for a network that says what it takes: `main_input_name` and `config`, as those of transformers do."""
    config, main = getattr(model, "config", None), getattr(model, "main_input_name", None)
    if config is None or not isinstance(main, str):
        return None
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    ids = torch.arange(8, device=device)[None] % max(1, min(8, int(getattr(config, "vocab_size", None) or 8)))  # (1, 8)
    kwargs: dict[str, Any] = {}
    if main == "pixel_values":
        size = getattr(config, "image_size", 32)
        size = (size, size) if isinstance(size, int) else tuple(size)
        dtype = next((p.dtype for p in model.parameters()), torch.float32)
        kwargs[main] = torch.zeros(1, getattr(config, "num_channels", 3), *size, device=device, dtype=dtype)
    elif main == "input_ids":
        kwargs[main] = ids
    else:
        return None
    if main == "input_ids" and "attention_mask" in inspect.signature(model.forward).parameters:
        kwargs["attention_mask"] = torch.ones_like(ids)
    if getattr(config, "is_encoder_decoder", False):
        kwargs["decoder_input_ids"] = ids
    if hasattr(config, "use_cache"):
        kwargs["use_cache"] = False
    return (), kwargs
