"""What a command prints: nothing that a cube says can steer the terminal."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from modhook.errors import printable
from modhook.plugin.culprit import DEBUG, traceback_of

if TYPE_CHECKING:
    from modhook.plugin.manager import Plugins


def say(text: object, *, err: bool = False, nl: bool = True) -> None:
    """Print a text, control characters made visible."""
    click.echo(_printable(str(text)), err=err, nl=nl)


def _printable(text: str) -> str:
    """Return what a terminal shows and does not obey; the bytes of a path that Python could not decode stay as they are.

    Under LANG=C and without UTF-8 mode, every letter beyond ASCII in a path is such bytes.
    """
    try:
        decoded = os.fsencode(text).decode()
        return os.fsdecode(printable(decoded).encode())
    except UnicodeError:  # no text of its own encoding: nothing that could be shown as it is
        return printable(text)


def say_skipped(installed: Plugins) -> None:
    """Say which plugins were skipped and why; with `--debug` where their errors come from."""
    installed.told = True
    for broken in installed.broken:
        say(f"Warning: {broken}", err=True)
        if broken.error is not None and os.environ.get(DEBUG):
            say(traceback_of(broken.error), err=True)
