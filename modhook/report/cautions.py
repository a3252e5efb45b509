"""What the reader of a report should know before trusting its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import attrs
import numpy as np

from modhook.fit.trust import TITLES
from modhook.report.facts import Facts, Place, known, label, listed, mean
from modhook.report.findings import percent

FAR = 0.10
"""A difference of accuracies, as a share, from which on it is called far."""
WEAK = 0.50
"""An accuracy of the unmasked network, as a share, below which its masks can say little."""


@attrs.frozen
class Caution:
    """One thing to know: `failure` for numbers that are missing or wrong, `caution` for numbers to read with care."""

    level: Literal["failure", "caution"]
    title: str
    details: tuple[str, ...] = ()


def cautions(facts: Facts) -> list[Caution]:
    """Return every warning, failures first."""
    every = [*_failed(facts), *_not_finite(facts), *_missing(facts), *doubts(facts), *_untested(facts)]
    return sorted(every, key=lambda w: w.level != "failure")


def doubts(facts: Facts) -> list[Caution]:
    """Return why the numbers of what is done may mean little: a network or masks that have not learned, and what fits said of theirs."""
    rules = (_diverged, _extreme, _weak, _control, _far, _trust)
    return [caution for rule in rules for caution in rule(facts)]


def in_lines(found: Sequence[Caution], most: int = 3) -> list[str]:
    """Return cautions as lines: the title, and what it is about, of more than `most` places the first ones."""
    lines = []
    for one in found:
        more = f"; and {len(one.details) - most} more" if len(one.details) > most else ""
        lines.append(f"{one.title}: {'; '.join(d.rstrip('.') for d in one.details[:most])}{more}." if one.details else f"{one.title}.")
    return lines


def _failed(facts: Facts) -> Iterator[Caution]:
    details = []
    for run in facts.runs:
        for stage in facts.every_stage:
            at = {**run, "stage": stage}
            if int(facts.status.sel(at)) == 2:
                details.append(f"{label(run)}, {stage}: {facts.reason.sel(at).item() or 'no reason was stored'}")
    if details:
        yield Caution("failure", f"{_count(details, 'stage')} failed", tuple(details))


def _not_finite(facts: Facts) -> Iterator[Caution]:
    """Stages that are done and have no finite score at all; one of some splits may be left out by a protocol."""
    details = []
    for metric in facts.metrics if "scores" in facts.cube.children else ():
        scores = facts.read("scores", metric)
        for run in facts.runs:
            for stage in facts.stages:
                at = {**run, "stage": stage}
                if int(facts.status.sel(at)) == 1 and not known(scores.sel(at)):
                    details.append(f"{label(run)}, {stage}: {metric}")
    if details:
        verb = "is" if len(details) == 1 else "are"
        yield Caution("failure", f"{_count(details, 'score')} of finished stages {verb} not finite", tuple(details))


def _diverged(facts: Facts) -> Iterator[Caution]:
    """A loss that ends above that of the untrained network, the first one that base training recorded."""
    history = facts.cube["history"].data_vars if "history" in facts.cube.children else {}
    if "train_loss" not in history:
        return
    train = facts.read("history", "train_loss")
    settings = facts.table.get("masks", {})
    # A pull that rises takes nearly everything away in the end: the loss of those samples is not that of masks that are cut.
    cut = bool(settings.get("cut")) and settings.get("beta_start") is not None
    masks = facts.read("history", "loss") if "loss" in history and not cut else None
    details = []
    for run in facts.runs:
        base = known(train.sel(run))
        if not base:
            continue
        if base[-1] > base[0]:
            details.append(f"{label(run)}, unmasked: the loss went from {base[0]:.3g} to {base[-1]:.3g}")
        if masks is None:
            continue
        for stage in masks["stage"].values:
            losses = known(masks.sel(run).sel(stage=stage))
            if losses and losses[-1] > base[0]:
                details.append(
                    f"{label(run)}, {stage}: the loss ends at {losses[-1]:.3g}, above the untrained network's {base[0]:.3g}"
                )
    if details:
        yield Caution("failure", f"{_count(details, 'stage')} diverged", tuple(details))


def _missing(facts: Facts) -> Iterator[Caution]:
    details = []
    for point in facts.points:
        status = facts.status.sel(point)
        seeds = [s for s in facts.seeds if not bool((status.sel(seed=s) == 1).all())]
        if seeds:
            where = f" at {label(point)}" if point else ""
            details.append(f"{'seed' if len(seeds) == 1 else 'seeds'} {listed([str(s) for s in seeds], 10)}{where}")
    if details:
        runs = len(facts.runs)
        lacking = int((~(facts.status == 1).all("stage")).sum())
        yield Caution(
            "caution", f"{lacking} of {runs} runs {'is' if lacking == 1 else 'are'} not finished", tuple(details)
        )
    late = [
        f"{name}: {left} of {len(facts.runs)} runs"
        for name in facts.analyses
        if (left := int((facts.read("runs", name) != 1).sum())) and not details
    ]
    if late:
        yield Caution("caution", "Analyses are not done everywhere", tuple(late))


def _extreme(facts: Facts) -> Iterator[Caution]:
    for share, word in ((0.0, "nothing"), (1.0, "everything")):
        details = [
            f"{label(run)}, {stage}"
            for run in facts.runs
            for stage in facts.masked
            if float(facts.kept.sel({**run, "stage": stage})) == share
        ]
        if details:
            yield Caution("caution", f"{_count(details, 'mask')} kept {word}", tuple(details))


def _weak(facts: Facts) -> Iterator[Caution]:
    """Masks show which weights a function needs only where the network has learned it."""
    scores = facts.score(facts.metrics[0]) if facts.metrics and "unmasked" in facts.stages else None
    if scores is None:
        return
    details = []
    for point in facts.points:
        value = mean(scores.sel({**point, "stage": "unmasked", "split": facts.splits[0]}))
        if value < WEAK:
            details.append(f"{percent(value, 1)} on {facts.splits[0]} before any masking{_at(point)}")
    if details:
        yield Caution("caution", "The trained network itself is weak, so its masks say little", tuple(details))


def _control(facts: Facts) -> Iterator[Caution]:
    """The control's mask should do what the network does; where it does not, the other masks say little."""
    if "unmasked" not in facts.stages or "control" not in facts.stages or not facts.metrics:
        return
    scores = facts.score(facts.metrics[0])
    assert scores is not None
    details = []
    for point in facts.points:
        for split in facts.splits:
            at = scores.sel({**point, "split": split})
            before, after = mean(at.sel(stage="unmasked")), mean(at.sel(stage="control"))
            if before - after > FAR:
                details.append(
                    f"{split}: {percent(before, 1)} unmasked, {percent(after, 1)} under the control{_at(point)}"
                )
    if details:
        yield Caution(
            "caution",
            "The control's mask is far below the unmasked network: longer or gentler mask training may help",
            tuple(details),
        )


def _far(facts: Facts) -> Iterator[Caution]:
    if "control" not in facts.stages or not facts.metrics:
        return
    scores = facts.score(facts.metrics[0])
    assert scores is not None
    details = []
    for point in facts.points:
        for stage in (s for s in facts.functions if s in facts.splits):
            at = scores.sel({**point, "split": stage})
            own, control = mean(at.sel(stage=stage)), mean(at.sel(stage="control"))
            if abs(own - control) > FAR and np.isfinite(own - control):
                details.append(
                    f"{stage}: {percent(own, 1)} under its own mask, {percent(control, 1)} under the control{_at(point)}"
                )
    if details:
        yield Caution(
            "caution", "A function does far better or worse under its own mask than under the control", tuple(details)
        )


def _trust(facts: Facts) -> Iterator[Caution]:
    """What `fit_masks` said of each mask; a sentence that several masks share stands once."""
    history = facts.cube["history"].data_vars if "history" in facts.cube.children else {}
    if "trust" not in history:
        return
    said = facts.read("history", "trust")
    found: dict[str, dict[str, list[str]]] = {}
    for run in facts.runs:
        for stage in map(str, said["stage"].values):
            at = {**run, "stage": stage}
            lines = str(said.sel(at).item()).splitlines() if int(facts.status.sel(at)) == 1 else []
            for rule, _, sentence in (line.partition(": ") for line in lines):
                found.setdefault(rule, {}).setdefault(sentence, []).append(f"{label(run)}, {stage}")
    for rule, title in TITLES.items():
        if rule in found and rule not in ("extreme", "cut"):  # that is counted from the masks themselves
            details = [
                f"{places[0] if len(places) == 1 else _count(places, 'mask')}: {sentence}"
                for sentence, places in found[rule].items()
            ]
            yield Caution("caution", title, tuple(details))


def _untested(facts: Facts) -> Iterator[Caution]:
    """Functions of `ask` without held-out tests."""
    task = facts.cube.attrs.get("study", {}).get("task", {})
    if task.get("name") == "ask" and "functions" in task:
        details = tuple(str(name) for name in task["functions"] if name not in task.get("tests", {}))
        if details:
            yield Caution("caution", "No held-out tests: measured on what the masks were learned on", details)


def _at(point: Place) -> str:
    return f" at {label(point)}" if point else ""


def _count(details: list[str], noun: str) -> str:
    return f"{len(details)} {noun}{'s' if len(details) != 1 else ''}"
