"""What every finished stage and analysis wrote, so that files that are lost or exchanged are noticed.

A file of values carries a checksum, but that fits as well where the file lies in the place of another one; and zarr reads
a file that is not there as fill values. So each run has a record, the text `runs/digest`: JSON with the labels of the run and, for
each finished stage and analysis, a digest of every file that it wrote, over the file's place and its bytes. The record is written
before the stage is marked done. `timing` is left out, so that the records of two equal runs are equal.

What is read is compared with the record of its run; nothing else is read for that. Cubes of older versions have no records.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import attrs
import google_crc32c
import numpy as np
from numcodecs import zstd  # type: ignore[import-untyped]

from modhook.cube.metadata import nodes_of
from modhook.cube.place import Place
from modhook.errors import DamageError

VARIABLE = "runs/digest"
STATUS = "runs/status"
DONE = 1
Index = tuple[int, ...]
"""Position of a run along each of the run's dimensions."""
Entries = dict[str, str]
"""Digest by file."""


def digest(key: str, data: bytes) -> str:
    """Return the digest of a file at its place."""
    found = hashlib.blake2b(f"{key}\n".encode(), digest_size=8)
    found.update(data)
    return found.hexdigest()


@attrs.frozen
class Record:
    """The record of one run; `fault` says why it cannot be used, `there` whether it exists at all."""

    stages: Mapping[str, Entries] = attrs.field(factory=dict)
    analyses: Mapping[str, Entries] = attrs.field(factory=dict)
    fault: str = ""
    there: bool = True

    def owners(self, key: str) -> list[tuple[str, str]]:
        """Return (who, digest) for each stage and analysis that wrote a file."""
        stages = [(f"stage {n!r}", e[key]) for n, e in self.stages.items() if key in e]
        return stages + [(f"analysis {n!r}", e[key]) for n, e in self.analyses.items() if key in e]


@attrs.frozen
class Damage:
    """What is wrong with a stage (or an analysis) of a run that is marked done: `text` says it, the run included."""

    name: str
    text: str
    analysis: bool = False


class Ledger:
    """The records of one cube, read when they are needed."""

    def __init__(self, place: Place, document: Mapping[str, Any]) -> None:
        self.place = place
        self._nodes = nodes_of(dict(document)) or {}
        self.dims = [str(d) for d in document["attributes"]["modhook_run_dims"]]
        self.active = VARIABLE in self._nodes
        """Whether this cube keeps records."""
        self._per_run = {n for n, node in self._nodes.items() if self._of_a_run(n, node)} - {VARIABLE}
        self._known: dict[Index, Record] = {}
        self._labels: dict[tuple[str, int], list[Any]] = {}
        """Labels by coordinate and file of it: what is there keeps its place."""

    # -- places

    def run_of(self, array: str, key: str) -> Index | None:
        """Return the run that a file of values belongs to; None for what is no run's, or is not recorded."""
        return None if array.startswith("timing/") or array == VARIABLE else self.owner(array, key)

    def owner(self, array: str, key: str) -> Index | None:
        """Return the run that a file belongs to, recorded or not, the record itself included; None for what is no run's."""
        if array not in self._per_run and array != VARIABLE:
            return None
        return tuple(int(i) for i in key[len(array) + 3 :].split("/")[: len(self.dims)])

    def say(self, run: Index) -> str:
        """Return a run for people: `seed=3, masks.beta=1e-05`."""
        return ", ".join(f"{k}={v}" for k, v in self.labels(run).items())

    def labels(self, run: Index) -> dict[str, Any]:
        """Return the labels of a run."""
        found = {}
        for dim, i in zip(self.dims, run, strict=True):
            found[dim] = _at(self._coordinate(dim, i // 1024), i % 1024, i)
        return found

    def runs(self) -> Iterator[Index]:
        """Yield every run of the cube, seeds outermost."""
        shape = self._nodes.get(VARIABLE, {}).get("shape", [])
        yield from (tuple(int(i) for i in at) for at in np.ndindex(*shape))

    # -- records

    def record(self, run: Index, fresh: bool = False) -> Record:
        """Return the record of a run; with `fresh` as it is on disk now."""
        if fresh or run not in self._known:
            self._known[run] = self._read(run)
        return self._known[run]

    def fault(self, array: str, key: str, data: bytes | None, fresh: bool) -> str | None:
        """Return what is wrong with a file of a run as it was read (None: it is not there), or None if nothing is."""
        run = self.run_of(array, key)
        if run is None:
            return None
        record = self.record(run, fresh)
        if record.fault:
            return record.fault
        if self.marks(array):
            stage = array.rpartition("/")[2] if array != STATUS else self._stage(key)
            known = record.stages if array == STATUS else record.analyses
            return self._without(run, stage) if _number(data) == DONE and stage not in known else None
        if not record.there:
            done = self._done(run)
            return self._without(run, done[0]) if done else None
        owners = record.owners(key)
        if not owners:
            return None
        who = f"{owners[0][0]} of {self.say(run)}"
        if data is None:
            return f"{who} is marked done, but its file {key} is missing"
        if digest(key, data) not in [told for _, told in owners]:
            return f"{who} is marked done, but its file {key} is not the one that it wrote"
        return None

    def survey(self, run: Index) -> list[Damage]:
        """Read every file of a run, and return what is wrong with what is marked done."""
        if not self.active:
            return []
        record, found = self.record(run, fresh=True), []
        statuses = {stage: self._raw(self._status_key(run, n)) for n, stage in enumerate(self._stages())}
        states = {n.rpartition("/")[2]: self._raw(_key(n, run)) for n in sorted(self._per_run) if self._is_state(n)}
        for analysis, sections, marks in ((False, record.stages, statuses), (True, record.analyses, states)):
            for name, data in marks.items():
                what = f"{'analysis' if analysis else 'stage'} {name!r} of {self.say(run)}"
                if data is not None and not sound(data):
                    found.append(Damage(name, f"how far {what} is cannot be read", analysis))
                elif _number(data) != DONE:
                    continue
                elif record.fault or name not in sections:
                    found.append(Damage(name, record.fault or self._without(run, name), analysis))
                elif text := self._first_fault(record, what, sections[name]):
                    found.append(Damage(name, text, analysis))
        return found

    def _first_fault(self, record: Record, what: str, entries: Entries) -> str:
        for key in entries:
            data = self._raw(key)
            if data is None:
                return f"{what} is marked done, but its file {key} is missing"
            if digest(key, data) not in [told for _, told in record.owners(key)]:
                return f"{what} is marked done, but its file {key} is not the one that it wrote"
        return ""

    def records(self, array: str) -> bool:
        """Return whether the files of a variable stand in the records."""
        return (
            self.active
            and array in self._per_run
            and not (array.startswith("timing/") or self.marks(array))
        )

    def marks(self, array: str) -> bool:
        """Return whether a variable says how far a stage or an analysis is."""
        return array == STATUS or self._is_state(array)

    def code(self, run: Index, stage: str) -> int:
        """Return how far a stage is, whatever the record says: 0 pending, 1 done, 2 failed."""
        stages = [str(s) for s in self._stages()]
        return _number(self._raw(self._status_key(run, stages.index(stage)))) if stage in stages else 0

    def files(self, run: Index) -> list[str]:
        """Return the places of all recorded files that a run could have."""
        found = []
        for name in sorted(self._per_run):
            if self.records(name):
                node = self._nodes[name]
                chunks = node["chunk_grid"]["configuration"]["chunk_shape"]
                grid = [-(-n // c) for n, c in zip(node["shape"], chunks, strict=True)][len(run) :]
                found += ["/".join([_key(name, run), *map(str, at)]) for at in np.ndindex(*grid)]
        return found

    # -- inside

    def _of_a_run(self, name: str, node: Mapping[str, Any]) -> bool:
        """Return whether each run has its own files of an array; the coordinate `seed` has the run's dimension, too."""
        dims = _dims(node)
        return bool(self.dims) and dims[: len(self.dims)] == self.dims and dims != [name.rpartition("/")[2]]

    def _read(self, run: Index) -> Record:
        key = _key(VARIABLE, run)
        data = self._raw(key)
        if data is None:
            return Record(there=False)
        where = f"the record {key} of what {self.say(run)} wrote"
        try:
            if not sound(data):
                raise ValueError
            text = _texts(data)[0]
            table = json.loads(text) if text else {}
            stages, analyses = dict(table.get("stages", {})), dict(table.get("analyses", {}))
            if not all(isinstance(e, dict) for e in (*stages.values(), *analyses.values())):
                raise TypeError
        except (ValueError, TypeError, AttributeError, IndexError, RuntimeError, struct.error):
            return Record(fault=f"{where} cannot be read")
        if table and table.get("run") != self.labels(run):
            return Record(fault=f"{where} is that of another run")
        return Record(stages, analyses)

    def _done(self, run: Index) -> list[str]:
        """Return the stages that are marked done, whatever the record says."""
        return [s for n, s in enumerate(self._stages()) if _number(self._raw(self._status_key(run, n))) == DONE]

    def _without(self, run: Index, name: str) -> str:
        return f"{name!r} of {self.say(run)} is marked done, but the record of what it wrote ({_key(VARIABLE, run)}) is missing"

    def _is_state(self, array: str) -> bool:
        """Return whether a variable says how far an analysis is."""
        node = self._nodes.get(array, {})
        return array.startswith("runs/") and array != STATUS and node.get("data_type") == "uint8"

    def _status_key(self, run: Index, stage: int) -> str:
        return f"{_key(STATUS, run)}/{stage}"

    def _stage(self, key: str) -> str:
        number = int(key.rpartition("/")[2])
        return str(_at(self._stages(), number, number))

    def _stages(self) -> list[Any]:
        return self._coordinate("runs/stage", 0)

    def _coordinate(self, name: str, chunk: int) -> list[Any]:
        """Return the labels in one file of a coordinate; none where it cannot be read, which its own reader says."""
        if not self._labels.get((name, chunk)):
            self._labels[name, chunk] = self._coordinate_read(name, chunk)
        return self._labels[name, chunk]

    def _coordinate_read(self, name: str, chunk: int) -> list[Any]:
        data, kind = self._raw(f"{name}/c/{chunk}"), self._nodes.get(name, {}).get("data_type")
        size = (self._nodes.get(name, {}).get("shape") or [0])[0]
        if data is None or not sound(data):
            return []
        try:
            values = _texts(data) if kind not in ("int64", "float64") else _numbers(data, str(kind))
        except (ValueError, RuntimeError, struct.error):
            return []
        return values[: max(0, size - 1024 * chunk)]

    def _raw(self, key: str) -> bytes | None:
        self.place.guard(key)
        try:
            return self.place.read(key)
        except (FileNotFoundError, NotADirectoryError):
            return None


def damaged(place: Place, text: str) -> DamageError:
    """Return the error that says what was found, and what mends it."""
    return DamageError(f"{place} is damaged: {text}; {place.mend_run}.")


def without(data: bytes, arrays: Collection[str]) -> bytes:
    """Return the bytes of a record without the files of some variables."""
    found = _texts(data)
    for at, text in enumerate(found):
        table = json.loads(text) if text else {}
        for sections in (table.get("stages", {}), table.get("analyses", {})):
            for name, entries in sections.items():
                sections[name] = {key: told for key, told in entries.items() if key.rpartition("/c/")[0] not in arrays}
        found[at] = json.dumps(table, sort_keys=True, separators=(",", ":")) if table else text
    parts = [struct.pack("<I", len(found))]
    parts += [struct.pack("<I", len(raw)) + raw for text in found for raw in [text.encode()]]
    packed: bytes = zstd.compress(b"".join(parts), 3)
    return packed + int(google_crc32c.value(packed)).to_bytes(4, "little")


def _key(array: str, run: Index) -> str:
    return f"{array}/c/{'/'.join(map(str, run))}"


def _dims(node: Mapping[str, Any]) -> list[Any]:
    found = node.get("dimension_names")
    return found if isinstance(found, list) else []


def _at(values: list[Any], i: int, otherwise: Any) -> Any:
    return values[i] if i < len(values) else otherwise


# Files as modhook writes them: zstd, and then the CRC-32C of what that gave.


def sound(data: bytes) -> bool:
    """Return whether the CRC-32C at the end of a file fits."""
    return len(data) > 4 and google_crc32c.value(data[:-4]).to_bytes(4, "little") == data[-4:]


def _number(data: bytes | None) -> int:
    """Return the one byte of a file; 0 if there is none or it is damaged, which its own reader says."""
    return int(zstd.decompress(data[:-4])[0]) if data is not None and sound(data) else 0


def _numbers(data: bytes, kind: str) -> list[Any]:
    found: list[Any] = np.frombuffer(zstd.decompress(data[:-4]), dtype=np.dtype(kind).newbyteorder("<")).tolist()
    return found


def _texts(data: bytes) -> list[str]:
    plain = bytes(zstd.decompress(data[:-4]))
    (count,), at, found = struct.unpack_from("<I", plain), 4, []
    for _ in range(count):
        (size,) = struct.unpack_from("<I", plain, at)
        found.append(plain[at + 4 : at + 4 + size].decode())
        at += 4 + size
    return found
