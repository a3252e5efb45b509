"""`modhook report`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("report")
@click.argument("cube", type=click.Path(path_type=Path))
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The HTML file; default CUBE without .zarr plus -report.html.",
)
def report_command(cube: Path, out: Path | None) -> None:
    """Write what a cube holds as one HTML file, which needs nothing else to be read.

    Findings, warnings, scores, every figure that applies, tables, state of the runs, and how to compute it again. A
    half-finished cube shows what it has.
    """
    from modhook.manager import plugins
    from modhook.report import write_report

    click.echo(str(write_report(cube, out, plugins())))
