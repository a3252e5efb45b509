"""The cube as its writer sees it: one run, and usually one stage, at a time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from zarr.core.sync import sync

from modhook.cube import grow
from modhook.cube.contents import Contents, Run
from modhook.cube.ledger import VARIABLE as RECORD
from modhook.cube.ledger import Damage, Index
from modhook.cube.place import Where
from modhook.cube.plan import STATUSES
from modhook.cube.values import fitted
from modhook.errors import CubeError
from modhook.plugin.variables import Variable

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer

Status = Literal["pending", "done", "failed"]
# Readable at any time: they say what else may be read, or are floats by nature.
_ALWAYS = ("runs", "timing")


class Cube(Contents):
    """A cube in its store. `create` and `open_for_writing` return one; it holds no lock and no open file.

    Processes may write different runs, or different stages of one run, at the same time. A run is named by its labels,
    `{"seed": 3, "masks.beta": 1e-5}`.
    """

    def __init__(self, path: Where, *, read_only: bool = False) -> None:
        super().__init__(path, read_only=read_only)
        self._journal: dict[Index, dict[str, str]] = {}
        """Digests of what was written of a run since the last stage or analysis that was recorded."""
        self._found = False
        """Whether the place was asked for the cube since a stage or an analysis was last marked."""

    def __repr__(self) -> str:
        return f"Cube({str(self.path)!r}, {' x '.join(f'{d}: {len(v)}' for d, v in self.run_dims.items())})"

    # -- values

    def write(self, name: str, value: Any, run: Run, **labels: Any) -> None:
        """Write one variable of one run.

        Args:
            name: the declared variable, `"scores/accuracy"`.
            value: an array over the variable's own dimensions, in order, without those fixed by `labels`.
            run: the run's labels, all of them; empty for a variable that is not per run.
            labels: labels of own dimensions, `stage="add"`.

        Raises:
            CubeError: an unknown variable or label, a shape or type other than declared, or a write that would touch a
                chunk which holds another run's or stage's values too.
        """
        array = self._array(name)
        where, shape = self._region(name, array, run, labels)
        for axis, (index, chunk) in enumerate(zip(where, array.chunks, strict=True)):
            if isinstance(index, int) and chunk != 1:
                raise CubeError(
                    f"{name} cannot be written at one {self._dims(name, array)[axis]} alone: a chunk holds {chunk} of them, "
                    "and writers of the others would lose values; write that dimension in full."
                )
        fit = fitted(value, self._dtype(array), shape, name)
        if fit.size:
            marks = self._store.ledger.marks(name)
            if marks or not self._found:
                self.still_there()
            array[where] = fit
            self._found = not marks
            self._note(name, where)

    def put(self, key: str, value: Buffer) -> None:
        """Write one file of a run as it lies in another cube of the same layout; `adopt` records it."""
        sync(self._store.set(key, value))
        self._store.written.clear()

    def read(self, name: str, run: Run, **labels: Any) -> NDArray[Any]:
        """Read one variable of one run; text as object strings.

        Floats that were never written are NaN. Integers and text that were never written, or whose stage is not done,
        are an error, because they would read as 0. Raises `CubeError`, also for a damaged file.
        """
        array = self._array(name)
        where, _ = self._region(name, array, run, labels)
        if array.dtype.kind != "f" and name.split("/")[0] not in _ALWAYS:
            if "stage" in labels and "seed" in self._dims(name, array):
                self.require_done(run, labels["stage"])
            values = self._values(array, where)  # first: it says which done stage has lost what
            if not self.written(name, run, **labels):
                raise CubeError(f"{name} of {self._say(run, labels)} has not been written to {self.path}.")
            return values
        return self._values(array, where)

    def written(self, name: str, run: Run, **labels: Any) -> bool:
        """Return whether every part of a variable of one run is on disk. Raises `CubeError` for unknown names and labels."""
        array = self._array(name)
        where, shape = self._region(name, array, run, labels)
        if 0 in shape:
            return True
        grid = [
            [i // c] if isinstance(i, int) else range(-(-n // c))
            for i, n, c in zip(where, array.shape, array.chunks, strict=True)
        ]
        keys = [array.metadata.encode_chunk_key(tuple(int(i) for i in at)) for at in itertools.product(*grid)]
        return all(self._store.has(f"{name}/{key}") for key in keys)

    def still_there(self) -> None:
        """Raise `GoneError` if the cube was moved or deleted since it was opened; at a URL that takes one request.

        `write` asks before the first value of a stage or an analysis, and before the mark that it is done or failed: in a
        bucket a write makes again what is gone, and the next command would find neither a cube nor an empty place.
        """
        self._place.still_there(request=True)

    # -- state of the runs

    def status(self, run: Run, stage: str) -> Status:
        """Return how far a stage is. Raises `CubeError` for unknown labels."""
        code = int(self.read("runs/status", run, stage=stage))
        if code >= len(STATUSES):
            raise CubeError(f"{self.path} is damaged: runs/status of {self._say(run, {'stage': stage})} is {code}.")
        return cast("Status", STATUSES[code])

    def set_status(
        self, run: Run, stage: str, status: Status, reason: str = "", route: str = "", threads: int = 0
    ) -> None:
        """Say how far a stage is, why it failed, how it was computed.

        The status itself is written last, and before it, for a stage that is done, the record of what was written of this run
        since the last one.
        """
        if status not in STATUSES:
            raise CubeError(f"unknown status {status!r}; valid: {', '.join(STATUSES)}.")
        if status != "done":
            self.forget(run, [stage])
        self.write("runs/reason", reason, run, stage=stage)
        self.write("runs/route", route, run, stage=stage)
        self.write("runs/threads", threads, run, stage=stage)
        if status == "done":
            self.remember(run, stage)
        self.write("runs/status", STATUSES.index(status), run, stage=stage)

    def reason(self, run: Run, stage: str) -> str:
        """Return why a stage failed; empty if it did not."""
        return str(self.read("runs/reason", run, stage=stage).item())

    def require_done(self, run: Run, stage: str) -> None:
        """Raise `CubeError` unless a stage of a run is done."""
        state = self.status(run, stage)
        if state != "done":
            reason = self.reason(run, stage)
            why = f" ({reason})" if reason else ""
            raise CubeError(
                f"stage {stage!r} of {self._say(run, {})} in {self.path} is {state}{why}; run the study to its end first."
            )

    # -- the record of what was written

    @property
    def recorded(self) -> bool:
        """Whether the cube keeps records of what each stage wrote; those of older versions do not."""
        return self._store.ledger.active

    def require_records(self, then: str) -> None:
        """Raise `CubeError`, which ends with what follows from that (`then`), for a cube of an older version without records."""
        if not self.recorded:
            raise CubeError(f"{self.path} was written by an older version, which kept no record of what each stage wrote: {then}.")

    def remember(self, run: Run, name: str, *, analysis: bool = False) -> None:
        """Record what was written of a run since the last call as what stage (or analysis) `name` wrote."""
        at = self._index(run)
        entries = self._journal.pop(at, {})
        if self.recorded:
            old = self._store.ledger.record(at, fresh=True)
            stages, analyses = dict(old.stages), dict(old.analyses)
            (analyses if analysis else stages)[name] = entries
            self._write_record(run, at, stages, analyses)

    def adopt(self, run: Run, stages: Mapping[str, Mapping[str, str]]) -> None:
        """Record what was `put` as what these stages wrote, beside what the run has of analyses, and mark them done."""
        at = self._index(run)
        self._journal.pop(at, None)
        old = self._store.ledger.record(at, fresh=True)
        self._write_record(run, at, {**old.stages, **stages}, old.analyses)
        for stage in stages:
            self.write("runs/status", STATUSES.index("done"), run, stage=stage)

    def forget(self, run: Run, stages: Sequence[str] = (), analyses: Sequence[str] = ()) -> None:
        """Take stages and analyses that are to be computed (again) out of a run's record.

        A stage that is marked done becomes pending first, so that no moment shows it done without its record.
        """
        at = self._index(run)
        self._journal.pop(at, None)
        if not self.recorded:
            return
        old = self._store.ledger.record(at, fresh=True)
        for stage in stages:
            if stage in old.stages and self._store.ledger.code(at, stage) == STATUSES.index("done"):
                self.write("runs/status", STATUSES.index("pending"), run, stage=stage)
        for name in analyses:
            if name in old.analyses:
                self.write(f"runs/{name}", np.uint8(0), run)
        kept = {n: e for n, e in old.stages.items() if n not in stages}
        others = {n: e for n, e in old.analyses.items() if n not in analyses}
        if (kept, others) != (dict(old.stages), dict(old.analyses)) or old.fault:
            self._write_record(run, at, kept, others)

    def runs(self) -> list[dict[str, Any]]:
        """Return the labels of every run, seeds outermost."""
        return [dict(zip(self.run_dims, at, strict=True)) for at in itertools.product(*self.run_dims.values())]

    def survey(self, run: Run) -> list[Damage]:
        """Read every file of a run, and return what is damaged of its stages and analyses that are marked done.

        Empty for a cube without records (`recorded`). Raises `CubeError` for unknown labels, `StorageError`.
        """
        return self._store.ledger.survey(self._index(run))

    def reset(self, run: Run, stages: Sequence[str], analyses: Sequence[str]) -> None:
        """Make stages and analyses pending, and delete the files that they alone wrote, so that nobody reads those any more.

        All files of the run are deleted where its record cannot be used.
        """
        at, ledger = self._index(run), self._store.ledger
        record = ledger.record(at, fresh=True)
        for stage in stages:
            self.write("runs/status", STATUSES.index("pending"), run, stage=stage)
        for name in analyses:
            self.write(f"runs/{name}", np.uint8(0), run)
        self.forget(run, stages, analyses)
        left = ledger.record(at, fresh=True)
        if record.fault or not record.there:
            keys = ledger.files(at)
        else:
            sections = [record.stages.get(s, {}) for s in stages] + [record.analyses.get(a, {}) for a in analyses]
            keys = [key for section in sections for key in section]
        for key in dict.fromkeys(keys):
            if not left.owners(key) and self._store.has(key):
                sync(self._store.delete(key))

    # -- growing

    def add_variables(
        self,
        variables: Iterable[Variable],
        labels: Mapping[str, Mapping[str, Sequence[Any]]] | None = None,
        sizes: Mapping[str, Mapping[str, int]] | None = None,
        stages: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        """Lay out further variables, under the writer's lock; those that are there already are checked and left alone.

        After a crash the cube opens as before, and the same call again completes it. Arguments as in `Plan`; labels of
        groups that are there need not be given again. `stages`: further stages of groups that are there, {group: stages}; those
        that it has keep their places. Raises `CubeError`, also for a variable with other dimensions, type or labels.
        """
        grow.add_variables(self._place, tuple(variables), labels or {}, sizes or {}, stages)
        self._load()

    def grow_seeds(self, n: int) -> None:
        """Extend the cube to seeds 1..n, under the writer's lock. After a crash the same call again completes it.

        Raises `CubeError` for fewer seeds than there are.
        """
        grow.grow_seeds(self._place, n)
        self._load()

    def set_attrs(self, **attrs: Any) -> None:
        """Replace attributes of the root, under the writer's lock. Raises `CubeError` for what is not plain JSON."""
        grow.set_attrs(self._place, attrs)
        self._load()

    # -- inside

    def _note(self, name: str, where: tuple[Any, ...]) -> None:
        """Keep the digests of what was just written for the record of the run, and correct that of what is done."""
        new = {k: d for k, d in self._store.written.items() if k.startswith(f"{name}/c/")}
        self._store.written.clear()
        ledger = self._store.ledger
        if not ledger.records(name):
            return
        at = tuple(int(i) for i in where[: len(self.run_dims)])
        self._journal.setdefault(at, {}).update(new)
        old = ledger.record(at)
        if any(told != new[key] for key in new for _, told in old.owners(key)):
            run = {d: v[i] for (d, v), i in zip(self.run_dims.items(), at, strict=True)}
            self._write_record(run, at, _corrected(old.stages, new), _corrected(old.analyses, new))

    def _write_record(
        self, run: Run, at: Index, stages: Mapping[str, Mapping[str, str]], analyses: Mapping[str, Mapping[str, str]]
    ) -> None:
        table = {"run": self._store.ledger.labels(at), "stages": stages, "analyses": analyses}
        self.write(RECORD, json.dumps(table, sort_keys=True, separators=(",", ":")), run)
        self._store.ledger.record(at, fresh=True)


def _corrected(sections: Mapping[str, Mapping[str, str]], new: Mapping[str, str]) -> dict[str, dict[str, str]]:
    return {name: {k: new.get(k, d) for k, d in entries.items()} for name, entries in sections.items()}


def open_for_writing(path: Where) -> Cube:
    """Open a cube for writing, at a path or a URL. Raises `CubeError` for one that is missing, damaged, or no cube."""
    return Cube(path)
