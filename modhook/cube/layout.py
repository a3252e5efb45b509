"""How masks, logits and weights of one network lie in a group `masks/<layout>`: flat, with a table of the parameters.

A study has one layout per distinct set of parameter names and shapes over its sweep points. Within a group:

* `parameter` labels every floating tensor and integer buffer of the network's `state_dict`, in its order. `shape` (JSON
  text), `dtype`, `count`, `masked` describe it; `offset` is its first element in `weights` (or in `integers`, for an
  integer or bool tensor), `mask_offset` its first element in `logits` and in the unpacked `bits` (-1: it is not masked).
  A group of units that has a mask stands in the table after the tensors, with the dtype `unit` and one element per unit; `units`
  holds, as JSON text, which unit owns which weights.
* `bits` holds the masks, eight weights to the byte, first weight in the highest bit (`numpy.unpackbits`), without padding
  between parameters, so that unpacked bits and `logits` are indexed alike.

A tensor is sliced out by hand with

    table = cube["masks/layout0"].sel(parameter="lstm.weight_hh_l0")
    start, count, shape = int(table["mask_offset"]), int(table["count"]), json.loads(table["shape"].item())
    logits = cube["masks/layout0/logits"].sel(seed=1, stage="add").values[start : start + count].reshape(shape)
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from modhook.errors import CubeError, listing, near_miss
from modhook.plugin.variables import Variable


@frozen
class Layout:
    """The part of a plan that holds the masks and weights of one network."""

    name: str
    variables: tuple[Variable, ...]
    labels: Mapping[str, Mapping[str, Sequence[Any]]]
    sizes: Mapping[str, Mapping[str, int]]


@frozen
class Entry:
    """One tensor of the network's state and where it lies."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    count: int
    offset: int
    mask_offset: int

    @property
    def floating(self) -> bool:
        """Whether it lies in `weights`; else in `integers`."""
        return _is_floating(self.dtype)

    @property
    def unit(self) -> bool:
        """Whether it is no tensor of the network, but a group of units with a mask."""
        return self.dtype == UNIT

    @property
    def masked(self) -> bool:
        """Whether it has a mask."""
        return self.mask_offset >= 0


UNIT = "unit"
"""Stands for the type of an entry that is a group of units."""

_TABLE: tuple[tuple[str, str, str, Callable[[Entry], Any]], ...] = (
    ("shape", "str", "Shape of the tensor, as JSON text.", lambda e: json.dumps(list(e.shape))),
    ("dtype", "str", "Type of the tensor in the network.", lambda e: e.dtype),
    ("count", "int64", "Number of elements.", lambda e: e.count),
    ("masked", "uint8", "1 where the tensor is masked, else 0.", lambda e: int(e.masked)),
    ("offset", "int64", "First element in weights, or in integers.", lambda e: e.offset),
    ("mask_offset", "int64", "First element in logits and unpacked bits; -1: not masked.", lambda e: e.mask_offset),
)


def layout_variables(
    name: str,
    state: Mapping[str, tuple[Sequence[int], Any]],
    masked: Sequence[str],
    stages: Sequence[str],
    logits_dtype: str = "float32",
    weights_per_stage: bool = False,
    units: Mapping[str, tuple[int, str]] | None = None,
) -> Layout:
    """Declare everything that `write_masks` and `write_weights` need for one network.

    Args:
        name: the layout, `"layout0"`.
        state: shape and dtype (`torch.float32` or `"float32"`) of every tensor of the network's `state_dict`, in order.
        masked: names of the parameters that are masked.
        stages: stages that leave a mask; with `weights_per_stage` also every other stage whose weights are kept.
        logits_dtype: `"float32"` or `"float16"`. The masks come from the logits before rounding either way.
        weights_per_stage: whether the protocol changes the weights from stage to stage.
        units: groups of units with masks, {name: (how many, the group as text)}; they stand in the table after the tensors.

    Raises:
        CubeError: a masked name that the network lacks, an integer tensor that is masked, or a type that cannot be kept.
    """
    if logits_dtype not in ("float16", "float32"):
        raise CubeError(f"logits are kept as float16 or float32, not {logits_dtype!r}.")
    groups = units or {}
    entries = _entries(state, [n for n in masked if n not in groups])
    start = sum(e.count for e in entries if e.masked)
    for unit, (count, _) in groups.items():
        entries.append(Entry(unit, (count,), UNIT, count, -1, start))
        start += count
    group = f"masks/{name}"
    weights = sum(e.count for e in entries if e.floating)
    integers = sum(e.count for e in entries if not e.floating and not e.unit)
    logits = sum(e.count for e in entries if e.masked)
    wide = any(e.dtype == "float64" for e in entries)
    stage = ("stage",) if weights_per_stage else ()
    variables = [
        Variable(f"{group}/bits", ("stage", "byte"), "uint8", "Masks, eight weights to the byte, the first highest."),
        Variable(f"{group}/logits", ("stage", "weight"), logits_dtype, "Logits; masks are not derived from them."),
        Variable(f"{group}/weights", (*stage, "element"), "float64" if wide else "float32", "Weights, float buffers."),
        *(
            Variable(
                f"{group}/{column}", ("parameter",), dtype, doc, per_run=False, value=tuple(value(e) for e in entries)
            )
            for column, dtype, doc, value in _TABLE
        ),
    ]
    if groups:
        texts = tuple(groups[e.name][1] if e.unit else "" for e in entries)
        doc = "The group of units as JSON text: module, labels, and which unit owns which weights; empty for a tensor."
        variables.append(Variable(f"{group}/units", ("parameter",), "str", doc, per_run=False, value=texts))
    sizes = {"byte": -(-logits // 8), "weight": logits, "element": weights}
    if integers:
        variables.append(
            Variable(f"{group}/integers", (*stage, "integer"), "int64", "Integer and bool buffers of the network.")
        )
        sizes["integer"] = integers
    labels = {"stage": list(stages), "parameter": [e.name for e in entries]}
    return Layout(name, tuple(variables), {group: labels}, {group: sizes})


def _entries(state: Mapping[str, tuple[Sequence[int], Any]], masked: Sequence[str]) -> list[Entry]:
    if unknown := [n for n in masked if n not in state]:
        raise CubeError(
            f"the network has no parameter {unknown[0]!r}{near_miss(unknown[0], state)}; it has: {listing(state)}."
        )
    entries: list[Entry] = []
    used = {True: 0, False: 0}
    masks = 0
    for name, (shape, kind) in state.items():
        dtype = str(kind).removeprefix("torch.")
        if dtype.startswith(("complex", "q")):
            raise CubeError(f"{name!r} is {dtype}, which a cube cannot keep; it keeps floating and integer tensors.")
        count = math.prod(shape)
        floating = _is_floating(dtype)
        if name in masked and not floating:
            raise CubeError(f"{name!r} is {dtype} and cannot be masked; exclude it.")
        entries.append(Entry(name, tuple(shape), dtype, count, used[floating], masks if name in masked else -1))
        used[floating] += count
        masks += count if name in masked else 0
    return entries


def _is_floating(dtype: str) -> bool:
    return dtype.startswith(("float", "bfloat"))
