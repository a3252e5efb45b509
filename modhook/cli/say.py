"""What a command prints: nothing that a cube says can steer the terminal."""

from __future__ import annotations

import click

from modhook.errors import printable


def say(text: object, *, err: bool = False, nl: bool = True) -> None:
    """Print a text, control characters made visible."""
    click.echo(printable(str(text)), err=err, nl=nl)
