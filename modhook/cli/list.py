"""`modhook list`."""

from __future__ import annotations

import json

import click

from modhook.cli.say import say_skipped
from modhook.plugin.manager import KINDS, plugins


@click.command("list")
@click.argument("kind", required=False, type=click.Choice(list(KINDS)))
@click.option("--json", "as_json", is_flag=True, help="Print JSON: an object by kind, or one array if KIND is given.")
def list_command(kind: str | None, as_json: bool) -> None:
    """List what the installed plugins bring: tasks, models, analyses, figures, samplers, protocols, trackers."""
    installed = plugins()
    kinds = [kind] if kind else list(KINDS)
    rows = {
        k: [
            {"name": e.spec.name, "summary": e.spec.summary, "target": e.spec.target, "package": e.distribution}
            for e in installed.entries(k)
        ]
        for k in kinds
    }
    say_skipped(installed)
    if as_json:
        click.echo(json.dumps(rows[kind] if kind else rows, indent=2))
        return
    width = max((len(r["name"]) for found in rows.values() for r in found), default=0)
    for k, found in rows.items():
        click.echo(f"{k}:")
        for row in found:
            origin = "" if row["package"] == "modhook" else f" [{row['package']}]"
            click.echo(f"  {row['name']:<{width}}  {row['summary']}{origin}")
        if not found:
            click.echo("  none")
