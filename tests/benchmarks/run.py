"""Runs the benchmarks and writes docs/benchmarks.md, its figure and docs/benchmarks.json: `nox -s bench [-- --quick | --compare]`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import compare
import curves
import end_to_end
import floor
import samplers
import table
import torch
import units
from measure import busy
from networks import CASES

ROOT = Path(__file__).parents[2]
KINDS: dict[str, Any] = {"table": table, "samplers": samplers, "units": units}
PROCESSES = {"table": 5, "samplers": 3, "units": 3}
"""Per row, on a CPU. On other devices one process measures all kinds of a row: what differs between processes is the CPU's allocator, and
a GPU is often lent by the minute."""


def main() -> None:
    """Measure, print, and write unless --quick."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short measurements; nothing is written")
    parser.add_argument(
        "--only", "--rows", nargs="*", choices=list(CASES), metavar="ROW", help=f"of {', '.join(CASES)}; nothing is written"
    )
    parser.add_argument("--samplers", action="store_true", help="only the samplers' table; nothing is written")
    parser.add_argument("--units", action="store_true", help="only the table of units; nothing is written")
    parser.add_argument(
        "--compare", action="store_true", help="compare with what is stored for this processor; exit code 1 where something is worse"
    )
    parser.add_argument(
        "--processes", type=int, help="per row; the table gives the median of their ratios to the fastest plain step"
    )
    parser.add_argument("--row", choices=list(CASES), help=argparse.SUPPRESS)  # what each of them does
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS), help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--busy", action="store_true", help="CPU time of one thread: for a machine with other work")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.busy:
        busy()
    only = options.samplers or options.units
    kind_of_device = torch.device(options.device).type
    seconds = 3.0 if options.quick else 15.0 if kind_of_device == "cpu" else 4.0
    if options.row:
        found = {kind: KINDS[kind].measure(CASES[options.row], options.device, seconds / 5, least=2) for kind in options.kinds}
        print(json.dumps(found))
        return
    timed = "; CPU time of one thread and of the fastest steps, as other work ran beside" if options.busy else ""
    suffix = "" if kind_of_device == "cpu" else f"-{kind_of_device}"
    file = ROOT / f"docs/benchmarks{suffix}.json"
    stored = compare.by_processor(json.loads(file.read_text())) if file.exists() else {}
    kind_of = _kind(options.device) + compare.BUSY * options.busy
    then: compare.Ratios = {}
    if options.compare:
        try:
            then = compare.ratios(compare.stored_for(stored, kind_of))  # before anything is measured
        except LookupError as error:
            print(f"Error: {error.args[0]}", file=sys.stderr)
            sys.exit(2)
    results: dict[str, Any] = {"table": {}, "samplers": {}, "units": {}, "ratios": {}, "machine": _machine(options.device) + timed}
    wanted = [kind for kind in KINDS if getattr(options, kind, False)] if only else list(KINDS)
    rows, failed = list(options.only or CASES), []
    for kinds in [[kind] for kind in wanted] if kind_of_device == "cpu" else [wanted]:
        usual = PROCESSES[kinds[0]] if kind_of_device == "cpu" and not options.quick else 1
        for name in rows:
            # A plain step's speed differs by a third between processes: in some the allocator gives memory back every step.
            try:
                found = [_row(name, kinds, options) for _ in range(options.processes or usual)]
            except subprocess.CalledProcessError:
                if kind_of_device == "cpu":
                    raise
                failed.append(name)  # the others are measured all the same: the next loan of a GPU may be far
                continue
            for kind in kinds:
                line = _take(results, name, kind, [each[kind] for each in found], promised=kind_of_device == "cpu")
                print("  ".join(f"{key} {cell}" for key, cell in line.items()), flush=True)
    if options.compare:
        text, code = compare.report(then, results["ratios"])
        print(text)
        sys.exit(code)
    if failed:
        print(f"Error: {', '.join(failed)} could not be measured; what was printed above says why. The tables lack them.", file=sys.stderr)
    if options.quick or options.only or only or failed == rows:
        sys.exit(bool(failed))
    results["curves"] = curves.measure(options.device, seconds / 6)
    if not suffix:
        speed = floor.speeds()
        results["speeds"] = floor.said(speed)
        steps = {name: float(row["plain ms"]) for name, row in results["table"].items()}
        results["floor"] = {name: floor.row(name, floor.measure(CASES[name], speed, seconds / 5, steps[name])) for name in CASES}
        results["end_to_end"] = end_to_end.measure()
        print(json.dumps(results["end_to_end"], indent=1))
    file.write_text(json.dumps({**stored, kind_of: results}, indent=1) + "\n")
    curves.draw(results["curves"], ROOT / f"docs/benchmarks{suffix}.png")
    (ROOT / f"docs/benchmarks{suffix}.md").write_text(_page(results, suffix))
    sys.exit(bool(failed))


def _take(results: dict[str, Any], name: str, kind: str, found: list[Any], promised: bool) -> dict[str, str]:
    """Put what the processes of a row measured into the results, and return its line."""
    if kind == "table":
        head, line = table.rows({name: found})
        results["ratios"] |= {f"{name}: {path}": r for path in compare.OURS if (r := table.ratios(found, path, "plain"))}
        results[kind][name] = dict(zip(head, line, strict=True))
        if not promised:  # nothing is promised there, and one process has no spread
            for column in ("must reach", "least to most", "own"):
                results[kind][name].pop(column)
    else:
        results[kind][name] = KINDS[kind].row(name, found)
        if not promised:
            results[kind][name].pop("least to most", None)
        results["ratios"] |= {f"{name}, {kind}: {what}": r for what, r in KINDS[kind].ratios(found).items()}
    line_of: dict[str, str] = results[kind][name]
    return line_of


def _row(name: str, kinds: list[str], options: argparse.Namespace) -> Any:
    """Return what a process of its own measures for one row, by kind."""
    command = [sys.executable, __file__, "--row", name, "--threads", str(options.threads), "--device", options.device]
    command += ["--quick"] * options.quick + ["--busy"] * options.busy + ["--kinds", *kinds]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _page(results: dict[str, Any], suffix: str) -> str:
    text = (Path(__file__).parent / ("page_cuda.md" if suffix else "page.md")).read_text()
    steep = "\n".join(
        f"- {curve}, {name}: {', '.join(f'{s:.2f}' for s in curves.slopes(points))} between {_list(points)}"
        for curve, networks in results["curves"].items()
        for name, points in networks.items()
    )
    of_both = {
        "machine": results["machine"], "table": _lines(results["table"]), "samplers": _lines(results["samplers"]),
        "units": _lines(results["units"]), "slopes": steep, "figure": f"benchmarks{suffix}.png",
    }  # fmt: skip
    if suffix:
        return text.format(**of_both)
    ends = results["end_to_end"]
    return text.format(
        **of_both, speeds=results["speeds"], floor=_lines(results["floor"]), target=samplers.TARGET, units_target=units.TARGET,
        overhead=100 * (ends["runner_step_ms"] / ends["bare_step_ms"] - 1), **ends,
    )  # fmt: skip


def _lines(found: dict[str, dict[str, str]]) -> str:
    """Return rows as a table of markdown."""
    rows = list(found.values())
    lines = [f"| {' | '.join(row)} |" for row in ([*rows[0]], *(row.values() for row in rows))]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)


def _list(points: list[curves.Point]) -> str:
    return ", ".join(f"{point['x']:g}" for point in points)


def _kind(device: str) -> str:
    """Return what ratios depend on, and results are stored by: the processor and the number of threads."""
    return f"{torch.cuda.get_device_name(device) if device.startswith('cuda') else _processor()}, {_threads()}"


def _machine(device: str) -> str:
    """Return what it was measured on: the processor with its family, model and cores, and versions."""
    return f"{_kind(device)}, Python {platform.python_version()}, torch {torch.__version__}"


def _threads() -> str:
    count = torch.get_num_threads()
    return f"{count} thread{'s' if count != 1 else ''}"


def _processor() -> str:
    """Return a CPU as /proc/cpuinfo names it, `AMD EPYC (family 25, model 17), 2 cores, AVX512`; only what is known elsewhere."""
    said: dict[str, str] = {}
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        key, _, value = line.partition(":")
        said.setdefault(key.strip(), value.strip())
    name = said.get("model name") or platform.processor() or platform.machine()
    kind = f" (family {said['cpu family']}, model {said['model']})" if "cpu family" in said and "model" in said else ""
    return f"{name}{kind}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"


if __name__ == "__main__":
    main()
