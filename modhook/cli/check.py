"""`modhook check`."""

from __future__ import annotations

from pathlib import Path

import click

from modhook.errors import StudyError


@click.command("check")
@click.argument("studies", metavar="STUDY...", nargs=-1, required=True, type=click.Path(path_type=Path))
def check_command(studies: tuple[Path, ...]) -> int:
    """Check study files and all of their variants, without running anything.

    Every mistake is reported at once, each with its place in the file. Exit code 2 if there is any.
    """
    from modhook.manager import plugins
    from modhook.study import check

    installed = plugins()
    for broken in installed.broken:
        click.echo(f"Warning: {broken}", err=True)
    mistakes = 0
    for path in studies:
        try:
            found = check(path, plugins=installed)
        except StudyError as error:
            mistakes += 1
            click.echo(str(error), err=True)
            continue
        click.echo(f"{path}: ok ({', '.join(found)})")
    return 2 if mistakes else 0
