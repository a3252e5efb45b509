"""`modhook plot`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modhook.cli.say import say
from modhook.cli.where import WherePath, say_if_unrecorded
from modhook.errors import CubeError, ModhookError, PluginError, RunError, UserError
from modhook.plugin.code import is_code, short
from modhook.plugin.culprit import importing, told

if TYPE_CHECKING:
    from modhook.cube import Where


@click.command("plot")
@click.argument("cubes", metavar="CUBE...", nargs=-1, required=True, type=WherePath())
@click.option(
    "--figure",
    "names",
    metavar="NAME",
    multiple=True,
    help="Only this figure (see `modhook list figures`), or one of your own: my_figure.py:MyFigure. May be repeated.",
)
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(["png", "svg", "pdf"]),
    help="File type; default all three. May be repeated.",
)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder for the files; default CUBE without .zarr plus -figures, in the current folder for a URL.",
)
def plot_command(cubes: tuple[Where, ...], names: tuple[str, ...], formats: tuple[str, ...], out: Path | None) -> None:
    """Draw figures from one or several cubes.

    Without --figure every figure that all cubes have the variables for is drawn; several cubes are compared in one figure.
    Runs that are missing are left out, and said so. A figure that fails is named after the others are drawn.
    """
    from modhook.cube import beside, open_cube
    from modhook.plotting.settings import ready
    from modhook.plugin.manager import plugins
    from modhook.report.drawing import applies, by_rank, draw, missing_variables

    ready()
    installed = plugins().beside(Path(), "the current folder", only=names)
    say_if_unrecorded(*cubes)
    folder = out or beside(cubes[0], "-figures")
    with contextlib.ExitStack() as stack:
        trees = [stack.enter_context(open_cube(path)) for path in cubes]
        wanted, failed = [], dict[str, Exception]()
        for name in names or installed.names("figures"):
            with _noted(name, failed):
                wanted.append((name, installed.load("figures", name)()))
        drawn = False
        for name, figure in wanted if names else by_rank(wanted):
            with _noted(name, failed):
                if not applies(figure, trees):
                    if names:
                        lacks = missing_variables(figure, trees)
                        raise CubeError(f"figure {name!r} cannot be drawn from {', '.join(map(str, cubes))}: {lacks}.")
                    continue
                for file in draw(figure, trees, folder, short(name), formats or ("png", "svg", "pdf")):
                    say(str(file))
                    drawn = True
    if failed:
        reasons = "; ".join(f"{name!r}: {_reason(error)}" for name, error in failed.items())
        others = "; the others are drawn" if drawn else ""
        raise RunError(f"could not draw {reasons}{others}.") from next(iter(failed.values()))
    if not drawn:
        raise UserError(
            f"no figure applies to {', '.join(map(str, cubes))}; the figures are: {', '.join(installed.names('figures'))}."
        )


@contextlib.contextmanager
def _noted(name: str, failed: dict[str, Exception]) -> Iterator[None]:
    """Keep what fails a figure by its plugin's mistake, so that the others are drawn."""
    try:
        yield
    except PluginError as error:
        if is_code(name) or str(error).startswith("unknown figure"):  # the user's mistake
            raise
        failed[name] = error
    except ModhookError:
        raise
    except Exception as error:
        if importing(error):  # the environment's fault, and every figure's
            raise
        failed[name] = error


def _reason(error: Exception) -> str:
    return str(error).rstrip(".") if isinstance(error, ModhookError) else told(error)
