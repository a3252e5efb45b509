"""Paths on the command line that may be URLs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class WherePath(click.Path):
    """A local path, or a URL such as s3://bucket/folder, which stays the text that it is."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a `Path`, or a URL as text."""
        if isinstance(value, str) and "://" in value:
            return value
        return super().convert(value, param, ctx)
