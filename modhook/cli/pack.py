"""`modhook pack`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modhook.cli.say import say
from modhook.cli.where import LocalFile, WherePath, say_if_unrecorded

if TYPE_CHECKING:
    from modhook.cube import Pack, Where


@click.command("pack")
@click.argument("cube", type=WherePath())
@click.argument("out", metavar="[OUT.zip]", required=False, type=LocalFile())
@click.option("--weights", is_flag=True, help="Keep the trained weights.")
@click.option("--logits", is_flag=True, help="Keep the logits that the masks come from.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
def pack_command(cube: Where, out: Path | None, weights: bool, logits: bool, overwrite: bool) -> None:
    """Pack a CUBE into one small file, which is only read: show, plot, report and modhook.open_cube take it like a cube.

    Masks and all results are in it, weights and logits only if asked for. Without OUT.zip the file lies beside the cube and has its
    name. A cube that is not finished is packed as far as it is.
    """
    from modhook.cube import pack

    say_if_unrecorded(cube)
    made = pack(cube, out, weights=weights, logits=logits, overwrite=overwrite)
    say_size(made)


def say_size(made: Pack) -> None:
    """Say what was packed, and what is not in it."""
    left = f", without {' and '.join(made.without)}" if made.without else ""
    say(f"{made.path}: {_size(made.size)}{left}")
    if made.done < made.stages:
        say(f"Note: {made.done} of {made.stages} stages are done; what the others will give is not in it.", err=True)


def _size(number: int) -> str:
    return f"{number / 1e6:.1f} MB" if number >= 1e6 else f"{-(-number // 1000)} kB"
