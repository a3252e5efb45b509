"""The group of commands, and how errors become exit codes.

Exit codes: 0 done; 1 a run failed; 2 a user's mistake, nothing was written; 130 Ctrl-C.
"""

from __future__ import annotations

import sys
import traceback
from typing import Any, NoReturn

import click

from modhook import __version__
from modhook.cli import ranks
from modhook.cli.analyse import analyse_command
from modhook.cli.check import check_command
from modhook.cli.inspect import inspect_command
from modhook.cli.list import list_command
from modhook.cli.new_plugin import new_plugin_command
from modhook.cli.plot import plot_command
from modhook.cli.report import report_command
from modhook.cli.run import run_command
from modhook.cli.show import show_command
from modhook.errors import ModhookError, UserError

EPILOG = """\b
Start here:
  modhook run studies/quickstart.toml      a minute, ends with a table
  modhook show results/quickstart.zarr     the table again
  modhook plot results/quickstart.zarr     the figures
  modhook report results/quickstart.zarr   all of it as one HTML file
"""


STOPPED = "stopped; finished stages and the latest checkpoint are kept, and the same command continues."


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
    analyse_command,
    plot_command,
    report_command,
    new_plugin_command,
):
    commands.add_command(_command)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    # Wherever it stands on the line, as people type it.
    arguments = [a for a in arguments if a != "--debug"]
    try:
        code: Any = commands.main(arguments, prog_name="modhook", standalone_mode=False)
    except click.exceptions.Abort as abort:
        # click turns Ctrl-C into Abort; a question answered with no is one too.
        stopped = isinstance(abort.__cause__, KeyboardInterrupt)
        _say(STOPPED if stopped else "nothing was done.")
        code = 130 if stopped else 1
    except click.ClickException as error:
        error.show()
        code = 2
    except KeyboardInterrupt:
        _say(STOPPED)
        code = 130
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    except ModhookError as error:
        if debug:
            traceback.print_exc()
        _say(f"Error: {error}")
        code = 2 if isinstance(error, UserError) else 1
    except Exception as error:
        if debug:
            traceback.print_exc()
        else:
            text = str(error).splitlines()[0] if str(error) else ""
            _say(
                f"Error: {type(error).__name__}: {text} (this is a defect in modhook or in a plugin; --debug shows where)."
            )
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _say(text: str) -> None:
    if ranks.speaks():
        click.echo(text, err=True)
