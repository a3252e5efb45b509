"""What a table is: cells with labels, made from the values of all seeds."""

from __future__ import annotations

import itertools
from typing import Any

import attrs
import numpy as np
import xarray as xr


@attrs.frozen
class Cell:
    """Mean and standard deviation (n - 1) over the n seeds that have a value, in the variable's own unit."""

    mean: float
    deviation: float
    count: int
    percent: bool

    def text(self, plus_minus: str = "±", missing: str = "-") -> str:
        """Return it for people, in percent where it is a share of items: `84.2 ± 0.3`."""
        scale, digits = (100, 1) if self.percent else (1, 3)
        if not self.count:
            return missing
        mean = f"{scale * self.mean:.{digits}f}"
        return mean if self.count == 1 else f"{mean} {plus_minus} {scale * self.deviation:.{digits}f}"


@attrs.frozen
class Table:
    """One table: cells with row and column labels, and the cube's variables that they come from."""

    title: str
    note: str
    corner: str
    columns: tuple[str, ...]
    """Labels of the columns; those of a wide table are equal in several groups of columns."""
    lines: tuple[tuple[str, tuple[Cell, ...]], ...]
    variables: tuple[str, ...]
    """`group/name` of each."""
    over: tuple[str, ...] = ()
    """A wide table's label above each column, the same for neighbours that belong together."""

    @property
    def spans(self) -> tuple[tuple[str, int], ...]:
        """The labels above, each with the number of columns that it stands over."""
        return tuple((label, len(list(same))) for label, same in itertools.groupby(self.over))

    @property
    def heads(self) -> tuple[str, ...]:
        """One label per column that says all: `add: iid`."""
        return tuple(f"{a}: {b}" for a, b in zip(self.over, self.columns, strict=True)) if self.over else self.columns

    @property
    def group(self) -> str:
        """The group of the cube that it shows."""
        return self.variables[0].rpartition("/")[0]

    @property
    def rows(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Label and cells of every row, as text."""
        return tuple((label, tuple(self.said(cell) for cell in cells)) for label, cells in self.lines)

    @property
    def most(self) -> int:
        """The largest number of seeds that a cell stands for."""
        return max((cell.count for _, cells in self.lines for cell in cells), default=0)

    def said(self, cell: Cell, plus_minus: str = "±", missing: str = "-") -> str:
        """Return a cell as text; one that fewer seeds have a value in than the others says how many: `0.214 (1 of 3)`."""
        few = f" ({cell.count} of {self.most})" if 0 < cell.count < self.most else ""
        return cell.text(plus_minus, missing) + few


def summary(values: xr.DataArray) -> tuple[np.ndarray[Any, Any], ...]:
    """Return mean, standard deviation (n - 1) and number of the seeds that have a value, over the first dimension."""
    data = np.asarray(values.values, dtype=float)  # (seed, ...)
    known = np.isfinite(data)
    count = known.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known, data, 0).sum(0) / count
        spread = np.sqrt((np.where(known, data - mean, 0) ** 2).sum(0) / (count - 1))
    return mean, np.where(count > 1, spread, np.nan), count


def lines_of(values: xr.DataArray) -> list[tuple[str, tuple[Cell, ...]]]:
    """Return label and cells of every row of an array (seed, row) or (seed, row, column)."""
    share = percent(values)
    mean, deviation, count = (part.reshape(values.shape[1], -1) for part in summary(values))  # (rows, columns)
    return [
        (
            str(label),
            tuple(
                Cell(float(m), float(d), int(n), share) for m, d, n in zip(mean[i], deviation[i], count[i], strict=True)
            ),
        )
        for i, label in enumerate(values[str(values.dims[1])].values)
    ]


def in_unit(values: xr.DataArray) -> str:
    """Return the unit as it ends a title; nothing for plain numbers, among them shares from 0 to 1."""
    unit = "%" if percent(values) else str(values.attrs.get("units", "1"))
    return "" if unit == "1" else f" ({unit})"


def percent(values: xr.DataArray) -> bool:
    """Return whether a variable is shown in percent."""
    return bool(values.attrs["table"] == "percent")


def note(lines: Any, total: int) -> str:
    """Say how many seeds the cells stand for."""
    counts = [cell.count for _, cells in lines for cell in cells]
    most, fewest = max(counts, default=0), min((n for n in counts if n), default=0)
    if not most:
        return "no run has finished yet, or none with a finite number"
    seeds = f"{most} of {total} seeds" if fewest == most else f"{fewest} to {most} of {total} seeds"
    return seeds + ("; one seed: no spread" if most == 1 else "; mean ± standard deviation")
