"""The command line: the one place that prints and exits."""

from modhook.cli.main import main

__all__ = ["main"]
