"""Fills a cube of 1,000 runs through the real writer, and measures opening it and drawing figures from it.

python tests/benchmarks/thousand_runs.py FOLDER [--runs 1000] [--figure beta_sensitivity]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from modhook.cube import Cube, create, open_for_writing
from modhook.plugin.manager import plugins
from modhook.run.build import build_task
from modhook.run.layout import plan, prepare
from modhook.study import load, points

ROOT = Path(__file__).parents[2]
OPEN = """
import json, sys, time
from modhook.cube import open_cube
wall, cpu = time.monotonic(), time.process_time()
with open_cube(sys.argv[1]) as cube:
    runs = int(cube["runs/status"].sizes["seed"])
print(json.dumps({"open": time.monotonic() - wall, "open, CPU": time.process_time() - cpu}))
"""


def main() -> None:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--figure", nargs="*", default=["beta_sensitivity", "addmul_performance", "history"])
    options = parser.parse_args()
    path = options.folder / "thousand.zarr"
    found: dict[str, Any] = {}
    if not path.exists():
        started = time.monotonic()
        cube = make(path, options.runs)
        found["lay out"] = time.monotonic() - started
        started, cpu = time.monotonic(), time.process_time()
        fill(cube)
        found["write one run"] = (time.monotonic() - started) / options.runs
        found["write one run, CPU"] = (time.process_time() - cpu) / options.runs
    files = [p for p in path.rglob("*") if p.is_file()]
    chunks = [p for p in files if p.name != "zarr.json"]
    found |= {
        "files": len(files),
        "metadata files": len(files) - len(chunks),
        "bytes": sum(p.stat().st_size for p in files),
        "bytes of the root's metadata": (path / "zarr.json").stat().st_size,
    }
    opened = subprocess.run([sys.executable, "-c", OPEN, str(path)], check=True, stdout=subprocess.PIPE, text=True)
    found |= json.loads(opened.stdout)
    for name in options.figure:
        started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "modhook", "plot", str(path), "--figure", name, "--format", "png"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found[f"plot {name}, process included"] = time.monotonic() - started
        found[f"plot {name}, CPU"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps(found, indent=1))


def make(path: Path, runs: int) -> Cube:
    """Lay out the beta study with ten seeds, `runs / 10` values of beta and a small network."""
    betas = np.geomspace(1e-6, 1e-2, runs // 10).tolist()
    overrides = [
        f"sweep.masks.beta={betas}",
        "sweep.model.hidden=[[64, 64]]",
        "study.seeds=10",
        "train.validate_every=2",
    ]
    study = load(ROOT / "studies/addmul_beta.toml", variant="smoke", overrides=overrides, plugins=plugins())
    task = build_task(study, plugins())
    prepared = prepare(study, plugins(), [task] * len(points(study)))
    return create(path, plan(prepared, range(1, 11), {"0": {"train": "made up"}}))


def fill(cube: Cube) -> None:
    """Write every variable of every run, as a stage at a time where it has stages; the numbers are made up."""
    cube = open_for_writing(cube.path)
    rng = np.random.default_rng(0)
    dims = list(cube.run_dims)
    names = [n for n in cube.variables if set(dims) <= set(cube.labels(n))]
    runs = [{"seed": s} for s in cube.run_dims["seed"]]
    for dim in dims[1:]:
        runs = [{**run, dim: label} for run in runs for label in cube.run_dims[dim]]
    for run in runs:
        for name in (n for n in names if n not in ("runs/status", "runs/reason", "runs/route", "runs/threads")):
            labels = {d: v for d, v in cube.labels(name).items() if d not in dims}
            for stage in labels.pop("stage", None) or [None]:
                own = {} if stage is None else {"stage": stage}
                shape = tuple(len(v) for v in labels.values())
                cube.write(name, _made_up(rng, cube.dtype(name), shape), run, **own)
        for stage in cube.labels("runs/status")["stage"]:
            cube.set_status(run, str(stage), "done", route="vmap - every module has a rule", threads=1)


def _made_up(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> Any:
    if dtype == "str":
        return np.full(shape, "layout0", dtype=object)
    if dtype.startswith("float"):
        return rng.random(shape).astype(dtype)
    return np.asarray(rng.integers(0, 2, shape)).astype(dtype)


if __name__ == "__main__":
    main()
