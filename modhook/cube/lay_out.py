"""Puts resolved variables, their groups and coordinates into a store; used for new cubes and for additions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import zarr

from modhook.cube.arrays import CONFIG, create_coordinate, create_variable
from modhook.cube.labels import Label
from modhook.cube.resolve import Resolved, ancestors
from modhook.cube.values import fitted


def lay_out(
    root: zarr.Group, resolved: Resolved, run_dims: Mapping[str, Sequence[Label]], skip: frozenset[str] = frozenset()
) -> None:
    """Create every group with its coordinates, every variable, and write the constant values.

    `skip` names arrays that are there already and are left alone; whatever else is in the way is a leftover of a crash
    and is replaced.
    """
    for group in sorted(
        {a for g in {*resolved.labels, *(s.variable.group for s in resolved.slots)} for a in ancestors(g)}
    ):
        node = root.require_group(group)
        # Every group carries the run's coordinates: xarray refuses a tree whose child differs from its parent.
        for name, labels in {**run_dims, **resolved.labels.get(group, {})}.items():
            if f"{group}/{name}" not in skip:
                create_coordinate(node, name, labels)
    for slot in resolved.slots:
        name = slot.variable.name
        if name in skip:
            continue
        create_variable(root, slot)
        if slot.variable.value is not None:
            value = fitted(slot.variable.value, slot.variable.dtype, slot.shape, name)
            array = root[name]
            assert isinstance(array, zarr.Array)
            if value.size:
                array.with_config(CONFIG)[...] = value
