"""`modhook check`."""

from __future__ import annotations

from pathlib import Path

import click

from modhook.cli.say import say_skipped
from modhook.errors import StudyError


@click.command("check")
@click.argument("studies", metavar="STUDY...", nargs=-1, required=True, type=click.Path(path_type=Path))
def check_command(studies: tuple[Path, ...]) -> int:
    """Check study files and all of their variants, without running anything.

    Every mistake is reported at once, each with its place in the file. Exit code 2 if there is any.
    """
    from modhook.plugin.manager import plugins
    from modhook.study import check

    installed = plugins()
    say_skipped(installed)
    mistakes = 0
    for path in studies:
        results = check(path, plugins=installed)
        if wrong := [r for r in results if r.problems]:
            mistakes += 1
            # A mistake of the file itself shows in every variant: it is said once.
            said: set[str] = set()
            for result in wrong:
                where = f"{path} [variants.{result.variant}]" if result.variant else str(path)
                if new := [p for p in result.problems if p not in said]:
                    click.echo(str(StudyError(where, new)), err=True)
                said.update(new)
            continue
        click.echo(f"{path}: ok ({', '.join(r.variant or 'as published' for r in results)})")
    return 2 if mistakes else 0
