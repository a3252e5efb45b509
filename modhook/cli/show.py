"""`modhook show`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from modhook.cli.say import say
from modhook.cli.where import WherePath, say_if_unrecorded

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
@click.option(
    "--verify", is_flag=True, help="Read every file of every run first, and compare it with what its stage wrote."
)
def show_command(cube: Where, kind: str, name: str | None, verify: bool) -> None:
    """Print a cube's tables: scores, inverse scores, overlap, as mean and standard deviation over seeds.

    A half-finished cube shows what it has.
    """
    from modhook.cube import Cube, open_cube
    from modhook.tables import as_csv, latex, markdown, print_tables, tables, words

    if verify:
        from modhook.run.mend import survey

        runs = survey(Cube(cube, read_only=True))
        say(f"every file of {runs} run{'s' if runs != 1 else ''} is the one that its stage wrote", err=True)
    else:
        say_if_unrecorded(cube)
    with open_cube(cube) as tree:
        if kind == "csv":
            say(as_csv(tree, name), nl=False)
            return
        found = tables(tree, name)
        if kind == "text":
            print_tables(found)
            for line in words(found):
                say(line)
        else:
            say((markdown if kind == "markdown" else latex)(found), nl=False)
