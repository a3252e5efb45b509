"""Masks summed up by the modules of a network: its layers, their parts, depths, types of modules."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modhook.errors import UserError, near_miss
from modhook.masks import chance
from modhook.masks.show import frame
from modhook.values.arguments import shown
from modhook.values.numbers import whole

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from modhook.masks.masks import Masks

LEVELS = ("layer", "part", "module", "type", "parameter")
Level = str | int | Callable[[str], Any]
Levels = Level | tuple[Level, ...] | list[Level]


def by(masks: Masks, level: Levels, model: nn.Module | None) -> pd.DataFrame:
    """Return one row per module of a level; see `Masks.by`."""
    rows, names = labelled(masks, level, model)
    found = rows.groupby(names, sort=False, as_index=False)[["kept", "total"]].sum()
    found["density"] = (found["kept"] / found["total"].where(found["total"] > 0)).astype(float)
    return found


def compared(a: Masks, b: Masks, level: Levels, model: nn.Module | None) -> pd.DataFrame:
    """Return what two masks over the same parameters have in common, one row per module of a level; see `modhook.iou`."""
    import pandas as pd

    rows, names = labelled(a & b, level, model)
    either = (a | b).kept(per_tensor=True)
    one, two = a._beside(b)
    found = []
    for label, of in rows.groupby(names, sort=False):
        both, whole = int(of["kept"].sum()), sum(either[p] for p in of["parameter"])
        sizes = [(one[p].numel(), int(one[p].sum()), int(two[p].sum())) for p in of["parameter"] if one[p].numel()]
        laws = [chance.shared(*s) for s in sizes]
        by_chance = chance.total(laws).iou(sum(s[1] for s in sizes), sum(s[2] for s in sizes)) if laws else math.nan
        found.append((*label, both, whole, both / whole if whole else math.nan, by_chance))
    return pd.DataFrame(found, columns=[*names, "intersection", "union", "iou", "iou_chance"])


def labelled(masks: Masks, level: Levels, model: nn.Module | None) -> tuple[pd.DataFrame, list[str]]:
    """Return the table of all tensors with a column for each level, and what these are called. Raises `UserError`."""
    rows = frame(masks)
    parameters, modules = list(rows["parameter"]), list(rows["module"])
    names: list[str] = []
    for one in level if isinstance(level, tuple | list) else (level,):
        name, labels = _labels(one, parameters, modules, model)
        while name in names:  # two depths, two functions
            name = f"{name}_"
        rows[name] = labels
        names.append(name)
    if not names:
        raise UserError("level is empty; give one of " + f"{', '.join(LEVELS)}.")
    return rows, names


def layers(modules: Sequence[str]) -> dict[str, str]:
    """Return {path of a module: path of the layer that it lies in}.

    A layer is the first numbered module on the way, `encoder.layer.0`. What lies beside the lists of these is a layer of its own:
    `embeddings` beside `encoder.layer`, whatever is in it. Without any list every module is one.
    """
    lists = {tuple(parts[:i]) for m in modules if (parts := m.split(".")) and (i := _number(parts)) is not None}
    found = {}
    for module in modules:
        parts = module.split(".")
        i = _number(parts)
        if i is None:
            i = max((_common(parts, path) for path in lists), default=len(parts))
        found[module] = ".".join(parts[: i + 1])
    return found


def _number(parts: Sequence[str]) -> int | None:
    """Return the place of the first number on a path."""
    return next((i for i, part in enumerate(parts) if part.isdecimal()), None)


def _common(parts: Sequence[str], other: Sequence[str]) -> int:
    count = 0
    for one, two in zip(parts, other, strict=False):
        if one != two:
            break
        count += 1
    return count


def inside(module: str, layer: str) -> str:
    """Return the path of a module within its numbered layer; an empty one for the layer itself, and beside these."""
    return module[len(layer) + 1 :] if layer.rpartition(".")[2].isdecimal() else ""


def _labels(
    level: Level, parameters: Sequence[str], modules: Sequence[str], model: nn.Module | None
) -> tuple[str, list[Any]]:
    """Return what a level is called, and its label for each parameter."""
    if callable(level):
        return "level", [_called(level, p) for p in parameters]
    if not isinstance(level, str):
        depth = _depth(level)
        return "module", [".".join(m.split(".")[:depth]) for m in modules]
    if level not in LEVELS:
        raise UserError(
            f"unknown level {shown(level)}{near_miss(level, LEVELS)}; valid are {', '.join(LEVELS)}, a depth such as 1 (the "
            "network's own modules), or a function of a parameter's name."
        )
    if level == "parameter":
        return "parameter", list(parameters)
    if level == "module":
        return "module", list(modules)
    if level == "type":
        if model is None:
            raise UserError("masks know the types of modules from their network only: give it, masks.by('type', model=model).")
        known: Mapping[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
        return "type", [type(_nearest(known, m)).__name__ for m in modules]
    found = layers(modules)
    if level == "layer":
        return "layer", [found[m] for m in modules]
    return "part", [inside(m, found[m]) for m in modules]


def _nearest(modules: Mapping[str, nn.Module], path: str) -> nn.Module:
    """Return the module of a path, or, of units within a layer, the layer's."""
    while path not in modules:
        path = path.rpartition(".")[0]
    return modules[path]


def _depth(level: Any) -> int:
    try:
        depth = whole(level)
    except ValueError:
        depth = 0
    if depth < 1:
        raise UserError(
            f"level must be one of {', '.join(LEVELS)}, a depth of at least 1, or a function of a parameter's name, not {shown(level)}."
        )
    return depth


def _called(level: Callable[[str], Any], parameter: str) -> Any:
    try:
        found = level(parameter)
        hash(found)
    except Exception as error:
        why = str(error).partition("\n")[0]
        raise UserError(f"the level's function fails at {parameter!r}: {type(error).__name__}: {why}.") from error
    return found
