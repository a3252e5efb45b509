"""Paths on the command line that may be URLs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modhook.cli.say import say

if TYPE_CHECKING:
    from modhook.cube import Where


class WherePath(click.Path):
    """A local path, or a URL such as s3://bucket/folder, which stays the text that it is."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a `Path`, or a URL as text."""
        if isinstance(value, str) and "://" in value:
            return value
        return super().convert(value, param, ctx)


class LocalFile(click.Path):
    """A file on this machine: a URL is refused, of which a folder called `s3:` would become."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a `Path`."""
        if isinstance(value, str) and "://" in value:
            self.fail(f"{value} is a URL, but the file is written on this machine; give a path, and copy the file there.", param, ctx)
        return super().convert(value, param, ctx)


def say_if_unrecorded(*cubes: Where) -> None:
    """Say on standard error of each cube of an older version that files which it has lost are not noticed."""
    from modhook.cube import keeps_records

    for path in cubes:
        if not keeps_records(path):
            say(
                f"Note: {path} was written by an older version, which kept no record of what each stage wrote: files that are "
                "missing or exchanged there are not noticed.",
                err=True,
            )
