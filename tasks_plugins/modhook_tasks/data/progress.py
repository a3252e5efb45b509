"""How far a download, a reading or a generation is."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TimeRemainingColumn


def progress(title: str, count: ProgressColumn) -> Progress:
    """Return a bar on standard error that is gone when all is done; where there is no terminal, one plain line."""
    console = Console(stderr=True)
    if not console.is_terminal:
        console.print(f"{title} ...", highlight=False, soft_wrap=True)
    columns = (title, BarColumn(), count, TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
