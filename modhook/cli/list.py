"""`modhook list`."""

from __future__ import annotations

import json
import os

import click

from modhook.cli.say import say, say_skipped
from modhook.errors import UserError
from modhook.plugin.culprit import DEBUG, traceback_of
from modhook.plugin.manager import KINDS, plugins


@click.command("list")
@click.argument("kind", required=False, type=click.Choice([*KINDS, "studies"]))
@click.option("--broken", is_flag=True, help="List instead what cannot be loaded, and why (loads everything); exit code 1 if there is any.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: an object by kind, or one array if KIND is given.")
def list_command(kind: str | None, broken: bool, as_json: bool) -> int:
    """List what the installed plugins bring: tasks, models, analyses, figures, samplers, protocols, trackers.

    With `studies`: the studies that come with modhook, which `modhook run` and `modhook check` find by their names.
    """
    if broken:
        return _list_broken(kind, as_json)
    if kind == "studies":
        _list_studies(as_json)
        return 0
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
        return 0
    width = max((len(r["name"]) for found in rows.values() for r in found), default=0)
    for k, found in rows.items():
        click.echo(f"{k}:")
        for row in found:
            origin = "" if row["package"] == "modhook" else f" [{row['package']}]"
            click.echo(f"  {row['name']:<{width}}  {row['summary']}{origin}")
        if not found:
            click.echo("  none")
    return 0


def _list_broken(kind: str | None, as_json: bool) -> int:
    """Print what cannot be loaded; return 1 where there is something, for scripts and continuous integration."""
    from modhook.plugin.broken import find_broken

    if kind == "studies":
        raise UserError("--broken is about plugins; `modhook check NAME` says what is wrong with a study.")
    found = find_broken([kind] if kind else tuple(KINDS))
    if as_json:
        rows = [{"name": one.name, "package": one.distribution, "reason": one.reason} for one in found]
        click.echo(json.dumps(rows, indent=2))
        return 1 if found else 0
    say("broken:")
    for one in found:
        say(f"  {one.name} [{one.distribution}]: {' '.join(one.reason.split())}")
        if one.error is not None and os.environ.get(DEBUG):
            say(traceback_of(one.error), err=True)
    if not found:
        say("  none")
    return 1 if found else 0


def _list_studies(as_json: bool) -> None:
    from modhook.study import shipped_studies

    found = shipped_studies()
    if as_json:
        rows = [
            {"name": s.name, "summary": s.description, "variants": list(s.variants), "target": str(s.path)} for s in found
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    width = max((len(s.name) for s in found), default=0)
    click.echo("studies:")
    for one in found:
        variants = f" [--variant {', '.join(one.variants)}]" if one.variants else ""
        click.echo(f"  {one.name:<{width}}  {one.description}{variants}")
    if not found:
        click.echo("  none")
