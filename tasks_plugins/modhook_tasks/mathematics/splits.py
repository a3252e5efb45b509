"""The test sets of the task `mathematics`: of all modules together, and of each where there are several."""

from __future__ import annotations

from collections.abc import Sequence

from modhook_tasks.mathematics.modules import MODULES, TRAIN

DIFFICULTIES = tuple(name.removeprefix("train-") for name in TRAIN)
"""easy, medium, hard"""
_HELD_OUT = ("iid", *DIFFICULTIES)
_FILES = ("interpolate", "extrapolate")


def chosen_splits(modules: Sequence[str], masks: Sequence[str]) -> tuple[str, ...]:
    """Return what is measured unless a study says otherwise: `medium` only where a mask is learned on it."""
    held_out = [name for name in _HELD_OUT if name != "medium" or name in masks]
    together = [*held_out, *(name for name in _FILES if any(_has(module, name) for module in modules))]
    each = [f"{name}_{module}" for module in modules for name in held_out] if len(modules) > 1 else []
    return (*together, *each)


def valid_splits(modules: Sequence[str], masks: Sequence[str]) -> tuple[str, ...]:
    """Return all splits that a study may name, the usual ones first."""
    every = [name for name in (*_HELD_OUT, *_FILES) if any(_has(module, name) for module in modules)]
    if len(modules) > 1:
        every += [f"{name}_{module}" for module in modules for name in (*_HELD_OUT, *_FILES) if _has(module, name)]
    return tuple(dict.fromkeys((*chosen_splits(modules, masks), *every)))


def parts(split: str, modules: Sequence[str], train: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the modules of a split, and the official sets whose questions it has; those of train sets are the held-out ones."""
    name, _, module = split.partition("_")
    difficulties = train if name == "iid" else (name,)
    sets = (name,) if name in _FILES else tuple(t for t in TRAIN if t.removeprefix("train-") in difficulties)
    return ((module,) if module else tuple(modules)), sets


def _has(module: str, split: str) -> bool:
    """Return whether a module has a split: about a quarter of the modules extrapolate."""
    return split != "extrapolate" or MODULES[module].harder is not None
