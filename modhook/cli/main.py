"""The group of commands, and how errors become exit codes.

Exit codes: 0 done; 1 a run failed; 2 a user's mistake, nothing was written; 130 Ctrl-C.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from typing import Any, NoReturn

import click

from modhook import __version__
from modhook.cli import ranks
from modhook.cli.analyse import analyse_command
from modhook.cli.check import check_command
from modhook.cli.explain import GONE, explained, folder_is_gone
from modhook.cli.inspect import inspect_command
from modhook.cli.join import join_command
from modhook.cli.list import list_command
from modhook.cli.new_plugin import new_plugin_command
from modhook.cli.new_study import new_study_command
from modhook.cli.output import tolerant
from modhook.cli.pack import pack_command
from modhook.cli.plot import plot_command
from modhook.cli.report import report_command
from modhook.cli.run import run_command
from modhook.cli.say import say
from modhook.cli.show import show_command
from modhook.cli.watch import watch_command
from modhook.errors import printable
from modhook.plugin.culprit import DEBUG

EPILOG = """\b
Start here:
  modhook run quickstart                   a minute, ends with a table (studies/quickstart.toml comes with modhook)
  modhook show results/quickstart.zarr     the table again
  modhook plot results/quickstart.zarr     the figures
  modhook report results/quickstart.zarr   all of it as one HTML file
"""


STOPPED = "stopped; finished stages and the latest checkpoint are kept, and the same command continues."
CONTINUED = {"run", "analyse"}
"""Commands that go on where they were stopped."""


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show the Python traceback of an error.")
def commands(debug: bool) -> None:
    """Find the weights that one function of a trained network needs.

    A study file says which task, which network and which masks; `modhook run` computes it into a cube, a zarr store that
    plain xarray opens.
    """


for _command in (
    run_command,
    check_command,
    list_command,
    inspect_command,
    show_command,
    watch_command,
    analyse_command,
    plot_command,
    report_command,
    pack_command,
    join_command,
    new_study_command,
    new_plugin_command,
):
    commands.add_command(_command)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    # Wherever it stands on the line, as people type it.
    arguments = [a for a in arguments if a != "--debug"]
    with tolerant() as lost, _debugging(debug):
        code = _code(arguments, debug)
    if lost:
        _say(f"Error: the output cannot be written: {lost[0]}.")
    sys.exit(code or (1 if lost else 0))


def _code(arguments: list[str], debug: bool) -> int:
    """Run a command, say what went wrong, and return the exit code."""
    if folder_is_gone():
        _say(f"Error: {GONE}")
        return 2
    if not debug:  # reads that a damaged file has left unfinished are said to be so when Python ends
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    try:
        with _printable_warnings():
            code: Any = commands.main(arguments, prog_name="modhook", standalone_mode=False)
    except click.exceptions.Abort as abort:
        # click turns Ctrl-C into Abort; a question answered with no is one too.
        stopped = isinstance(abort.__cause__, KeyboardInterrupt)
        _say(_stopped(arguments) if stopped else "nothing was done.")
        return 130 if stopped else 1
    except click.ClickException as error:
        error.show()
        return 2
    except KeyboardInterrupt:
        _say(_stopped(arguments))
        return 130
    except Exception as error:
        if debug:
            _say(traceback.format_exc().rstrip())
        text, code = explained(error)
        _say(f"Error: {text}")
    return code if isinstance(code, int) else 0


def _stopped(arguments: list[str]) -> str:
    return STOPPED if CONTINUED & set(arguments[:1]) else "stopped."


@contextlib.contextmanager
def _debugging(debug: bool) -> Iterator[None]:
    """Within it, runs that fail show their tracebacks, those on this machine's workers too."""
    if debug:
        os.environ[DEBUG] = "1"
    try:
        yield
    finally:
        if debug:
            del os.environ[DEBUG]


@contextlib.contextmanager
def _printable_warnings() -> Iterator[None]:
    """A warning of a library may quote a label of a cube."""
    written = warnings.formatwarning

    def format_warning(*arguments: Any, **options: Any) -> str:
        return printable(written(*arguments, **options))

    warnings.formatwarning = format_warning
    try:
        yield
    finally:
        warnings.formatwarning = written


def _say(text: str) -> None:
    if ranks.speaks():
        say(text, err=True)
