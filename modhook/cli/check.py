"""`modhook check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modhook.cli.say import say_skipped
from modhook.errors import StudyError, listing

if TYPE_CHECKING:
    from modhook.plugin.manager import Plugins
    from modhook.run.looked import Looked
    from modhook.study import Study


@click.command("check")
@click.argument("studies", metavar="STUDY...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--variant", metavar="V", help="Check the study as published and this variant alone, not all of them.")
@click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Check the studies with one setting changed, as run --set changes it: --set masks.beta=3e-5. May be repeated.",
)
def check_command(studies: tuple[Path, ...], variant: str | None, overrides: tuple[str, ...]) -> int:
    """Check study files, or studies that come with modhook by their names, with all of their variants, without running anything.

    Every mistake is reported at once, each with its place in the file. Exit code 2 if there is any. Code that a study names
    itself (my_task.py:MyTask) is imported, and so runs with your rights: read a stranger's file first.
    """
    from modhook.plugin.manager import plugins
    from modhook.study import check, own_code, study_file

    installed = plugins()
    say_skipped(installed)
    mistakes = 0
    for path in studies:
        results = check(study_file(path), "all" if variant is None else (variant,), overrides, plugins=installed)
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
        looked = [_looked(r.study, installed) for r in results if r.study]
        if found := list(dict.fromkeys(text for one in looked for text in one.mistakes)):
            mistakes += 1
            click.echo(str(StudyError(str(path), found)), err=True)
            continue
        click.echo(f"{path}: ok ({', '.join(r.variant or 'as published' for r in results)})")
        if named := list(dict.fromkeys(name for r in results if r.study for name in own_code(r.study, installed))):
            click.echo(f"  it names code that no plugin brings, which runs with your rights, and ran for this check: {listing(named)}")
        for unseen in dict.fromkeys(one.unseen for one in looked if one.unseen):
            click.echo(f"  whether masks.include, exclude and units choose something was not looked at: {unseen}")
        for result in results:
            if more := _controls(result.study):
                click.echo(f"  {result.variant or 'as published'}: {more}")
    return 2 if mistakes else 0


def _looked(study: Study, installed: Plugins) -> Looked:
    """Return what can be seen of a study without its data, beyond its file."""
    from modhook.run.looked import look

    return look(study, installed)


def _controls(study: Study | None) -> str:
    """Return what the controls of a study cost that learn masks; an empty text without them."""
    from modhook.study import control_stages, points

    further = control_stages(study.controls, study.masked_stages) if study else ()
    if study is None or not further:
        return ""
    own, more = len(study.masked_stages), len(further)
    runs = study.study.seeds * len(points(study))
    return (
        f"[controls] learns {more} more mask{'s' if more > 1 else ''} beside the {own} of each run: mask stages take "
        f"{(own + more) / own:.3g} times as long ({more} x {study.masks.steps:,} steps more in each of {runs} run{'s' if runs > 1 else ''})"
    )
