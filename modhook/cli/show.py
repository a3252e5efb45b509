"""`modhook show`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from modhook.cli.where import WherePath

if TYPE_CHECKING:
    from modhook.cube import Where


@click.command("show")
@click.argument("cube", type=WherePath())
def show_command(cube: Where) -> None:
    """Print a cube's tables: scores, inverse scores, overlap, as mean and standard deviation over seeds.

    A half-finished cube shows what it has.
    """
    from modhook.cube import open_cube
    from modhook.tables import print_tables

    with open_cube(cube) as tree:
        print_tables(tree)
