"""The units of a network as a table: what there is to mask, before any fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import nn

from modhook.errors import UserError, listing, missing, near_miss
from modhook.unit.group import KINDS, Group
from modhook.values import markup
from modhook.values.arguments import shown

if TYPE_CHECKING:
    import pandas as pd

_HEAD = ("units", "kind", "how many", "weights of each", "parameters")
_NAMED = 4
_WIDE = 70


class Units(Mapping[str, Group]):
    """Groups of units by name. `fit_masks(units=...)` takes it, whole or a part of it.

    Attributes:
        left_out: {module: why what it gives are no units}.
    """

    def __init__(
        self, groups: Iterable[Group], model: nn.Module | None = None, left_out: Mapping[str, str] | None = None
    ) -> None:
        self._groups = {group.name: group for group in groups}
        self.left_out = dict(left_out or {})
        self._shapes = (
            {} if model is None else {n: tuple(p.shape) for n, p in model.named_parameters(remove_duplicate=False)}
        )
        self._counts = {}
        if model is not None:
            parameters = dict(model.named_parameters(remove_duplicate=False))
            self._counts = {group.name: group.weights(parameters) for group in self._groups.values()}

    def __getitem__(self, name: str) -> Group:
        if not isinstance(name, str) or name not in self._groups:
            raise missing("there are no units", name, self._groups)
        return self._groups[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that there are, in a fixed order."""
        own = {group.kind for group in self._groups.values()}
        return tuple(k for k in (*KINDS, "unit") if k in own)

    def select(self, kinds: str | Sequence[str]) -> Units:
        """Return the units of one kind or of some. Raises `UserError` for a kind that there is not, or that was not found."""
        if not isinstance(kinds, str | list | tuple | set | frozenset) or not kinds:
            raise UserError(f"select takes a kind of units or some, not {shown(kinds)}; there are {listing(self.kinds)}.")
        wanted = (kinds,) if isinstance(kinds, str) else tuple(kinds)
        for kind in wanted:
            if kind not in self.kinds:
                what = "" if kind in KINDS else near_miss(str(kind), KINDS)
                raise UserError(
                    f"there are no units of kind {shown(kind)}{what} here; there are {listing(self.kinds)}."
                )
        found = Units([g for g in self._groups.values() if g.kind in wanted], None, self.left_out)
        found._shapes, found._counts = self._shapes, {n: c for n, c in self._counts.items() if n in found}
        return found

    def to_dataframe(self) -> pd.DataFrame:
        """Return one row per group: `units` (its name), `kind`, `module`, `count`, `weights` (of all its units), `parameters`, `note`."""
        import pandas as pd

        rows = [
            {
                "units": g.name,
                "kind": g.kind,
                "module": g.module,
                "count": len(g),
                "weights": int(self._counts[g.name].sum()) if g.name in self._counts else -1,
                "parameters": ", ".join(g.parameters),
                "note": g.note,
            }
            for g in self._groups.values()
        ]
        return pd.DataFrame(rows, columns=["units", "kind", "module", "count", "weights", "parameters", "note"])

    def __repr__(self) -> str:
        rows = [_HEAD, *self._rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines.insert(1, "─" * max(len(line) for line in lines))
        return "\n".join([*(lines if self._groups else ["no units"]), *self._without()])

    def _repr_html_(self) -> str:
        return markup.box(
            markup.table(_HEAD, self._rows(), ""), *(f"<div>{markup.escaped(line)}</div>" for line in self._without())
        )

    def _rows(self) -> list[tuple[str, ...]]:
        return [(g.name, g.kind, f"{len(g):,}", self._each(g), _short(g)) for g in self._groups.values()]

    def _without(self) -> list[str]:
        notes = [f"{g.name}: {g.note}" for g in self._groups.values() if g.note]
        by_reason: dict[str, list[str]] = {}
        for module, why in self.left_out.items():
            by_reason.setdefault(why, []).append(repr(module))
        return [*notes, *(f"no units of {listing(modules, 4)}: they {why}" for why, modules in by_reason.items())]

    def _each(self, group: Group) -> str:
        counts = self._counts.get(group.name)
        if counts is None or not len(counts):
            return "-"
        low, high = int(counts.min()), int(counts.max())
        return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _short(group: Group) -> str:
    names = [n.removeprefix(f"{group.module}.") for n in group.parameters]
    some = names[:_NAMED] if len(names) > _NAMED + 1 else names
    more = f" and {len(names) - len(some)} more" if len(names) > len(some) else ""
    text = ", ".join(some) + more
    return text if len(text) <= _WIDE else f"{len(names)} of {group.module or 'the network'}: {names[0]}, ..."
