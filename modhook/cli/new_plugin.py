"""`modhook new-plugin`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("new-plugin")
@click.argument("name")
@click.option(
    "--in",
    "parent",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Folder that the project is made in; default: the current one.",
)
def new_plugin_command(name: str, parent: Path) -> None:
    """Write a plugin project to start from: a task, a network, an analysis, a figure, a study, tests, and what CI does.

    NAME is the distribution's and the folder's, such as my-task. An existing folder is never touched.
    """
    from modhook.plugin.scaffold import new_plugin

    for path in new_plugin(name, parent):
        click.echo(str(path))
    package = name.replace("-", "_")
    click.echo(
        f'Next: cd {parent / name} && python -m pip install -e ".[test]" && pytest && modhook run {package}.toml && '
        f"modhook report results/{package}.zarr"
    )
