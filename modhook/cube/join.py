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

from modhook.cube.alike import BY_NAME, SEED, exchanged, seeds_first, shape_of, versions_of
from modhook.cube.cube import Cube
from modhook.cube.ledger import Index, Ledger
from modhook.cube.metadata import CHECKSUM, nodes_of
from modhook.cube.pack import Pack, folder_for, in_order, metadata_files, pack, place_for, write
from modhook.cube.packed import ENDING, PACKED
from modhook.cube.place import Where
from modhook.cube.store import CHUNK
from modhook.errors import CubeError

_OWN = {PACKED, CHECKSUM, "study", "versions", "modhook_version", *BY_NAME}
"""Attributes of the root that are not compared as a whole."""
_PLAIN = ("weights", "logits")


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


def join_packed(cubes: Sequence[Cube], out: Path, *, overwrite: bool = False) -> Joined:
    """See `modhook.run.join`, which compares the studies first.

    Raises `CubeError` for no cube, a damaged one, other data, other code or a layout that does not fit; `UserError` for no place for
    a file.
    """
    path = place_for(cubes, out, overwrite)
    # beside the file: the folder of temporary files may be too small for what the disk of the results holds
    with folder_for(path), tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch, ExitStack() as files:
        parts: list[_Part] = []
        for number, cube in enumerate(cubes):
            cube.require_records("its runs cannot be told from lost ones; leave it out, or compute it again")
            small = pack(cube.path, Path(scratch) / f"{number}{ENDING}").path
            part = _Part(cube.path, Cube(small, read_only=True), files.enter_context(zipfile.ZipFile(small)))
            for earlier in parts:
                _check(earlier, part)
            parts.append(part)
        base = max(parts, key=lambda p: len(p.cube.run_dims[SEED]))
        root = _root(base, parts)
        owners = _owners(base, parts)
        runs = tuple(sum(owner is p and begun for owner, begun in owners.values()) for p in parts)
        return Joined(write(path, _files(base, parts, owners, root), root, _PLAIN, base.path), runs)


def _check(one: _Part, part: _Part) -> None:
    """Raise `CubeError` for a cube whose runs do not fit into those of another one."""
    here, there = one.root["attributes"], part.root["attributes"]
    for name in sorted((here.keys() | there.keys()) - _OWN):
        if here.get(name) != there.get(name):
            what = {"data": "other data", "modhook_format": "another format"}.get(name, f"another {name}")
            raise CubeError(f"{part.path} was computed with {what} than {one.path}; only cubes of one study can be joined.")
    if changed := exchanged(here, there):
        raise CubeError(f"{part.path} was computed with other {changed[0]} than {one.path}; only runs that share it can be joined.")
    for dim, labels in one.cube.run_dims.items():
        own = part.cube.run_dims[dim]
        most = min(len(labels), len(own)) if dim == SEED else max(len(labels), len(own))
        if own[:most] != labels[:most]:
            raise CubeError(f"{part.path} has other labels of {dim} than {one.path}; only cubes of one study can be joined.")
    for name in sorted(one.nodes.keys() & part.nodes.keys()):
        if shape_of(one.nodes[name]) != shape_of(part.nodes[name]):
            raise CubeError(_unlike(name, part, one))


def _unlike(name: str, part: _Part, one: _Part) -> str:
    return (
        f"{name} has another size, type, description or other labels in {part.path} than in {one.path}; give both the same controls and "
        "options of analyses, and compute both with one version of modhook."
    )


def _root(base: _Part, parts: Sequence[_Part]) -> dict[str, Any]:
    """Return the root document: the base's, with the variables that only others have, for all seeds."""
    root = copy.deepcopy(base.root)
    listed, attributes = root["consolidated_metadata"]["metadata"], root["attributes"]
    seeds = len(base.cube.run_dims[SEED])
    for part in parts:
        for name, node in part.nodes.items():
            if name not in listed:
                listed[name] = copy.deepcopy(node)
                if seeds_first(node):
                    listed[name]["shape"][0] = seeds
    for section in ("analyses", "controls"):
        united = {k: v for p in parts for k, v in p.root["attributes"]["study"].get(section, {}).items()}
        if united:
            attributes["study"][section] = united
    if versions := versions_of(p.root["attributes"] for p in parts):
        attributes["versions"] = versions
    for name in BY_NAME:
        if united := {k: v for p in parts for k, v in p.root["attributes"].get(name, {}).items()}:
            attributes[name] = united
    # in zarr's own order: it finds nothing in a group whose members are not listed side by side
    root["consolidated_metadata"]["metadata"] = dict(sorted(listed.items(), key=lambda item: (item[0].count("/"), item[0].casefold())))
    return root


def _owners(base: _Part, parts: Sequence[_Part]) -> dict[Index, tuple[_Part, bool]]:
    """Return from which cube each run is taken, and whether it was begun there."""
    found = {}
    for at in base.ledger.runs():
        have = [(p, _progress(p, at)) for p in parts if at[0] < len(p.cube.run_dims[SEED])]
        owner, progress = max(have, key=lambda one: one[1])
        found[at] = owner, any(progress)
    return found


def _progress(part: _Part, at: Index) -> tuple[int, int, int]:
    """Return how many stages and how many analyses of a run are done, and how many of both are not pending: done or failed."""
    run, cube = part.ledger.labels(at), part.cube
    stages = [cube.status(run, str(s)) for s in cube.labels("runs/status")["stage"]]
    states = [int(cube.read(n, run)) for n in cube.variables if part.ledger.marks(n) and n != "runs/status"]
    return stages.count("done"), states.count(1), len(stages) - stages.count("pending") + len(states) - states.count(0)


def _files(
    base: _Part, parts: Sequence[_Part], owners: Mapping[Index, tuple[_Part, bool]], root: dict[str, Any]
) -> Iterator[tuple[str, bytes]]:
    """Yield every file but the root, in a pack's order."""
    sources: dict[str, tuple[_Part, str]] = {}
    for part in parts:
        for key in part.file.namelist():
            found = CHUNK.fullmatch(key)
            name = found["array"] if found else ""
            if not name or name.rpartition("/")[2] == SEED:
                continue
            if (at := part.ledger.owner(name, key)) is not None:
                if owners[at][0] is part:
                    sources[key] = part, key
            elif key in sources and sources[key][0].file.read(key) != part.file.read(key):
                raise CubeError(_unlike(name, part, sources[key][0]))
            else:
                sources.setdefault(key, (part, key))
    # The seeds of every group are those of the base, also of one that the base does not have.
    seeds = [n.rpartition("/")[2] for n in base.file.namelist() if n.startswith(f"{SEED}/c/")]
    for name in nodes_of(root) or {}:
        if name.rpartition("/")[2] == SEED:
            sources.update({f"{name}/c/{number}": (base, f"{SEED}/c/{number}") for number in seeds})
    for key in sorted(sources, key=in_order):
        part, source = sources[key]
        yield key, part.file.read(source)
    yield from metadata_files(root)
