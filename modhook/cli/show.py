"""`modhook show`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("show")
@click.argument("cube", type=click.Path(path_type=Path))
def show_command(cube: Path) -> None:
    """Print a cube's tables: scores, inverse scores, overlap, as mean and standard deviation over seeds.

    A half-finished cube shows what it has.
    """
    from modhook.cube import open_cube
    from modhook.tables import print_tables

    with open_cube(cube) as tree:
        print_tables(tree)
