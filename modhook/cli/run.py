"""`modhook run`."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modhook.cli import ranks
from modhook.cli.say import say, say_skipped
from modhook.cli.where import WherePath, say_if_unrecorded
from modhook.errors import UserError

if TYPE_CHECKING:
    from modhook.cube import Where
    from modhook.run.drive import Outcome
    from modhook.run.one import Spread


@click.command("run")
@click.argument("study", type=click.Path(path_type=Path))
@click.option("--variant", metavar="V", help="Run the smaller version [variants.V] of the study.")
@click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change one setting: --set masks.beta=3e-5. May be repeated.",
)
@click.option(
    "--out",
    metavar="DIR",
    type=WherePath(),
    default=Path("results"),
    show_default=True,
    help="Folder for the cube; a URL such as s3://bucket/folder works as well.",
)
@click.option(
    "--only",
    metavar="KEY=VALUE",
    multiple=True,
    help="Only the runs with this coordinate: --only seed=3. May be repeated.",
)
@click.option(
    "--only-control",
    is_flag=True,
    help="Only base training and the control of every run; the same command without it computes the rest.",
)
@click.option(
    "--stages-from",
    metavar="CUBE",
    type=WherePath(),
    help="Take the stages of finished runs from CUBE, whose study differs in name and analyses alone.",
)
@click.option("--workers", metavar="N", type=click.IntRange(min=1), help="Compute runs on N workers of this machine.")
@click.option(
    "--scheduler", metavar="ADDRESS", help="Compute runs on the workers of a dask scheduler: tcp://host:8786."
)
@click.option("--device", metavar="D", help="cpu, cuda, cuda:1, ... instead of the study's [run] device.")
@click.option(
    "--checkpoint-every",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How often a running stage is kept, instead of the study's [run] checkpoint_every (300); 0: after every step.",
)
@click.option(
    "--tracker",
    "trackers",
    metavar="NAME",
    multiple=True,
    help="Tell this tracker too: tensorboard, wandb, ... (see modhook list trackers). May be repeated.",
)
@click.option("--live", is_flag=True, help="Show the runs, with their curves, on a page of this machine while they are computed.")
@click.option("--retry-failed", is_flag=True, help="Compute failed stages and analyses again.")
@click.option(
    "--repair", is_flag=True, help="Compute again what is lost or exchanged in the cube, instead of stopping there."
)
@click.option("--fresh", is_flag=True, help="Delete the study's cube and start over; asks first.")
@click.option("--yes", is_flag=True, help="Do not ask (needed with --fresh where there is no terminal).")
def run_command(
    study: Path,
    variant: str | None,
    overrides: tuple[str, ...],
    out: Where,
    only: tuple[str, ...],
    only_control: bool,
    stages_from: Where | None,
    workers: int | None,
    scheduler: str | None,
    device: str | None,
    checkpoint_every: float | None,
    trackers: tuple[str, ...],
    live: bool,
    retry_failed: bool,
    repair: bool,
    fresh: bool,
    yes: bool,
) -> int:
    """Compute a study into its cube.

    STUDY is a TOML file, or the name of a study that comes with modhook (see `modhook list studies`). The cube is
    DIR/NAME.zarr (a variant's is DIR/NAME-VARIANT.zarr). The same command continues where it was stopped, within a stage
    from its latest checkpoint; finished stages are never computed again. Raising `seeds` or adding analyses continues the
    same cube too.
    """
    if workers and scheduler:
        raise UserError("give --workers N for workers of this machine, or --scheduler ADDRESS for others; not both.")
    from modhook.plugin.manager import plugins
    from modhook.run import run_study
    from modhook.run.drive import cube_path
    from modhook.run.trackers import also_tracked, make_trackers
    from modhook.study import load, study_file

    study = study_file(study)
    installed = plugins()
    if ranks.speaks():
        say_skipped(installed)
    loaded = load(
        study,
        variant=variant,
        overrides=[
            *overrides,
            *([f'run.device="{device}"'] if device else []),
            *([f"run.checkpoint_every={checkpoint_every}"] if checkpoint_every is not None else []),
        ],
        plugins=installed,
    )
    loaded = also_tracked(loaded, trackers)
    installed = installed.beside(study.parent)
    path = cube_path(loaded, out)
    if fresh and not yes:
        _asked_to_delete(path)
    chosen = dict(_pair(text) for text in only)
    if ranks.several() and (workers or scheduler):
        raise UserError(
            "torchrun spreads one run over ranks, --workers and --scheduler several runs: give one of them."
        )
    from modhook.launch.ranks import joined

    with joined(ranks.several(), loaded.run.device, loaded.masks.executor):
        tracker = make_trackers(loaded.run.trackers if ranks.speaks() else (), installed, str(path))
        with _page(path) if live and ranks.speaks() else contextlib.nullcontext():
            outcome = run_study(
                loaded,
                out,
                installed,
                tracker,
                only=chosen,
                fresh=fresh,
                retry_failed=retry_failed,
                only_control=only_control,
                repair=repair,
                stages_from=stages_from,
                spread=_spread(workers, scheduler),
            )
    if ranks.speaks():
        _told(outcome, tracker.failures)
    return 1 if outcome.failed else 0


def _asked_to_delete(path: Where) -> None:
    """Ask whether what lies at the place of a cube may go. Raises `UserError` where there is nobody to ask, and click's `Abort` for no."""
    from modhook.cube import place_of
    from modhook.run.checkpoints import Checkpoints

    if place_of(path).exists() or Checkpoints.of(path).folder.exists():
        if sys.stdin is None or not sys.stdin.isatty():
            raise UserError(f"--fresh would delete {path}; without a terminal to ask on, add --yes.")
        click.confirm(f"Delete {path} and start over?", abort=True)


def _told(outcome: Outcome, failures: Sequence[str]) -> None:
    """Say what the runs have come to: the first tables, what to know before one trusts them, and what failed, of trackers too."""
    from modhook.cube import open_cube
    from modhook.report.cautions import doubts, in_lines
    from modhook.report.facts import Facts
    from modhook.tables import first_tables, print_tables, words

    say_if_unrecorded(outcome.path)
    with open_cube(outcome.path) as cube:
        # Where nothing is done there are only empty tables, and they would hide why.
        found, more = first_tables(cube) if bool((cube["runs/status"] == 1).any()) else ([], 0)
        print_tables(found)
        doubted = in_lines(doubts(Facts(cube, Path(str(outcome.path)))))
    for line in words(found):
        say(line)
    if more:
        say(f"{more} more table{'s' if more > 1 else ''}: modhook show {shlex.quote(str(outcome.path))}")
    if doubted:
        say("Before you trust these numbers:")
        for line in doubted:
            say(f"- {line}")
    had = f", {outcome.found} were there already" if outcome.found else ""
    say(f"{outcome.computed} stages computed{had}; the cube is {outcome.path}")
    for line in outcome.failed:
        say(f"Failed: {line}", err=True)
    for line in failures:
        say(f"Warning: {line}", err=True)


def _spread(workers: int | None, scheduler: str | None) -> Spread:
    from modhook.run.together import in_turn

    if workers is None and scheduler is None:
        return in_turn
    from modhook.launch.cluster import OnWorkers

    return OnWorkers(workers, scheduler)


@contextlib.contextmanager
def _page(path: Where) -> Iterator[None]:
    """Serve the page of `modhook watch` within the block."""
    from modhook.watching import Page, Watcher

    with Page(Watcher(path, share=200)) as page:  # in the process that computes: half a per cent at most
        say(f"live: {page.url}", err=True)
        yield


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"--only takes KEY=VALUE, such as seed=3, not {text!r}.")
    return key.strip(), value.strip()
