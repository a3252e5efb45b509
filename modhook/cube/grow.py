"""Changes to the layout of a cube: further variables, further seeds, further stages.

A change is prepared node by node and becomes visible when the root's consolidated metadata, one file, is replaced.
Until then every reader sees the cube as it was. What a crash left behind is found under the lock by the next change and
brought back in line first.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from modhook.cube.arrays import CONFIG, chunks_of, consolidate, dim_names, dtype_of
from modhook.cube.labels import Label, label_array, labels_of
from modhook.cube.lay_out import lay_out
from modhook.cube.lock import writer_lock
from modhook.cube.metadata import Draft, nodes_of
from modhook.cube.place import Place, Where
from modhook.cube.resolve import Slot, ancestors, checked_attrs, resolve
from modhook.cube.store import CheckedStore, open_root, open_store
from modhook.cube.values import fitted
from modhook.cube.where import place_of
from modhook.errors import CubeError, listing
from modhook.plugin.variables import Variable

STAGE = "stage"
"""The dimension of which a group may get further labels. Chunks never span two stages, so that what is there stays as it is."""


def add_variables(
    place: Place,
    variables: Sequence[Variable],
    labels: Mapping[str, Mapping[str, Sequence[Any]]],
    sizes: Mapping[str, Mapping[str, int]],
    stages: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    """See `Cube.add_variables`."""
    with writer_lock(place.path):
        store = open_store(place, read_only=False)
        committed = open_root(store, place, writable=True)
        run_dims = {d: _labels(committed, d) for d in _run_dim_names(committed)}
        grown = _grown(committed, stages or {}, place)
        touched = {a for g in {*labels, *sizes, *grown, *(v.group for v in variables)} for a in ancestors(g)}
        old_labels, old_sizes = _dimensions(committed, touched, run_dims)
        for group, its_stages in grown.items():
            old_labels[group], old_sizes[group][STAGE] = {**old_labels[group], STAGE: its_stages}, len(its_stages)
        resolved = resolve(variables, _united(labels, old_labels, place), _united(sizes, old_sizes, place), run_dims)
        nodes = dict(committed.members(max_depth=None))
        known = frozenset(name for name, node in nodes.items() if isinstance(node, zarr.Array))
        groups = nodes.keys() - known
        if clash := (touched & known) | {v.name for v in variables if v.name in groups}:
            raise CubeError(f"{place} cannot have {clash.pop()!r} both as a variable and as a group; rename one.")
        for slot in resolved.slots:
            if slot.variable.name in known:
                _check_same(committed, slot, place)
        draft = Draft(store)
        _check_nodes(draft, store)
        root = zarr.open_group(draft, mode="r+", zarr_format=3, use_consolidated=False)
        _bring_in_line(root, run_dims, known, {**_stages(committed), **grown}, grown)
        lay_out(root, resolved, run_dims, skip=known)
        for slot in resolved.slots:
            if slot.variable.name in known and slot.variable.group in grown and slot.variable.value is not None:
                _write_whole(root, slot)
        consolidate(draft)


def grow_seeds(place: Place, n: int) -> None:
    """See `Cube.grow_seeds`."""
    with writer_lock(place.path):
        store = open_store(place, read_only=False)
        committed = open_root(store, place, writable=True)
        run_dims = {d: _labels(committed, d) for d in _run_dim_names(committed)}
        known = frozenset(name for name, node in committed.members(max_depth=None) if isinstance(node, zarr.Array))
        seeds = run_dims["seed"]
        if seeds != tuple(range(1, len(seeds) + 1)):
            raise CubeError(f"{place} has the seeds {listing(map(str, seeds))}; only seeds 1..n can be continued.")
        if n < len(seeds):
            raise CubeError(
                f"{place} has {len(seeds)} seeds already and cannot shrink to {n}; use another --out for fewer."
            )
        draft = Draft(store)
        _check_nodes(draft, store)
        root = zarr.open_group(draft, mode="r+", zarr_format=3, use_consolidated=False)
        _bring_in_line(root, {**run_dims, "seed": tuple(range(1, n + 1))}, known, _stages(committed))
        consolidate(draft)


def set_attrs(place: Place, attrs: Mapping[str, Any]) -> None:
    """See `Cube.set_attrs`."""
    plain = checked_attrs(attrs)
    with writer_lock(place.path):
        draft = Draft(open_store(place, read_only=False))
        root = open_root(draft, place, writable=True)
        if any(root.attrs.get(k) != v for k, v in plain.items()):
            root.update_attributes(plain)
            draft.commit()


def seal(path: Where) -> None:
    """Accept the metadata of a cube as another program has left them: list all nodes anew and renew the checksum.

    Without it modhook refuses such a cube, because it cannot tell a change from damage. Raises `CubeError`.
    """
    place = place_of(path)
    with writer_lock(path):
        draft = Draft(open_store(place, read_only=False, sealed=False))
        try:
            consolidate(draft)
        except (ValueError, KeyError, TypeError) as error:
            raise CubeError(f"{place} is damaged: its metadata cannot be understood ({error}).") from error


def _check_nodes(draft: Draft, store: CheckedStore) -> None:
    """Compare every node's own metadata with the checked ones in the root, because a change lists them anew.

    A file that is missing or unreadable is written again. What a killed growth changed, the number of seeds or stages, may differ.
    """
    prototype = default_buffer_prototype()
    for name, listed in (nodes_of(store.document) or {}).items():
        key = f"{name}/zarr.json"
        found = sync(draft.get(key, prototype))
        try:
            own = json.loads(found.to_bytes()) if found is not None else None
        except ValueError:
            own = None
        if own is None:
            # The root lists a group as if it had nothing below it, which zarr would believe.
            own = {k: v for k, v in listed.items() if k != "consolidated_metadata"}
            sync(draft.set(key, prototype.buffer.from_bytes(json.dumps(own).encode())))
        elif _comparable(own) != _comparable(listed):
            raise CubeError(
                f"{store.place} cannot be changed: the metadata in {store.place}/{key} are damaged, or were changed by "
                "another program; delete that file, which is then made again from the cube's zarr.json, or accept the "
                f"change with modhook.cube.seal({str(store.place)!r})."
            )


def _comparable(node: Any) -> Any:
    """Return a node's metadata without what consolidating and growing change."""
    if not isinstance(node, dict):
        return node
    same = {k: v for k, v in node.items() if k != "consolidated_metadata"}
    dims = same.get("dimension_names") or []
    if isinstance(same.get("shape"), list) and len(dims) == len(same["shape"]):
        grows = [dim == STAGE or (dim == "seed" and not at) for at, dim in enumerate(dims)]
        same["shape"] = [None if g else size for size, g in zip(same["shape"], grows, strict=True)]
    return same


def _bring_in_line(
    root: zarr.Group,
    run_dims: Mapping[str, Sequence[Label]],
    committed: frozenset[str],
    stages: Mapping[str, Sequence[Label]],
    grown: Container[str] = (),
) -> None:
    """Bring every variable on disk, also one that is not committed, to the run's dimensions and to the stages of its group.

    A coordinate that a crash left without its labels would make xarray refuse the whole tree.
    """
    n = len(run_dims["seed"])
    for name, array in list(root.members(max_depth=None, use_consolidated_for_children=False)):
        dims = dim_names(array) if isinstance(array, zarr.Array) else ()
        if not isinstance(array, zarr.Array) or not dims:
            continue
        if dims[0] == "seed" and array.shape[0] != n:
            array.resize((n, *array.shape[1:]))
        group, _, short = name.rpartition("/")
        if dims == (short,) and name not in committed and short not in run_dims and array.nchunks_initialized < array.nchunks:
            del root[name]  # a crash came before its labels
            continue
        if STAGE in dims and group in stages and array.shape[dims.index(STAGE)] != len(stages[group]):
            array.resize(tuple(len(stages[group]) if d == STAGE else size for d, size in zip(dims, array.shape, strict=True)))
        if dims == (short,) and short == STAGE and group in grown:
            array.with_config(CONFIG)[:] = label_array(stages[group])
        if dims == (short,) and short in run_dims and (short == "seed" or name not in committed):
            array.with_config(CONFIG)[:] = label_array(run_dims[short])


def _stages(root: zarr.Group) -> dict[str, tuple[Label, ...]]:
    """Return the stages of every group that has them."""
    names = [name for name, node in root.members(max_depth=None) if isinstance(node, zarr.Array)]
    return {name.rpartition("/")[0]: _labels(root, name) for name in names if name.rpartition("/")[2] == STAGE}


def _grown(root: zarr.Group, further: Mapping[str, Sequence[Any]], place: Place) -> dict[str, tuple[Label, ...]]:
    """Return all stages of the groups that are to get some, in their order there: those that they have come first."""
    there, grown = _stages(root), {}
    for group, labels in further.items():
        if group not in there:
            raise CubeError(f"{place} has no group {group!r} with stages that could get further ones.")
        new = [label for label in labels_of(labels, f"the stages of {group!r}") if label not in there[group]]
        if new:
            grown[group] = (*there[group], *new)
    return grown


def _write_whole(root: zarr.Group, slot: Slot) -> None:
    """Write the constant of a variable that has got further stages."""
    array = root[slot.variable.name]
    assert isinstance(array, zarr.Array)
    array.with_config(CONFIG)[...] = fitted(slot.variable.value, slot.variable.dtype, slot.shape, slot.variable.name)


def _run_dim_names(root: zarr.Group) -> list[str]:
    names = root.attrs["modhook_run_dims"]
    assert isinstance(names, list)
    return [str(n) for n in names]


def _labels(root: zarr.Group, name: str) -> tuple[Label, ...]:
    array = root[name]
    assert isinstance(array, zarr.Array)
    values = np.asarray(array[:])
    return tuple(values.astype(object).tolist())


def _dimensions(
    root: zarr.Group, groups: set[str], run_dims: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, int]]]:
    """Return labels and sizes of the own dimensions of some groups."""
    labels: dict[str, dict[str, Any]] = {}
    sizes: dict[str, dict[str, int]] = {}
    for name, array in root.members(max_depth=None):
        group, _, short = name.rpartition("/")
        if not isinstance(array, zarr.Array) or group not in groups:
            continue
        dims = dim_names(array)
        if dims == (short,) and short not in run_dims:
            labels.setdefault(group, {})[short] = _labels(root, name)
        for dim, size in zip(dims, array.shape, strict=True):
            if dim not in run_dims:
                sizes.setdefault(group, {})[dim] = size
    return labels, sizes


def _united(
    given: Mapping[str, Mapping[str, Any]], old: Mapping[str, Mapping[str, Any]], place: Place
) -> dict[str, dict[str, Any]]:
    united = {g: dict(dims) for g, dims in old.items()}
    for group, dims in given.items():
        for dim, new in dims.items():
            clean = new if isinstance(new, int) else labels_of(new, f"dimension {dim!r} of {group!r}")
            if united.setdefault(group, {}).setdefault(dim, clean) != clean:
                raise CubeError(f"{place} has group {group!r} already, with another {dim!r}; this needs a new cube.")
    return united


def _check_same(root: zarr.Group, slot: Slot, place: Place) -> None:
    name = slot.variable.name
    array = root[name]
    assert isinstance(array, zarr.Array)
    dims = dim_names(array)
    text = slot.variable.dtype == "str"
    same_type = array.dtype.kind not in "fiu" if text else array.dtype == dtype_of(slot.variable)
    # It may be about to get further stages.
    before = tuple(min(old, new) if d == STAGE else new for d, old, new in zip(slot.dims, array.shape, slot.shape, strict=False))
    if (dims, array.shape, array.chunks) != (slot.dims, before, chunks_of(slot)) or not same_type:
        raise CubeError(f"{place} has {name} already, with other dimensions or another type; this needs a new cube.")
    if slot.variable.value is not None:
        new = fitted(slot.variable.value, slot.variable.dtype, slot.shape, name)[tuple(slice(n) for n in before)]
        if not np.array_equal(np.asarray(array[...]).astype(object), new.astype(object)):
            raise CubeError(f"{place} has {name} already, with other values; this needs a new cube.")
