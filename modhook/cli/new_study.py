"""`modhook new-study`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click


@click.command("new-study")
@click.argument("study", metavar="STUDY.toml", type=click.Path(path_type=Path))
def new_study_command(study: Path) -> None:
    """Write a study of your own network to start from, and its code in a file beside it.

    STUDY.toml runs as it is; its task, its network and its data are in STUDY.py, to be replaced by yours. Existing files are
    never touched.
    """
    from modhook.plugin.scaffold import new_study

    written = new_study(study)
    for path in written:
        click.echo(str(path))
    click.echo(f"Next: modhook run {shlex.quote(str(written[0]))}")
