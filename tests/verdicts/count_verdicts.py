"""Asks networks of which it is known whether a function is in them, with all controls, and counts wrong verdicts: `nox -s verdicts`.

Every network's cube stays in a folder, so that a run that is stopped goes on where it was, and what is finished is only judged again.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import asked_networks as networks
import torch
import verdict_table

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Ask what is missing, as long as the budget lasts, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="*", metavar="NAME", default=list(networks.ORDER), choices=list(networks.ORDER))
    parser.add_argument("--seeds", type=int, help="default: 5, and 3 of the trained pair and where nothing is there")
    parser.add_argument("--budget", type=float, default=float("inf"), help="minutes, after which no more networks are asked")
    parser.add_argument("--cache", type=Path, default=ROOT / ".nox/verdicts", help="the folder of cubes")
    parser.add_argument("--only-page", action="store_true", help="write the tables again from docs/verdicts.json")
    parser.add_argument("--no-page", action="store_true", help="ask only")
    options = parser.parse_args()
    file = ROOT / "docs/verdicts.json"
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if options.only_page:
        verdict_table.write(before, ROOT / "docs")
        return
    rows = current(before)
    began = time.monotonic()
    for network in options.networks:
        if time.monotonic() - began > options.budget * 60:
            print("the budget is spent; the same command goes on", flush=True)
            break
        used = time.process_time()
        seeds = options.seeds or networks.SEEDS[networks.kind_of(network)]
        found = networks.summarised(network, networks.ask(network, seeds, options.cache), seeds)
        print(f"{network}: {time.process_time() - used:.0f} s of processor time", flush=True)
        for row in found:
            print(row["function"], row["verdicts"], *(f"  {f['verdict']}, {f['answer']}: {f['words']}" for f in row["findings"]), sep="\n")
        for finding in (f for row in found for f in row["findings"]):
            del finding["words"]  # its numbers are kept
        if not options.no_page:
            rows = merged(rows, verdict_table.plain(found))
            verdict_table.write(document(rows), ROOT / "docs")


def current(before: dict[str, Any]) -> list[verdict_table.Row]:
    """Return the rows of a file that were found by today's setting: a table is of one."""
    return before["rows"] if before.get("setting") == networks.SETTING else []


def merged(rows: list[verdict_table.Row], found: list[verdict_table.Row]) -> list[verdict_table.Row]:
    """Return the rows with those of one network put in the place of its old ones."""
    names = {row["network"] for row in found}
    every = [row for row in rows if row["network"] not in names] + found
    return sorted(every, key=lambda row: networks.ORDER.index(row["network"]))


def document(rows: list[verdict_table.Row]) -> dict[str, Any]:
    """Return what docs/verdicts.json holds."""
    machine = f"one core of {platform.machine()}, torch {torch.__version__}"
    return {"machine": machine, "setting": networks.SETTING, "rows": rows}


if __name__ == "__main__":
    sys.exit(main())
