"""Fits every method to the networks with a known answer and writes docs/truth.md, its figures and docs/truth.json: `nox -s truth`.

Each fit is one line in a file, so that a run that is stopped goes on where it was; a fit that is there is not done again, unless its
setting has changed. Without arguments everything that is missing is fitted, which takes hours on one core.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import densities
import fits
import page
from methods import KINDS, METHODS, SEEDS

ROOT = Path(__file__).parents[2]
Wanted = tuple[str, str, str, int]
"""Method, network, function, seed."""


def main() -> None:
    """Fit what is missing, as long as the budget lasts, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), default=list(METHODS), metavar="NAME")
    parser.add_argument("--networks", nargs="*", metavar="NAME", help="networks, or kinds of networks: " + ", ".join(KINDS))
    parser.add_argument("--seeds", nargs="*", type=int, default=list(range(SEEDS)))
    parser.add_argument("--budget", type=float, default=float("inf"), help="minutes, after which no more fits are begun")
    parser.add_argument("--cache", type=Path, default=ROOT / ".nox/truth.jsonl", help="the file of fits")
    parser.add_argument("--densities", action=argparse.BooleanOptionalAction, default=True, help="whether densities are asked for, too")
    parser.add_argument("--only-page", action="store_true", help="write page and figures again from docs/truth.json")
    parser.add_argument("--no-page", action="store_true", help="fit only")
    options = parser.parse_args()
    if options.only_page:
        page.write(json.loads((ROOT / "docs/truth.json").read_text(encoding="utf-8")), ROOT / "docs")
        return
    done, began = stored(options.cache), time.monotonic()
    missing = [w for w in wanted(options.methods, options.networks, options.seeds) if key(*w) not in done]
    print(f"{len(missing)} fits are missing", flush=True)
    for method, network, function, seed in missing:
        if time.monotonic() - began > options.budget * 60:
            print("the budget is spent; the same command goes on", flush=True)
            break
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a method that fails is what is measured
            found = fits.measured(network, function, METHODS[method], seed)
        line = {"key": key(method, network, function, seed), "method": method, "network": network, "function": function}
        append(options.cache, {**line, "seed": seed, **found})
        shown = {name: f"{m['kept']:.0f} kept, accuracy {m['accuracy']:.3f}" for name, m in found["masks"].items()}
        print(f"{method} {network} {function} {seed}: {found['seconds']:.1f} s {shown}", flush=True)
    for sampler, network, density in densities.asked() if options.densities else ():
        name = density_key(sampler, network, density)
        if name not in done:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                append(options.cache, {"key": name, **densities.measured(sampler, network, density)})
    if not options.no_page:
        now = stored(options.cache)
        sizes = [now[k] for k in itertools.starmap(density_key, densities.asked()) if k in now]
        current = [now[key(*w)] for w in wanted(list(METHODS), None, list(range(SEEDS))) if key(*w) in now]
        page.write(page.summarised(current, sizes), ROOT / "docs")


def wanted(methods: list[str], networks: list[str] | None, seeds: list[int]) -> Iterator[Wanted]:
    """Yield what is to be fitted: method by method, seed by seed."""
    chosen = [n for kind, names in KINDS.items() for n in names if networks is None or n in networks or kind in networks]
    asked = [(network, function) for network in chosen for function in fits.functions(network)]
    for method in methods:
        for seed in seeds:
            yield from ((method, network, function, seed) for network, function in asked)


def key(method: str, network: str, function: str, seed: int) -> str:
    """Return what a fit is known by: its setting is part of it."""
    return f"{network} {function} {method}[{METHODS[method].written}] {seed}"


def density_key(sampler: str, network: str, density: float) -> str:
    """Return what a fit of a given density is known by."""
    return f"density {network} {sampler}[{densities.SETTING['steps']} steps] {density}"


def stored(path: Path) -> dict[str, dict[str, Any]]:
    """Return the fits of a file by their keys; a last line that was cut off is left out."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            fit = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[fit["key"]] = fit
    return found


def append(path: Path, fit: dict[str, Any]) -> None:
    """Write one more fit; NaN as null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(page.plain(fit)) + "\n")


if __name__ == "__main__":
    sys.exit(main())
