"""What values say of themselves that show no attributes, because they are written in C: what `copy` would make them of again."""

from __future__ import annotations

import copyreg
import logging
import random
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

RANDOM = (random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator, torch.Generator)
"""Generators of random numbers, which are told by their kind: they change by being used."""
_USED = (*RANDOM, Iterator, logging.Logger)
_CODE = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, type)


def made_of(value: Any) -> list[Any]:
    """Return what makes a value again: the arguments of its constructor, its state, its items; nothing where it does not say so."""
    arguments, rest = _reduced(value)
    return [*arguments, *(list(r) if isinstance(r, Iterator) else r for r in rest)]


def is_fixed(value: Any) -> bool:
    """Whether a value is all that its constructor was given, so that no use changes it (slice, Decimal, date, re.Pattern, itemgetter)."""
    arguments, rest = ([], []) if isinstance(value, _CODE) else _reduced(value)
    return bool(arguments) and not rest


def _reduced(value: Any) -> tuple[list[Any], list[Any]]:
    if isinstance(value, _USED):
        return [], []
    if isinstance(value, memoryview):
        return [value.tobytes()], []
    try:
        reduce = copyreg.dispatch_table.get(type(value))
        found = reduce(value) if reduce else value.__reduce_ex__(4)
    except Exception:  # what cannot be copied: a lock, an open file
        return [], []
    if isinstance(found, str):  # the name of what there is once, such as numpy's functions
        return [found], [None]
    _, arguments, *rest = found
    return [a for a in arguments if a is not type(value)], [r for r in rest if r is not None]
