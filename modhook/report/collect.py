"""Puts together what a report shows, as plain values; the page's look is the template's affair."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from modhook import __version__
from modhook.cube import stem
from modhook.errors import ModhookError
from modhook.plugin.code import is_code
from modhook.plugin.interfaces import Figure
from modhook.plugin.manager import Plugins
from modhook.report.cautions import Caution, cautions
from modhook.report.facts import Facts, Place, label
from modhook.report.findings import findings
from modhook.report.pictures import Undrawn, pictures, trend
from modhook.report.scores import score_tables
from modhook.report.verdicts import verdicts
from modhook.study import PLAIN_NAME
from modhook.study.toml import as_toml
from modhook.tables import WORDS, tables


def collect(facts: Facts, plugins: Plugins, further: Mapping[str, type[Figure]]) -> dict[str, Any]:
    """Return everything that the template names. `further` figures are drawn beside those that are installed."""
    cube, source = facts.cube, facts.source
    study = facts.table.get("study", {})
    done = int((facts.status == 1).sum())
    # Before anything is done, figures and tables would be empty frames.
    drawn, failed = pictures([cube], plugins, further) if done else ([], [])
    first, lost = trend(facts) if done else ([], [])
    failed = [*lost, *failed]
    warned = cautions(facts)
    if failed:
        warned.append(undrawn(failed))
    docs, asked = _stage_docs(facts, plugins), _asked(facts, plugins)
    scores = score_tables(facts, docs)
    return {
        "name": stem(source.name),
        "description": str(study.get("description", "")),
        "cube": source.name,
        "asked": asked,
        "task": next(words for what, _, words in asked if what == "Task"),
        "stage_words": [("Stage", stage, docs[stage]) for stage in facts.stages if docs.get(stage)],
        "progress": f"{done} of {facts.status.size} stages done",
        "finished": done == facts.status.size,
        "findings": findings(facts),
        "verdicts": verdicts(facts) if done else None,
        "cautions": warned,
        "scores": scores,
        "spread": any(cell.spread for table in scores for row in table.rows for cell in row.cells),
        "words": [WORDS[split] for split in facts.splits if split in WORDS],
        "sweep": len(facts.points) > 1,
        "trend": first,
        "pictures": drawn,
        "tables": [t for t in tables(cube) if not t.title.startswith("scores/")] if done else [],
        "stages": facts.every_stage,
        "analyses": facts.analyses,
        "state": [_state(facts, point) for point in facts.points],
        "data": _data(cube.attrs.get("data", {})),
        "computed": facts.computed,
        "versions": dict(cube.attrs.get("versions", {})),
        "routes": _routes(facts),
        "again": _again(facts),
        "modhook": __version__,
    }


def undrawn(failed: Sequence[Undrawn]) -> Caution:
    """Return the caution that says which figures are not there, and why."""
    return Caution("caution", "Figures could not be drawn", tuple(f"{f.name}: {f.reason}" for f in failed))


def _code(facts: Facts) -> list[str]:
    """Return the files that the study's own code comes from; of modules that have none on record, their names."""
    found: Any = facts.cube.attrs.get("code", {})
    files = [file for by_file in found.values() for file in by_file] if isinstance(found, Mapping) else []
    named = [facts.table.get(section, {}).get("name") for section in ("task", "model")]
    return list(dict.fromkeys([*files, *(str(n) for n in named if is_code(n) and not (files and n in found))]))


def _asked(facts: Facts, plugins: Plugins) -> list[tuple[str, str, str]]:
    """Return what was asked: (what, name, in words)."""
    table, words = facts.table, []
    for what, kind, name in (
        ("Task", "tasks", table.get("task", {}).get("name", "")),
        ("Network", "models", table.get("model", {}).get("name", "")),
        ("Protocol", "protocols", table.get("study", {}).get("protocol", "")),
        *(("Analysis", "analyses", name) for name in table.get("analyses", {})),
    ):
        summaries = {e.spec.name: e.spec.summary for e in plugins.entries(kind)}
        words.append((what, str(name), summaries.get(name, "")))
    seeds = len(facts.seeds)
    runs = f"{seeds} seed{'s' if seeds != 1 else ''}"
    if facts.sweep:
        runs += f" at each of {len(facts.points)} settings of {', '.join(facts.sweep)}"
    return [*words, ("Runs", runs, "")]


def _stage_docs(facts: Facts, plugins: Plugins) -> dict[str, str]:
    """Return the task's own words for its stages; nothing where its plugin is not installed here."""
    from modhook.study import restore

    try:
        study = restore(facts.table, plugins=plugins)
        task = plugins.load("tasks", study.task.name)(study.task.options)
    except ModhookError:
        return {}
    return {"unmasked": "the trained network"} | {stage.name: stage.doc for stage in task.stages}


def _state(facts: Facts, point: Place) -> tuple[str, list[tuple[str, str]]]:
    """Return a sweep point's label, and for every stage and analysis how many seeds are done and the word for its look."""
    total, cells = len(facts.seeds), []
    for stage in facts.every_stage:
        status = facts.status.sel({**point, "stage": stage})
        cells.append(_progress(int((status == 1).sum()), int((status == 2).sum()), total))
    for name in facts.analyses:
        status = facts.read("runs", name).sel(point)
        cells.append(_progress(int((status == 1).sum()), int((status == 2).sum()), total))
    return label(point) or "all seeds", cells


def _progress(done: int, failed: int, total: int) -> tuple[str, str]:
    text = f"{done} of {total}" + (f", {failed} failed" if failed else "")
    return text, "failed" if failed else "done" if done == total else "partly" if done else "pending"


def _data(fingerprints: Any) -> list[tuple[str, str]]:
    """Return (data set, fingerprint); where a sweep has several tasks, each has its number."""
    several = len(fingerprints) > 1
    return [
        (f"{name} (task {number})" if several else name, str(value))
        for number, sets in fingerprints.items()
        for name, value in sets.items()
    ]


def _routes(facts: Facts) -> list[tuple[str, str]]:
    """Return (stage, how the executor ran the network in it), every way once."""
    found: dict[tuple[str, str], None] = {}
    route = facts.read("runs", "route")
    for stage in facts.every_stage:
        for text in route.sel(stage=stage).values.ravel().tolist():
            if text:
                found[stage, str(text)] = None
    return list(found)


def _again(facts: Facts) -> dict[str, str]:
    """Return the study as a file, its name, and the commands that compute and report it once more."""
    own, name = stem(facts.source.name), str(facts.table.get("study", {}).get("name", ""))
    rest = own.removeprefix(f"{name}-")
    # Whoever renamed the cube by hand gets the study without a variant.
    variant = rest if own != rest and re.fullmatch(PLAIN_NAME.pattern, rest) else None
    text, file = as_toml(facts.table, variant), f"{own}.toml"
    run = f"modhook run {shlex.quote(file)}" + (f" --variant {variant}" if variant else "") + " --out again"
    cube = f"again/{own if variant else name}.zarr"
    return {
        "toml": text,
        "file": file,
        "link": f"data:application/toml;base64,{base64.b64encode(text.encode('utf-8', 'replace')).decode('ascii')}",
        "commands": f"modhook check {shlex.quote(file)}\n{run}\nmodhook report {shlex.quote(cube)}",
        "weights": str(facts.table.get("train", {}).get("weights") or ""),
        "code": ", ".join(_code(facts)),
    }
