"""A group of units, such as the heads of one attention module, and the weights that belong to each of them.

Which unit a weight belongs to is written as an array of the parameter's number of dimensions, with 1 for every dimension that does
not matter: the rows of a (4, 3) weight are (4, 1), its columns (1, 3). Masks of units become masks of weights by looking up and
broadcasting; no array is as large as a weight unless units were given weight by weight.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from modhook.errors import MaskError

KINDS = ("weight", "neuron", "channel", "head", "block", "layer")


@attrs.frozen(eq=False)
class Part:
    """What the units of a group own of one parameter.

    Attributes:
        parameter: its first name.
        owner: int64, (*1 or the parameter's size, dimension by dimension): the number of the unit that a weight belongs to; -1: of none.
        pool: where so many consecutive units own a weight together, as heads that share keys and values, which are kept as long as one
            of them is; `owner` then counts such sets.
        gate: whether a unit is gone where its weights of these parts alone are zero.
    """

    parameter: str
    owner: Tensor
    pool: int = 1
    gate: bool = False

    def spread(self, values: Tensor) -> Tensor:
        """Return numbers of the units, (..., n), by weight: (..., *owner.shape), 1 (True) for what belongs to no unit."""
        lead = values.shape[:-1]
        if self.pool > 1:
            values = values.reshape(*lead, -1, self.pool)
            values = values.any(-1) if values.dtype == torch.bool else values.amax(-1)
        place = self.owner.to(values.device)
        if self._plain and values.shape[-1] == place.numel():
            return values.reshape(*lead, *place.shape)
        one = torch.ones((*lead, 1), dtype=values.dtype, device=values.device)
        return torch.cat([values, one], -1)[..., place]  # -1 is the last

    @functools.cached_property
    def _plain(self) -> bool:
        """Whether the units come in their order, once each; asked in every step, answered once."""
        flat = self.owner.reshape(-1)
        return bool(torch.equal(flat, torch.arange(len(flat), device=flat.device)))

    def count(self, units: int, shape: Sequence[int]) -> Tensor:
        """Return how many weights of the parameter belong to each unit: (n,) int64; shared ones count for each."""
        each = 1
        for own, size in zip(self.owner.shape, shape, strict=True):
            each *= size if own == 1 else 1
        flat = self.owner.reshape(-1)
        found = torch.bincount(flat[flat >= 0], minlength=units // self.pool) * each
        return found.repeat_interleave(self.pool)


@attrs.frozen(eq=False)
class Group:
    """Units of one kind in one place, each with a logit of its own.

    Attributes:
        name: of the group in masks and cubes, `"head:encoder.layers.0.self_attn"`.
        kind: "neuron", "channel", "head", "block", "layer"; "unit" for those that were given.
        module: the path of the module whose units they are; "" for the network.
        labels: a text per unit: "0", "1", ..., or the names that were given.
        parts: what they own, parameter by parameter.
        home: the parameters by whose names patterns choose the group.
        note: what to know about them; empty as a rule.
    """

    name: str
    kind: str
    module: str
    labels: tuple[str, ...]
    parts: tuple[Part, ...]
    home: tuple[str, ...] = ()
    note: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters that hold weights of these units."""
        return tuple(dict.fromkeys(part.parameter for part in self.parts))

    @property
    def gates(self) -> tuple[Part, ...]:
        """The parts whose weights alone decide whether a unit is there: all, where no fewer do."""
        return tuple(part for part in self.parts if part.gate) or self.parts

    def weights(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return how many weights belong to each unit: (n,) int64."""
        found = torch.zeros(len(self), dtype=torch.int64, device="cpu")
        for part in self.parts:
            found += part.count(len(self), parameters[part.parameter].shape)
        return found

    def subset(self, units: Sequence[int]) -> Group | None:
        """Return some units of a group in which each has a home of its own; None for none."""
        if len(units) == len(self):
            return self
        new = torch.full((len(self) + 1,), -1, dtype=torch.int64, device="cpu")
        new[list(units)] = torch.arange(len(units), device="cpu")
        parts = tuple(attrs.evolve(p, owner=new[p.owner]) for p in self.parts)
        parts = tuple(p for p in parts if bool((p.owner >= 0).any()))
        labels, home = (tuple(x[i] for i in units) for x in (self.labels, self.home))
        return attrs.evolve(self, labels=labels, parts=parts, home=home) if units else None

    def same(self, other: Group) -> bool:
        """Return whether these are the same units of a network: as many, with the same weights each."""

        def key(group: Group) -> Any:
            return [(p.parameter, p.pool, p.owner.shape, p.owner.reshape(-1).tolist()) for p in group.parts]

        return len(self) == len(other) and key(self) == key(other)

    def check(self, parameters: Mapping[str, Tensor], where: str = "") -> None:
        """Raise `MaskError` unless the network has the parameters that the units own, in their shapes."""
        for part in self.parts:
            shape = tuple(parameters[part.parameter].shape) if part.parameter in parameters else None
            own = tuple(part.owner.shape)
            if shape is None or len(own) != len(shape) or any(o not in (1, s) for o, s in zip(own, shape, strict=True)):
                what = "which is not there" if shape is None else f"which has the shape {shape} here"
                raise MaskError(
                    f"the units {self.name!r}{where} own weights of {part.parameter!r}, {what}; these masks belong to another network."
                )


def rows(
    size: int, axis: int, dims: int, *, start: int = 0, each: int = 1, times: int = 1, total: int | None = None
) -> Tensor:
    """Return the owner of a part that lies along one axis: n = `size` units, `each` places per unit, the whole `times` over.

    Args:
        size: n, the number of units. axis, dims: which of how many dimensions of the parameter.
        start: the first place. total: places along the axis; those outside belong to no unit.
    """
    found = torch.arange(size, device="cpu").repeat_interleave(each).repeat(times)
    length = start + len(found) if total is None else total
    place = torch.full((length,), -1, dtype=torch.int64, device="cpu")
    place[start : start + len(found)] = found
    return place.view([length if i == axis else 1 for i in range(dims)])


def numbered(
    name: str, kind: str, module: str, size: int, parts: Sequence[Part], home: Sequence[str], note: str = ""
) -> Group:
    """Return a group of units that are called by their numbers."""
    return Group(name, kind, module, tuple(map(str, range(size))), tuple(parts), tuple(home), note)


def written(groups: Sequence[Group]) -> str:
    """Return groups as JSON text; owners as [first, step, length] of runs."""
    return json.dumps([_plain(group) for group in groups], ensure_ascii=False, separators=(",", ":"))


def read(text: str) -> tuple[Group, ...]:
    """Return the groups of `written`'s text. Raises `ValueError` for any other."""
    try:
        return tuple(_group(one) for one in json.loads(text))
    except (KeyError, TypeError, AttributeError, RuntimeError, MemoryError, OverflowError) as error:
        raise ValueError("no groups of units") from error


def _plain(group: Group) -> dict[str, Any]:
    numbers = group.labels == tuple(map(str, range(len(group))))
    return {
        "name": group.name,
        "kind": group.kind,
        "module": group.module,
        "units": len(group) if numbers else list(group.labels),
        "home": list(group.home),
        "note": group.note,
        "parts": [
            {
                "parameter": part.parameter,
                "shape": list(part.owner.shape),
                "runs": _runs(part.owner),
                "pool": part.pool,
                "gate": part.gate,
            }
            for part in group.parts
        ],
    }


def _group(one: Any) -> Group:
    units = one["units"]
    labels = tuple(map(str, range(units))) if isinstance(units, int) else tuple(units)
    if not all(
        isinstance(t, str) for t in (one["name"], one["kind"], one["module"], one["note"], *labels, *one["home"])
    ):
        raise TypeError
    parts = []
    for p in one["parts"]:
        pieces = [torch.arange(n, device="cpu") * step + first for first, step, n in p["runs"]]
        owner = (torch.cat(pieces) if pieces else torch.empty(0, device="cpu")).to(torch.int64).view(p["shape"])
        pool, gate = p["pool"], p["gate"]
        known = isinstance(p["parameter"], str) and isinstance(pool, int) and isinstance(gate, bool)
        if not known or pool < 1 or len(labels) % pool:
            raise TypeError
        if owner.numel() and not -1 <= int(owner.min()) <= int(owner.max()) < len(labels) // pool:
            raise TypeError
        parts.append(Part(p["parameter"], owner, pool, gate))
    return Group(one["name"], one["kind"], one["module"], labels, tuple(parts), tuple(one["home"]), one["note"])


def _runs(owner: Tensor) -> list[list[int]]:
    """Return numbers as runs of equal steps."""
    flat: Any = owner.reshape(-1).cpu().numpy()
    steps = np.diff(flat)
    turns = np.flatnonzero(np.diff(steps)) + 1  # where a step is another one than the step before
    found, i = [], 0
    ends = [*turns.tolist(), len(flat) - 1]
    at = 0
    while i < len(flat):
        while at < len(ends) - 1 and ends[at] <= i:
            at += 1
        last = max(ends[at], i) if i < len(flat) - 1 else i
        step = int(steps[i]) if last > i else 0
        found.append([int(flat[i]), step, last - i + 1])
        i = last + 1
    return found
