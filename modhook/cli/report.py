"""`modhook report`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modhook.cli.say import say
from modhook.cli.where import WherePath, say_if_unrecorded
from modhook.errors import ModhookWarning

if TYPE_CHECKING:
    from modhook.cube import Where


@click.command("report")
@click.argument("cubes", metavar="CUBE...", nargs=-1, required=True, type=WherePath())
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The HTML file; default CUBE without .zarr (of several cubes A-and-B) plus -report.html, in the current folder for a URL.",
)
@click.option(
    "--figure",
    "figures",
    metavar="NAME",
    multiple=True,
    help="Also draw this figure of your own: my_figure.py:MyFigure. May be repeated.",
)
def report_command(cubes: tuple[Where, ...], out: Path | None, figures: tuple[str, ...]) -> None:
    """Write what a cube holds as one HTML file, which needs nothing else to be read.

    Findings, warnings, scores, every figure that applies, tables, state of the runs, and how to compute it again. A
    half-finished cube shows what it has.

    Several cubes are compared in one file: which settings differ, scores and verdicts side by side, the overlap of their masks,
    and each study's own findings and figures.
    """
    from modhook.plugin.manager import plugins
    from modhook.report import write_report

    say_if_unrecorded(*cubes)
    installed = plugins().beside(Path(), "the current folder", only=figures)
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", category=ModhookWarning)
        path = write_report(cubes, out, installed, figures)
    for one in caught:
        if issubclass(one.category, ModhookWarning):
            say(f"Warning: {str(one.message).rstrip('.')}.", err=True)
        else:
            warnings.showwarning(one.message, one.category, one.filename, one.lineno)
    say(str(path))
