"""What `ask` returns: the cube, read as masks, scores and the report."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from modhook.asking import shown
from modhook.asking.names import normal
from modhook.asking.place import Home
from modhook.asking.task import Question
from modhook.cube import Where, done, masks_from, open_cube
from modhook.errors import CubeError, DamageError, MissingNameError, UserError, listing, missing
from modhook.findings import VERDICTS, Finding, compared, has_controls, judge, measured, thresholds_of, verdict
from modhook.masks.parts import parts
from modhook.plugin.manager import plugins
from modhook.plugin.offered import offering
from modhook.values import arguments

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from modhook.masks import Masks


class Answer:
    """The answer to a question, read from its cube when it is looked at.

    Attributes:
        path: the cube. One that `ask` made in a temporary folder is deleted with the answer, and its report with it.
        where: the same for people: a temporary folder's name says nothing.
        functions: what was asked for.
        failed: one line per stage or analysis that failed: run, stage and reason.
        off: what weights become that masks do not keep, as `Masks.applied_to`, `materialize` and `export.checkpoint` take it, with
            `seed=` the mask's own; None: zero.
    """

    def __init__(
        self,
        home: Home,
        question: Question,
        thresholds: Mapping[str, float] | None,
        failed: tuple[str, ...] = (),
        seeds: int | None = None,
    ) -> None:
        self.path: Where = home.path
        self.where = "in a temporary folder, until the answer is gone" if home.temporary else str(home.path)
        self.functions = tuple(question.batches)
        self.failed = failed
        self._question, self._thresholds = question, thresholds_of(thresholds)
        self._seeds = seeds
        self.off: str | Mapping[str, Tensor] | None = None if question.off == "zero" else question.off
        self._kept, self._temporary = _Kept(), home.temporary
        if home.temporary:
            weakref.finalize(self._kept, home.discard)

    @cached_property
    def cube(self) -> xr.DataTree:
        """The whole cube, as `modhook.open_cube` opens it."""
        return open_cube(self.path)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that were asked for; the cube may hold more, of a call before."""
        every = (int(seed) for seed in np.asarray(self.cube["runs"].coords["seed"]))
        return tuple(seed for seed in every if self._seeds is None or seed <= self._seeds)

    @property
    def untested(self) -> tuple[str, ...]:
        """The functions without held-out tests, which are measured on what their masks were learned on."""
        tests = self.cube.attrs["study"]["task"]["tests"]
        return tuple(name for name in self.functions if name not in tests)

    @cached_property
    def masks(self) -> MaskTable:
        """The masks: `answer.masks["vowels", 1]`, of every function and seed that is done."""
        return MaskTable(self)

    @cached_property
    def scores(self) -> xr.DataArray:
        """The scores (seed, stage, split, metric), float64, NaN where a run is not done.

        Stages are `unmasked` and the functions (under the mask of each), splits the functions' tests. `.to_dataframe()` has one
        row per number, in the column `value`.
        """
        group, metrics = self.cube["scores"].to_dataset(), list(self._question.metrics)
        names = xr.DataArray(np.array(metrics, dtype=object), dims="metric", name="metric")
        found = xr.concat([group[m].drop_attrs() for m in metrics], names)
        asked = found.sel(seed=list(self.seeds))
        return asked.transpose("seed", "stage", "split", "metric").rename("value").load()

    @cached_property
    def parts(self) -> xr.Dataset:
        """How many weights every subset of the functions keeps alone and together, beside chance: `modhook.parts` over `seed`.

        Seeds in which not every function is done are left out. Raises `UserError` without any, and for more than ten functions.
        """
        whole = [seed for seed in self.seeds if all((name, seed) in self.masks for name in self.functions)]
        if not whole:
            raise UserError("no seed has the masks of all functions; ask again to compute what is missing.")
        each = [parts({name: self.masks[name, seed] for name in self.functions}) for seed in whole]
        return xr.concat(each, xr.DataArray(whole, dims="seed", name="seed"))

    @cached_property
    def compared(self) -> xr.Dataset:
        """Each function's mask beside its controls: `modhook.compared`. Raises `UserError` without controls."""
        return compared(self.cube, self._question.metrics[0], self.seeds)

    @property
    def has_controls(self) -> bool:
        """Whether there is something that `compared` shows."""
        return has_controls(self.cube)

    @cached_property
    def _judged(self) -> dict[str, list[Finding]]:
        each = measured(self.cube, self._question.metrics[0], self.seeds)
        return {one.function: judge(one, self._thresholds, each) for one in each}

    @property
    def verdicts(self) -> dict[str, dict[str, str]]:
        """What can be said of each function: {function: {"sufficient": "yes", "no" or "cannot tell", "necessary": ..., "specific": ...,
        "real": ..., "stable": ..., "settled": ...}}. `findings` has the numbers; docs/ask.md says how they are judged."""
        return {name: {v: verdict(found, v) for v in VERDICTS} for name, found in self._judged.items()}

    @property
    def findings(self) -> pd.DataFrame:
        """The numbers behind the verdicts, one row per comparison: function, verdict, measure, answer, value, reference, low, high (the
        interval over seeds), n (seeds), p (exact, one-sided; NaN where there is none), threshold, words."""
        import attrs
        import pandas as pd

        rows = [attrs.asdict(finding) for found in self._judged.values() for finding in found]
        return pd.DataFrame(rows, columns=[f.name for f in attrs.fields(Finding)])

    def report(self, out: str | Path | None = None) -> Path:
        """Write the HTML report, by default beside the cube, and return its path. Raises `UserError` if it cannot be written."""
        from modhook.report import write_report

        with self._drawing():
            return write_report(self.path, None if out is None else Path(out), plugins())

    def __repr__(self) -> str:
        return shown.lines(self, self._judged)

    def _repr_html_(self) -> str:
        with self._drawing():
            return shown.page(self, self._judged, plugins())

    @contextlib.contextmanager
    def _drawing(self) -> Iterator[None]:
        """Within it what was asked is known by its names. Errors that are swallowed while text is set hold the frames that led there, and
        these the answer, until garbage is collected: a temporary cube would outlive it."""
        with offering(self._question.offers()):
            yield
        if self._temporary:
            gc.collect()


class _Kept:
    """Whoever holds it needs the cube: a temporary one goes with the last of them."""


class MaskTable(Mapping[tuple[str, int], "Masks"]):
    """Masks by function and seed, read when they are asked for."""

    def __init__(self, answer: Answer) -> None:
        # Not the answer itself, which holds this table: only the collector of garbage would find that nobody holds the two.
        self._path, self._functions, self._seeds, self._kept = answer.path, answer.functions, answer.seeds, answer._kept
        finished = done(answer.cube)
        self._keys = [
            (name, seed) for name in self._functions for seed in self._seeds if bool(finished.sel(seed=seed, stage=name))
        ]

    def __getitem__(self, key: Any) -> Masks:
        if not isinstance(key, tuple) or len(key) != 2:
            raise MissingNameError(
                f"masks are found by function and seed, answer.masks[{self._functions[0]!r}, 1], not by {arguments.shown(key)}."
            )
        name, seed = normal(key[0]), key[1]
        if name not in self._functions:
            raise missing("no function was asked for that is called", name, self._functions)
        try:
            return masks_from(self._path, seed, name)
        except DamageError:
            raise
        except CubeError as error:  # a seed that is not there or not done: of a mapping, a key that it does not have
            raise MissingNameError(str(error)) from None

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"masks of {listing(self._functions)} for the seeds {listing(map(str, self._seeds))}"
