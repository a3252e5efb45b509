"""Reads the networks that the paper's own code has saved (github.com/RobertCsordas/modules) into stock networks.

Its file `model_weights/model.pth` is {"VERSION": 1, "parameters": ..., "state": ...}: parameters by their place with underscores
(`layers_0_weight`, `lstm_cells_0_weight_ih`), buffers by their usual names; the first version was the parameters alone. Its
checkpoints (`checkpoint/model-20000.pth`) hold the same below `model`, with the mask logits. Layers are matched by their order,
kind and shape, so that any stock network with the same layers can be filled, whatever they are called.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import attrs
import torch
from torch import Tensor, nn

from modhook.errors import WeightsError, listing
from modhook.network.files import read_file

KNOWN = ((dict, "framework.data_structures.dotdict.DotDict"),)
"""What stands for the reference's dictionary with attributes, which its checkpoints contain."""
VERSIONS = (0, 1)
_NAME = re.compile(r"(.+)_(weight_ih|weight_hh|weight|bias|gamma|beta)")
_ROLES = {"gamma": "weight", "beta": "bias"}
_SEQUENCES = re.compile(r"(^|_)embedding(_|$)|^trafo_|^(encoder|decoder)_lstm")
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@attrs.frozen
class Saved:
    """What a file of the reference holds: parameters and buffers by their names there, and the logits of each stage's mask."""

    parameters: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]
    logits: Mapping[int, Mapping[str, Tensor]] = attrs.field(factory=dict)


@attrs.frozen
class _Layer:
    """One layer of a stock network: its name for people, and the parameter that has each role."""

    name: str
    roles: Mapping[str, str]
    module: nn.Module


def reference_weights(path: str | Path, model: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a file of the paper's own code, as a state dict of `model`: `model.load_state_dict(...)`.

    Read are its `model_weights/model.pth` and the checkpoints beside it, of its feed-forward, LSTM, convolutional and residual
    networks. No code in the file is run. The second bias vector of stock LSTM layers, which the reference does not have, is 0.

    Args:
        path: the file.
        model: a network with the same layers in the same order: linear layers, 2d convolutions, batch and layer norms, LSTMs.

    Raises:
        WeightsError: no such file, a file that names other Python objects, another layout, or layers that do not fit (says which).
    """
    path = Path(path)
    found = saved(read_file(path, KNOWN), str(path))
    if found is None:
        raise WeightsError(
            f"{path} has not the layout of the reference's model.pth (VERSION, parameters, state); "
            "load a plain state dict with model.load_state_dict."
        )
    return translated(found, model, str(path))


def saved(content: Any, where: str) -> Saved | None:
    """Return what the content of a file holds, or None if it has not the reference's layout. Raises `WeightsError`."""
    if not isinstance(content, Mapping):
        return None
    if "VERSION" in content or {"parameters", "state"} <= set(content):
        version = content.get("VERSION", 1)
        parameters, buffers = content.get("parameters"), content.get("state")
        if version not in VERSIONS or not _is_tensors(parameters) or not _is_tensors(buffers):
            raise WeightsError(
                f"{where} is like a model.pth of the reference, but not of version 1 with tensors in parameters and state."
            )
        return Saved(parameters, buffers)
    inner = content.get("model")
    if _is_tensors(inner) and any(name.startswith("model_parameters.") for name in inner):
        logits: dict[int, dict[str, Tensor]] = {}
        for name, tensor in inner.items():
            if place := re.fullmatch(r"masks\.(\d+)\.(.+)", name):
                logits.setdefault(int(place[1]), {})[place[2]] = tensor
        return Saved(_below("model_parameters.", inner), _below("model.", inner), logits)
    if _is_tensors(content) and content and all(_NAME.fullmatch(n) and "." not in n for n in content):
        return Saved(content, {})
    return None


def translated(found: Saved, model: nn.Module, where: str) -> dict[str, Tensor]:
    """Return a whole state dict of `model` with what was saved. Raises `WeightsError`."""
    state = dict(model.state_dict())
    placed = matched(found.parameters, model, where, whole=True)
    state |= {name: tensor for name, (tensor, _, _) in placed.items()}
    buffers = {name.replace(".", "_"): tensor for name, tensor in found.buffers.items()}
    for name, (_, theirs, layer) in placed.items():
        if isinstance(layer.module, nn.LSTM):
            second = re.sub(r"bias_ih_(l\d+)$", r"bias_hh_\1", name)
            if second != name:
                state[second] = torch.zeros_like(state[second])
        elif isinstance(layer.module, nn.modules.batchnorm._BatchNorm) and name.endswith("weight"):
            for buffer in (b for b in _BUFFERS if name.removesuffix("weight") + b in state):
                if f"{theirs}_{buffer}" not in buffers:
                    raise WeightsError(
                        f"{where} has no {buffer} of the batch norm {theirs}; version 0 of model.pth has none."
                    )
                state[name.removesuffix("weight") + buffer] = buffers[f"{theirs}_{buffer}"]
    return state


def matched(
    tensors: Mapping[str, Tensor], model: nn.Module, where: str, whole: bool
) -> dict[str, tuple[Tensor, str, _Layer]]:
    """Return {parameter of `model`: (tensor, layer there, layer here)}; `whole`: every parameter must be there.

    Raises:
        WeightsError: names that the reference does not give, another number of layers, other kinds, other shapes.
    """
    if names := [name for name in tensors if _SEQUENCES.search(name)]:
        raise WeightsError(
            f"{where} is of a sequence network of the reference ({names[0]}) and does not say which token is which; what can be read "
            "are its feed-forward, LSTM, convolutional and residual networks."
        )
    theirs = _grouped(tensors, where)
    ours = list(_layers(model))
    if len(theirs) != len(ours):
        raise WeightsError(
            f"{where} has {len(theirs)} layers ({listing(theirs, 8)}), but the network has {len(ours)} "
            f"({listing([layer.name for layer in ours], 8)}); is it the same network?"
        )
    placed = {}
    for (name, roles), layer in zip(theirs.items(), ours, strict=True):
        extra, lacking = [r for r in roles if r not in layer.roles], [r for r in layer.roles if r not in roles]
        if extra or (whole and lacking):
            raise WeightsError(
                f"{name} in {where} has {listing(roles)}, but {layer.name} of the network has {listing(layer.roles)}; "
                "is it the same network?"
            )
        for role in (r for r in layer.roles if r in roles):
            tensor, parameter = roles[role], model.get_parameter(layer.roles[role])
            if tensor.shape != parameter.shape:
                raise WeightsError(
                    f"{name}, {role}, has shape {tuple(tensor.shape)} in {where}, but {layer.roles[role]} has "
                    f"{tuple(parameter.shape)}; is it the same network?"
                )
            placed[layer.roles[role]] = tensor, name, layer
    return placed


def _grouped(tensors: Mapping[str, Tensor], where: str) -> dict[str, dict[str, Tensor]]:
    """Return {layer: {role: tensor}}, layers in the order in which the reference's networks run."""
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if not (parts := _NAME.fullmatch(name)):
            raise WeightsError(f"{where} holds {name!r}, which is no name of a parameter in the reference.")
        layers.setdefault(parts[1], {})[_ROLES.get(parts[2], parts[2])] = tensor
    return {name: layers[name] for name in sorted(layers, key=_order)}


def _order(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts layers by number (2 before 10), and the shortcut of a residual block behind its layers."""
    parts = name.split("_")
    return [(int(p), "") if p.isdigit() else (-1, "~" if p == "downsample" else p) for p in parts]


def _layers(model: nn.Module) -> Iterator[_Layer]:
    """Yield the layers of a stock network in its own order. Raises `WeightsError` for parameters of anything else."""
    plain = (nn.Linear, nn.Conv2d, nn.modules.batchnorm._BatchNorm, nn.LayerNorm)
    for prefix, module in model.named_modules():
        own = {name: f"{prefix}.{name}".removeprefix(".") for name, _ in module.named_parameters(recurse=False)}
        name = prefix or "the whole"
        if isinstance(module, nn.LSTM) and not module.bidirectional and not module.proj_size:
            for i in range(module.num_layers):
                roles = {"weight_ih": f"weight_ih_l{i}", "weight_hh": f"weight_hh_l{i}", "bias": f"bias_ih_l{i}"}
                yield _Layer(f"{name} (layer {i})", {r: own[n] for r, n in roles.items() if n in own}, module)
        elif isinstance(module, plain) and own:
            yield _Layer(name, own, module)
        elif own:
            raise WeightsError(
                f"{next(iter(own.values()))} is a parameter of a {type(module).__name__}, which no network of the reference has."
            )


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _is_tensors(value: Any) -> TypeGuard[Mapping[str, Tensor]]:
    return isinstance(value, Mapping) and all(isinstance(k, str) and isinstance(t, Tensor) for k, t in value.items())
