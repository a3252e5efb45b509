"""`fit_masks(checkpoint=...)`: a fit that is kept in a file on the way, as stages of studies are, and continued by the same call."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn

import modhook
from modhook.errors import UserError
from modhook.steps.checkpoint import Keeper, active
from modhook.steps.ranks import spread
from modhook.steps.snapshot import digest
from modhook.values.arguments import checked, shown
from modhook.values.bounds import NotNegative
from modhook.values.code import compiled
from modhook.values.randomness import drawing

_NUMBERS = (bool, int, float, str, type(None))


class _Nothing:
    """What a fit remembers beside its step loop."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


def file_of(checkpoint: Any) -> Path | None:
    """Return the file, as an absolute path. Raises `UserError` for what cannot be one, and where none may be."""
    if checkpoint is None:
        return None
    if not isinstance(checkpoint, str | os.PathLike) or not os.fspath(checkpoint):
        raise UserError(f"checkpoint must be the path of a file, not {shown(checkpoint)}.")
    path = Path(os.fsdecode(checkpoint)).absolute()
    if "\0" in str(path):
        raise UserError(f"checkpoint must be the path of a file, and no file can have the name {shown(str(checkpoint))}.")
    if path.is_dir():
        raise UserError(f"checkpoint must be a file, but {path} is a folder; give a file in it.")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        what = "cannot be written" if path.parent.is_dir() else "is not there"
        raise UserError(f"the folder of checkpoint, {path.parent}, {what}; give a file in another one.")
    if spread():
        raise UserError("checkpoint= is for one process, not for the ranks of torchrun; leave it away.")
    if active():
        raise UserError("this fit is kept already, by the stage of a study that it is in; leave checkpoint= away.")
    return path


def keeper_of(
    path: Path, every: Any, identity: Mapping[str, Any], say: Callable[[str], None], warn: Callable[[str], None]
) -> Keeper:
    """Return the keeper of a fit. Raises `UserError` for a time that is none."""
    every = checked("checkpoint_every", every, NotNegative)
    return Keeper(path, identity, every, _Nothing(), say, returns=True, warn=warn, refuses=True)


def identity_of(model: nn.Module, **arguments: Any) -> dict[str, Any]:
    """Return what a fit depends on: its arguments, the network and its mode, versions, threads and device."""
    devices = {drawing(device) for device in {t.device for t in model.parameters()}}
    return {
        **{name: _plain(value) for name, value in arguments.items()},
        "network": _short(model.state_dict()),
        "modes": _short([module.training for module in model.modules()]),
        "versions": {"modhook": modhook.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "device": ", ".join(sorted(devices)),
        "threads": torch.get_num_threads(),
    }


def _plain(value: Any) -> Any:
    """Return an argument as what can be compared: tensors by a digest, functions and classes by name."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor | np.ndarray):
        return _short(value)
    if isinstance(value, nn.Module):
        return _short(value.state_dict())
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if attrs.has(type(value)):
        return {
            "class": type(value).__qualname__,
            **{f.name: _plain(getattr(value, f.name)) for f in attrs.fields(type(value))},
        }
    return _called(value)


def _called(value: Any) -> Any:
    """Return a function as what tells it from another: its name and code, and the plain values that it takes with it; a class by name."""
    if isinstance(value, functools.partial):
        return [_called(value.func), [_plain(v) for v in value.args], {k: _plain(v) for k, v in sorted(value.keywords.items())}]
    if isinstance(value, types.MethodType):
        return [_called(value.__func__), type(value.__self__).__qualname__, _numbers(getattr(value.__self__, "__dict__", {}))]
    if not isinstance(value, types.FunctionType):
        name = getattr(value, "__qualname__", None)
        return name if isinstance(name, str) else type(value).__qualname__
    names, inside = value.__code__.co_freevars, dict[str, Any]()
    for name, cell in zip(names, value.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # not given a value yet
            inside[name] = cell.cell_contents
    inside |= {f"default {i}": v for i, v in enumerate(value.__defaults__ or ())} | (value.__kwdefaults__ or {})
    # Others may change by being used, as a list of what a loss has seen does.
    return [value.__qualname__, compiled(value.__code__), _numbers(inside)]


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in sorted(values.items()) if isinstance(value, _NUMBERS)}


def _short(state: Any) -> str:
    with contextlib.suppress(UserError):
        return digest(state)[:12]
    return "not known"
