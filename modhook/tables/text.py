"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from modhook.tables.collect import Table

_WIDEST = 10_000


def print_tables(found: Iterable[Table], console: Console | None = None) -> None:
    """Print tables, one below the other; into a file or a pipe as wide as they are."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=_WIDEST)
    for table in found:
        console.print(
            f"[bold]{escape(table.title)}[/bold]" + (f"  [dim]{escape(table.note)}[/dim]" if table.note else ""),
            soft_wrap=True,
        )
        shown = RichTable(box=SIMPLE_HEAD, pad_edge=False)
        shown.add_column(escape(table.corner), no_wrap=True)
        for column in table.columns:
            shown.add_column(escape(column), justify="right")
        for label, cells in table.rows:
            shown.add_row(escape(label), *cells)
        console.print(shown)
