"""`modhook join`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modhook.cli.pack import say_size
from modhook.cli.say import say
from modhook.cli.where import LocalFile, WherePath

if TYPE_CHECKING:
    from modhook.cube import Where


@click.command("join")
@click.argument("out", metavar="OUT.zip", type=LocalFile())
@click.argument("cubes", metavar="CUBE CUBE...", nargs=-1, required=True, type=WherePath())
@click.option("--overwrite", is_flag=True, help="Replace a file that is there; it may be one of the cubes.")
def join_command(out: Path, cubes: tuple[Where, ...], overwrite: bool) -> None:
    """Join the runs of several cubes of one study into one small file.

    For runs that were computed apart, such as --only seed=1 here and --only seed=2 on another machine. The file is like one of
    `modhook pack`: masks and all results, without weights and logits; the cubes may be such files themselves. A run that several
    cubes have is taken whole from the one that has computed most of it, then from the first.
    """
    from modhook.run.join import join

    made = join(cubes, out, overwrite=overwrite)
    for cube, runs in zip(cubes, made.runs, strict=True):
        say(f"{runs} {'run' if runs == 1 else 'runs'} from {cube}")
    say_size(made.pack)
