"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from modhook.errors import printable
from modhook.tables.table import Table

_WIDEST = 10_000
_BETWEEN = 3
"""Columns are this far apart."""


def print_tables(found: Iterable[Table], console: Console | None = None) -> None:
    """Print tables, one below the other; into a file or a pipe as wide as they are.

    In a terminal a wide table goes on below itself where its columns do not fit.
    """
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=_WIDEST)
    for table in map(_printable, found):
        console.print(
            f"[bold]{escape(table.title)}[/bold]" + (f"  [dim]{escape(table.note)}[/dim]" if table.note else ""),
            soft_wrap=True,
        )
        for chosen in _blocks(table, console.width):
            shown = RichTable(box=SIMPLE_HEAD, pad_edge=False)
            shown.add_column(escape(f"\n{table.corner}" if table.over else table.corner), no_wrap=True)
            for column in chosen:
                shown.add_column(escape(_head(table, column, chosen)), justify="right", no_wrap=bool(table.over))
            for label, cells in table.rows:
                shown.add_row(escape(label), *(cells[i] for i in chosen))
            console.print(shown)


def _head(table: Table, column: int, chosen: list[int]) -> str:
    """Return a column's label; in a wide table below the label that it shares with its neighbours, written once."""
    if not table.over:
        return table.columns[column]
    first = column == chosen[0] or table.over[column - 1] != table.over[column]
    return f"{table.over[column] if first else ''}\n{table.columns[column]}"


def _blocks(table: Table, width: int) -> Iterator[list[int]]:
    """Yield the columns of a table in pieces that fit beside the rows' labels, where they are many for a reason."""
    if not table.over:
        yield list(range(len(table.columns)))
        return
    room = width - max(cell_len(x) for x in (table.corner, *(label for label, _ in table.rows))) - 2
    block: list[int] = []
    used = 0
    for i, (above, column) in enumerate(zip(table.over, table.columns, strict=True)):
        wide = _BETWEEN + max(cell_len(x) for x in (above, column, *(cells[i] for _, cells in table.rows)))
        if block and used + wide > room:
            yield block
            block, used = [], 0
        block.append(i)
        used += wide
    yield block


def _printable(table: Table) -> Table:
    """Return a table whose labels, which come from a cube, are one line each and do not steer the terminal."""

    def shown(text: str) -> str:
        return printable(text, line=True)

    return attrs.evolve(
        table,
        title=shown(table.title),
        note=shown(table.note),
        corner=shown(table.corner),
        columns=tuple(map(shown, table.columns)),
        over=tuple(map(shown, table.over)),
        lines=tuple((shown(label), cells) for label, cells in table.lines),
    )
