"""`modhook show`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from modhook.cli.where import WherePath

if TYPE_CHECKING:
    from modhook.cube import Where


@click.command("show")
@click.argument("cube", type=WherePath())
@click.option(
    "--format",
    "kind",
    type=click.Choice(["text", "markdown", "csv", "latex"]),
    default="text",
    show_default=True,
    help="csv has one line per number, with mean, std and n at full precision.",
)
@click.option(
    "--table",
    "name",
    metavar="NAME",
    help="Only the tables of this group or variable, such as overlap or scores/accuracy.",
)
def show_command(cube: Where, kind: str, name: str | None) -> None:
    """Print a cube's tables: scores, inverse scores, overlap, as mean and standard deviation over seeds.

    A half-finished cube shows what it has.
    """
    from modhook.cube import open_cube
    from modhook.tables import as_csv, latex, markdown, print_tables, tables

    with open_cube(cube) as tree:
        if kind == "csv":
            click.echo(as_csv(tree, name), nl=False)
            return
        found = tables(tree, name)
        if kind == "text":
            print_tables(found)
        else:
            click.echo((markdown if kind == "markdown" else latex)(found), nl=False)
