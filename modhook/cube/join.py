"""Joins cubes of one study that were computed apart, `--only seed=3` here and `--only seed=4` there, into one packed cube.

The layout of a cube depends on its study alone, and every file of values belongs to one run. So the files of each run are taken as
they are from the cube that has computed most of it, with the run's record; nothing is computed or compressed anew.
"""

from __future__ import annotations

import copy
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from attrs import frozen

from modhook.cube.cube import Cube
from modhook.cube.ledger import Index, Ledger
from modhook.cube.metadata import nodes_of
from modhook.cube.pack import Pack, in_order, metadata_files, pack, place_for, write
from modhook.cube.packed import ENDING, PACKED
from modhook.cube.place import Where
from modhook.cube.store import CHUNK
from modhook.errors import CubeError

_OWN = {PACKED, "modhook_metadata_sha256", "study", "versions", "modhook_version", "off"}
"""Attributes of the root that may differ between the cubes."""
_PLAIN = ("weights", "logits")
_SEED = "seed"


@frozen
class Joined:
    """What was joined."""

    pack: Pack
    runs: tuple[int, ...]
    """How many runs each cube gave, in the cubes' order."""


@frozen(eq=False)
class _Part:
    """One cube, packed into a scratch file."""

    path: Where
    """The cube itself, for messages."""
    cube: Cube
    file: zipfile.ZipFile

    @property
    def root(self) -> dict[str, Any]:
        return self.cube._store.document

    @property
    def nodes(self) -> dict[str, dict[str, Any]]:
        return nodes_of(self.root) or {}

    @property
    def ledger(self) -> Ledger:
        return self.cube._store.ledger


def join_packed(cubes: Sequence[Where], out: Path, *, overwrite: bool = False) -> Joined:
    """See `modhook.run.join`, which compares the studies first.

    Raises `CubeError` for no cube, a damaged one, other data, other code or a layout that does not fit; `UserError` for no place for
    a file.
    """
    path = place_for([Cube(c, read_only=True) for c in cubes], out, overwrite)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as files:
        parts = []
        for number, cube in enumerate(cubes):
            small = pack(cube, Path(scratch) / f"{number}{ENDING}").path
            file = files.enter_context(zipfile.ZipFile(small))
            parts.append(_Part(Cube(cube, read_only=True).path, Cube(small, read_only=True), file))
        base = max(parts, key=lambda p: len(p.cube.run_dims[_SEED]))
        for part in parts:
            _check(base, part)
        root = _root(base, parts)
        owners = _owners(base, parts)
        made = write(path, _files(base, parts, owners, root), root, _PLAIN, base.path)
    return Joined(made, tuple(sum(o is p and any(p.ledger.record(at).stages) for at, o in owners.items()) for p in parts))


def _check(base: _Part, part: _Part) -> None:
    """Raise `CubeError` for a cube whose runs do not fit into those of another one."""
    here, there = base.root["attributes"], part.root["attributes"]
    for name in sorted((here.keys() | there.keys()) - _OWN):
        if here.get(name) != there.get(name):
            what = {"data": "with other data", "code": "with other code of its own", "modhook_format": "in another format"}.get(
                name, f"with another {name}"
            )
            raise CubeError(f"{part.path} was computed {what} than {base.path}; only cubes of one study can be joined.")
    for dim, labels in base.cube.run_dims.items():
        own = part.cube.run_dims[dim]
        if own != labels[: len(own)] or (dim != _SEED and len(own) != len(labels)):
            raise CubeError(f"{part.path} has other labels of {dim} than {base.path}; only cubes of one study can be joined.")
    if part.ledger.active != base.ledger.active:
        old = base if part.ledger.active else part
        raise CubeError(f"{old.path} was written by an older version, which kept no record of its runs; join cubes of one version.")
    for name in sorted(base.nodes.keys() & part.nodes.keys()):
        if _shape(base.nodes[name]) != _shape(part.nodes[name]):
            raise CubeError(
                f"{name} has another size, type or description in {part.path} than in {base.path}; give both the same controls, "
                "and compute both with one version of modhook."
            )


def _shape(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said of a node, the number of seeds aside."""
    told = {k: v for k, v in node.items() if k not in ("consolidated_metadata", "chunk_grid")}
    if _seeds_first(node):
        told["shape"] = node["shape"][1:]
    return told


def _seeds_first(node: Mapping[str, Any]) -> bool:
    dims: list[Any] | None = node.get("dimension_names")
    return dims is not None and dims[:1] == [_SEED]


def _root(base: _Part, parts: Sequence[_Part]) -> dict[str, Any]:
    """Return the root document: the base's, with the variables that only others have, for all seeds."""
    root = copy.deepcopy(base.root)
    listed, attributes = root["consolidated_metadata"]["metadata"], root["attributes"]
    seeds = len(base.cube.run_dims[_SEED])
    for part in parts:
        for name, node in part.nodes.items():
            if name not in listed:
                listed[name] = copy.deepcopy(node)
                if _seeds_first(node):
                    listed[name]["shape"][0] = seeds
    for section in ("analyses", "controls"):
        united = {k: v for p in parts for k, v in p.root["attributes"]["study"].get(section, {}).items()}
        if united:
            attributes["study"][section] = united
    versions = [p.root["attributes"].get("versions", {}) for p in parts]
    if any(versions):
        names = dict.fromkeys(n for v in versions for n in v)
        attributes["versions"] = {n: ", ".join(dict.fromkeys(v[n] for v in versions if n in v)) for n in names}
    if off := {k: v for p in parts for k, v in p.root["attributes"].get("off", {}).items()}:
        attributes["off"] = off
    # in zarr's own order: it finds nothing in a group whose members are not listed side by side
    root["consolidated_metadata"]["metadata"] = dict(sorted(listed.items(), key=lambda item: (item[0].count("/"), item[0].casefold())))
    return root


def _owners(base: _Part, parts: Sequence[_Part]) -> dict[Index, _Part]:
    """Return from which cube each run is taken."""
    found = {}
    for at in base.ledger.runs():
        have = [p for p in parts if at[0] < len(p.cube.run_dims[_SEED])]
        found[at] = max(have, key=lambda p: _progress(p, at))
    return found


def _progress(part: _Part, at: Index) -> tuple[int, int]:
    """Return how many stages and how many analyses of a run are done."""
    run, cube = part.ledger.labels(at), part.cube
    stages = [cube.status(run, str(s)) for s in cube.labels("runs/status")["stage"]]
    states = [n for n in cube.variables if part.ledger.marks(n) and n != "runs/status"]
    return stages.count("done"), sum(int(cube.read(n, run)) == 1 for n in states)


def _files(
    base: _Part, parts: Sequence[_Part], owners: Mapping[Index, _Part], root: dict[str, Any]
) -> Iterator[tuple[str, bytes]]:
    """Yield every file but the root, in a pack's order."""
    sources: dict[str, tuple[_Part, str]] = {}
    for part in parts:
        for key in part.file.namelist():
            found = CHUNK.fullmatch(key)
            if found is None:
                continue
            name = found["array"]
            if part.ledger.per_run(name):
                at = tuple(int(i) for i in key[len(name) + 3 :].split("/")[: len(base.cube.run_dims)])
                if owners[at] is part:
                    sources[key] = part, key
            elif name.rpartition("/")[2] == _SEED:
                # of a group that the base lacks as well: the seeds of all groups are the same
                number = key.rpartition("/")[2]
                sources[key] = base, f"{_SEED}/c/{number}"
            elif key in sources and sources[key][0].file.read(key) != part.file.read(key):
                raise CubeError(f"{name} is not the same in {part.path} and {base.path}; only cubes of one study can be joined.")
            else:
                sources.setdefault(key, (part, key))
    for key in sorted(sources, key=in_order):
        part, source = sources[key]
        yield key, part.file.read(source)
    yield from metadata_files(root)
