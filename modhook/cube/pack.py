"""Packs a cube into one small zip file, which every reader opens: masks and results, without weights and logits.

The files of values go in as they are, compressed already and eight weights of a mask to the byte, so that their checksums and the
records of the runs still hold; only the records' entries of what is left out are taken out. The same cube gives the same bytes.
"""

from __future__ import annotations

import contextlib
import copy
import json
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from attrs import frozen
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from modhook.cube.cube import Cube
from modhook.cube.ledger import VARIABLE as RECORD
from modhook.cube.ledger import without
from modhook.cube.metadata import CHECKSUM, checksum, nodes_of
from modhook.cube.packed import ENDING, PACKED, ROOT, of_files
from modhook.cube.place import Where, reason
from modhook.cube.store import CHUNK, CheckedStore
from modhook.cube.where import beside
from modhook.errors import DamageError, UserError

_TIME = (1980, 1, 1, 0, 0, 0)
_UNIX = 3


@frozen
class Pack:
    """What was packed."""

    path: Path
    size: int
    """Bytes."""
    done: int
    """Stages that are done, and below all of them."""
    stages: int
    without: tuple[str, ...]
    """What was left out: `weights`, `logits`."""


def pack(
    cube: Where, out: Path | None = None, *, weights: bool = False, logits: bool = False, overwrite: bool = False
) -> Pack:
    """Pack a cube, finished or not, into one zip file.

    Args:
        cube: the cube's path or URL, or one that is packed.
        out: the file, which ends in `.zip`; None: the cube's name beside it, `results/scan.zip`.
        weights, logits: whether to keep the trained weights and the logits of the masks.
        overwrite: whether a file that is there is replaced.

    Raises:
        CubeError: no cube, a damaged one, or one that is written faster than it is read. UserError: no place for a file, one that is
            taken, or weights and logits that the cube does not have.
    """
    opened = Cube(cube, read_only=True)
    path = place_for([opened], beside(cube, ENDING) if out is None else out, overwrite)
    kinds = tuple(k for k, keep in (("weights", weights), ("logits", logits)) if not keep)
    store = opened._store
    nodes = nodes_of(store.document) or {}
    told = opened.attrs.get(PACKED)
    gone = set(told.get("without", ())) if isinstance(told, dict) else set()
    if lost := [k for k in ("weights", "logits") if k in gone and k not in kinds]:
        raise UserError(f"{opened.path} was packed without {lost[0]}, so they cannot be kept; pack the cube itself.")
    dropped = {n for n in nodes if _kind(n) in kinds}
    root = copy.deepcopy(store.document)
    for name in dropped:
        del root["consolidated_metadata"]["metadata"][name]
    with folder_for(path):
        return write(path, chain(_values(store, nodes, dropped), metadata_files(root)), root, kinds, opened.path)


def write(path: Path, files: Iterable[tuple[str, bytes]], root: dict[str, Any], kinds: tuple[str, ...], source: Where) -> Pack:
    """Write a packed cube, the root's file last, compare it with its records, and put it in its place.

    Args:
        path: the file, of which something may be there.
        files: every other file, in order.
        root: the root document, which gets the attribute `PACKED` and its checksum.
        kinds: what was left out.
        source: the cube, for messages.

    Raises:
        UserError: no place for the file. DamageError: files that do not fit their records.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with zipfile.ZipFile(partial, "w") as file:
            for key, data in files:
                _add(file, key, data)
            root["attributes"][PACKED] = {"without": list(kinds), "digest": of_files(file.infolist())}
            root["attributes"][CHECKSUM] = checksum(root)
            _add(file, ROOT, json.dumps(root, separators=(",", ":")).encode())
        _check(partial, source)
        partial.replace(path)
    except OSError as error:
        raise UserError(f"the cube cannot be packed to {path}: {reason(error)}; give another file.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    status = Cube(path, read_only=True)
    codes = [status.status(run, s) for run in status.runs() for s in map(str, status.labels("runs/status")["stage"])]
    return Pack(path, path.stat().st_size, codes.count("done"), len(codes), kinds)


def place_for(cubes: Iterable[Cube], path: Path, overwrite: bool) -> Path:
    """Return the file for a packed cube, after all that can be said against it."""
    path = path.absolute()
    if path.suffix != ENDING:
        raise UserError(f"a packed cube is a file that ends in {ENDING}, but {path} does not; give it that ending.")
    try:
        folder, taken, real = path.is_dir(), path.exists() or path.is_symlink(), path.resolve()
    except OSError as error:
        raise UserError(f"the cube cannot be packed to {path}: {reason(error)}; give another file.") from error
    if folder:
        raise UserError(f"the cube cannot be packed to {path}, which is a folder; name a file in it.")
    if any(isinstance(cube.path, Path) and cube.path.resolve() in real.parents for cube in cubes):
        raise UserError(f"the cube cannot be packed to {path}, which is inside the cube; name a file outside.")
    if taken and not overwrite:
        raise UserError(f"{path} exists already; name another file, or replace it with --overwrite.")
    return path


@contextlib.contextmanager
def folder_for(path: Path) -> Iterator[None]:
    """Make the folder of a file; what was made is removed again where no file came of it."""
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {path.parent} cannot be made: {reason(error)}; give another file.") from error
    try:
        yield
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):  # something else is in it by now
                folder.rmdir()
        raise


def _kind(name: str) -> str:
    """Return what a variable counts as: `weights`, also the integer buffers among them, `logits`, or nothing."""
    group, _, short = name.rpartition("/")
    if not group.startswith("masks/"):
        return ""
    return "weights" if short == "integers" else short


def _values(store: CheckedStore, nodes: dict[str, Any], dropped: set[str]) -> Iterator[tuple[str, bytes]]:
    """Yield every file of values, checked as it is read.

    How far each run is comes first: what is finished while the rest is read is not said to be. In the pack, names are sorted within
    both parts.
    """
    there = sorted(_listed(store))
    chunks = [key for key in there if (found := CHUNK.fullmatch(key)) and found["array"] in nodes.keys() - dropped]
    for key in sorted(chunks, key=in_order):
        value = sync(store.get(key, default_buffer_prototype()))
        if value is not None:
            data = value.to_bytes()
            yield key, without(data, dropped) if dropped and key.startswith(f"{RECORD}/") else data


def in_order(key: str) -> tuple[bool, str]:
    """Return what sorts the files of values in a pack."""
    return not key.startswith("runs/"), key


def metadata_files(root: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Yield the file of every node below the root."""
    for name, node in sorted((nodes_of(root) or {}).items()):
        told = {k: v for k, v in node.items() if k != "consolidated_metadata"}
        yield f"{name}/{ROOT}", json.dumps(told, sort_keys=True, separators=(",", ":")).encode()


def _listed(store: CheckedStore) -> list[str]:
    async def all_keys() -> list[str]:
        return [key async for key in store.list()]

    with store.place.failures("cannot be read: {reason}; check the connection and your permission."):
        return sync(all_keys())


def _add(file: zipfile.ZipFile, key: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(key, _TIME)
    entry.create_system, entry.external_attr = _UNIX, 0o644 << 16  # the same on every system
    # Values are compressed already.
    entry.compress_type = zipfile.ZIP_DEFLATED if key.rpartition("/")[2] == ROOT else zipfile.ZIP_STORED
    file.writestr(entry, data, compresslevel=9)


def _check(partial: Path, source: Where) -> None:
    """Compare every file with the record of its run, as it lies in the pack."""
    packed = Cube(partial, read_only=True)
    if damage := next((d for run in packed.runs() for d in packed.survey(run)), None):
        raise DamageError(
            f"{source} was written while it was packed, or has lost files: {damage.text}; pack it again, and if that does not "
            "help, compute it again with `modhook run STUDY --repair`."
        )
