"""`modhook analyse`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from modhook.cli.say import say, say_skipped
from modhook.cli.where import WherePath, say_if_unrecorded

if TYPE_CHECKING:
    from modhook.cube import Where


@click.command("analyse")
@click.argument("cube", type=WherePath())
@click.argument("name")
@click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="An option of the analysis: --set random=5. May be repeated; without any, those that the cube records.",
)
@click.option("--device", metavar="D", help="cpu, cuda, cuda:1, ... instead of the study's [run] device.")
@click.option(
    "--trust",
    is_flag=True,
    help="Import and run what the cube names although no installed plugin brings it (FILE.py:CLASS, MODULE:CALLABLE).",
)
def analyse_command(cube: Where, name: str, settings: tuple[str, ...], device: str | None, trust: bool) -> int:
    """Compute the analysis NAME of a finished CUBE, without training.

    NAME is one of `modhook list analyses`, or one of your own: my_analysis.py:MyAnalysis, relative to the current folder.

    The study is rebuilt from the cube; code that the cube names runs only with --trust. Runs that are not finished, and
    those that have the analysis, are left as they are, so that the same command continues where it was stopped. Variables that
    a newer version of the analysis has are added to them.
    """
    from modhook.cube import open_cube
    from modhook.plugin.manager import plugins
    from modhook.run.later import analyse
    from modhook.run.trackers import make_trackers
    from modhook.tables import print_tables, tables

    installed = plugins()
    say_skipped(installed)
    tracker = make_trackers(["progress"], installed, str(cube))
    done = analyse(cube, name, settings, installed, tracker, device, trust=trust)
    say_if_unrecorded(done.path)
    with open_cube(done.path) as tree:
        print_tables(t for t in tables(tree) if t.group in done.groups)
    if not done.computed and done.found and not done.failed:
        say(f"{name} is done already ({_runs(done.found)}); the cube is {done.path}")
    else:
        had = f", {done.found} had it already" if done.found else ""
        say(f"{name} computed for {_runs(done.computed)}{had}; the cube is {done.path}")
    for line in done.unfinished:
        say(f"Skipped: {line}; run the study to its end first", err=True)
    for line in done.failed:
        say(f"Failed: {line}", err=True)
    return 1 if done.failed else 0


def _runs(count: int) -> str:
    return f"{count} run" if count == 1 else f"{count} runs"
