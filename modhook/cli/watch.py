"""`modhook watch`."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import click

from modhook.cli.say import say
from modhook.cli.where import WherePath

if TYPE_CHECKING:
    from modhook.cube import Where

EVERY = 2.0
"""Seconds between two looks."""


@click.command("watch")
@click.argument("cube", type=WherePath())
@click.option(
    "--page", is_flag=True, help="Show it on a page of this machine (http://127.0.0.1:...) instead of the terminal."
)
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=0, metavar="P", help="Port of the page; default: a free one."
)
@click.option("--once", is_flag=True, help="Show how far it is, and end.")
def watch_command(cube: Where, page: bool, port: int, once: bool) -> None:
    """Watch a study that is being computed, by whatever processes: runs, stages, speed, time left, loss, weights kept.

    CUBE is what `modhook run` writes. Watching changes nothing, may begin and end at any time, and ends by itself when every
    run is done or has failed. Runs of workers on other machines are seen where they share the cube's folder.
    """
    from modhook.watching import Page, Watcher, watch

    watcher = Watcher(cube)
    if not page or once:
        watch(watcher, every=EVERY, once=once)
        return
    watcher.look()  # a mistake is said here
    with Page(watcher, port) as served:
        say(f"{served.url} (Ctrl-C ends it)")
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)
