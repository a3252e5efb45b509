"""Builds one study from one plain table, without variants and sweep, and checks that its parts fit together."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any, TypeVar

import attrs

from modhook.errors import listing, near_miss
from modhook.plugin.code import short
from modhook.plugin.culprit import told
from modhook.plugin.interfaces import Ranking, Stage
from modhook.plugin.manager import Plugins
from modhook.study.among import check_among
from modhook.study.controls import CEILING, ControlsSection, check_controls, read_controls
from modhook.study.named import make, named, plugin_class
from modhook.study.problems import Problems
from modhook.study.sections import Cut, MasksSection, RunSection, StudySection, TrainSection
from modhook.study.strict import plain
from modhook.study.structure import keys, structured, structured_by
from modhook.study.study import Study
from modhook.study.units import check_units
from modhook.study.weights import KINDS, check_weights
from modhook.values.text import dotted, written

SECTIONS: dict[str, type | None] = {
    "study": StudySection,
    "task": None,
    "model": None,
    "train": TrainSection,
    "masks": MasksSection,
    "analyses": None,
    "controls": ControlsSection,
    "protocol": None,
    "sampler": None,
    "run": RunSection,
}
"""The sections of one run; None where plugins say what the keys are."""

TABLES = (*SECTIONS, "sweep", "variants")
T = TypeVar("T")


@attrs.frozen
class Built:
    """A study without a sweep, and the layout that its task and protocol give the cube."""

    study: Study
    layout: Mapping[str, tuple[str, ...]]


def check_sections(table: Mapping[str, Any], problems: Problems) -> None:
    """Note every key at the top of the file that is no section."""
    for key in table:
        if key in TABLES:
            continue
        homes = [name for name, cls in SECTIONS.items() if cls and key in keys(cls)]
        hint = f"; it belongs in [{homes[0]}]" if homes else near_miss(key, TABLES) or f"; valid: {listing(TABLES)}"
        problems.add((key,), f"unknown key{hint}", known=False)


def build(
    table: Mapping[str, Any], plugins: Plugins, problems: Problems, file: pathlib.Path | None, variant: str | None
) -> Built | None:
    """Return the study of one table, or None after noting everything that is wrong with it.

    `file` is where the study stands; without it (a study restored from a cube) no file of weights that it names is looked for.
    Code that it names is imported where `plugins` allow it: a cube may come from anybody.
    """
    study = _section(StudySection, "study", table, problems)
    task = named("tasks", table.get("task", {}), ("task",), plugins, problems)
    model = named("models", table.get("model", {}), ("model",), plugins, problems)
    train = _section(TrainSection, "train", table, problems)
    protocol = _plugin_of("protocols", StudySection, "study", "protocol", table, plugins, problems)
    if task and not _labelled(task[1], task[0].name, problems):
        task = None
    unmasked = task and protocol and not protocol().masked_stages(task[1])
    left_out = unmasked and "masks" not in table
    masks = MasksSection(steps=1) if left_out else _section(MasksSection, "masks", table, problems)  # steps: unused
    controls, scored = read_controls(table.get("controls", {}), problems)
    analyses = _with_controls(_analyses("analyses", table.get("analyses", {}), plugins, problems), scored, plugins, problems)
    run = _section(RunSection, "run", table, problems)
    _check_trackers(run, plugins, problems)
    sampler = _plugin_of("samplers", MasksSection, "masks", "sampler", table, plugins, problems)
    if train and protocol:
        _check_training(train, protocol, table, problems)
    if train and train.weights is not None and file is not None and protocol and protocol.trains:
        parts = {"task": task and task[0], "model": model and model[0], "train": train, "masks": masks}
        if wrong := check_weights(train.weights, study.seeds if study else 1, parts, file):
            problems.add(("train", "weights"), wrong)
    if masks and not unmasked and masks.off not in KINDS:
        parts = {"task": task and task[0], "model": model and model[0], "train": train, "masks": masks}
        if file is not None and (wrong := check_weights(masks.off, study.seeds if study else 1, parts, file)):
            hint = near_miss(masks.off, KINDS) or f"; {', '.join(KINDS)} or a file"
            problems.add(("masks", "off"), wrong + hint)
    if masks and protocol and protocol.weights_per_stage and masks.off != "zero":
        name = table.get("study", {}).get("protocol")
        problems.add(("masks", "off"), f"the protocol {name!r} changes the weights that masks are over; leave it out")
    if masks and not unmasked:
        check_among(masks, sampler, protocol, study.protocol if study else "this one", plugins, problems)
        check_units(masks, protocol, study.protocol if study else "this one", plugins, problems)
    if train and masks and not unmasked:
        _check_groups(train, masks, problems)
        _check_size(masks, sampler, problems)
        if masks.cut != "threshold" and protocol and not protocol.cuts and file is not None:
            name = study.protocol if study else "this one"
            problems.add(("masks", "cut"), f"the protocol {name!r} cuts no masks, it takes those of the sampler; leave it out")
    layout = _layout(task[1], protocol, problems) if task and protocol else None
    if masks and layout:
        _check_cut(masks, layout, problems)
    if layout and task and study:
        check_controls(controls, task[1], protocol, study.protocol, layout, problems)
    order = make(protocol, table.get("protocol", {}), ("protocol",), problems) if protocol else None
    drawn = make(sampler, table.get("sampler", {}), ("sampler",), problems) if sampler else None
    if not (study and task and model and train and masks and run and order and drawn) or problems:
        return None
    if analyses is None or layout is None:
        return None
    chosen = (task[0], model[0], train, masks, run, analyses, order[0], drawn[0], controls)
    return Built(Study(study, *chosen, layout["masked stages"], path=file, variant=variant), layout)


def _section(cls: type[T], name: str, table: Mapping[str, Any], problems: Problems) -> T | None:
    value = table.get(name, {})
    if not isinstance(value, Mapping):
        problems.add((name,), f"{written(value)} is not a table; write [{name}]")
        return None
    return structured(cls, value, (name,), problems)


def _plugin_of(
    kind: str, cls: type, section: str, key: str, table: Mapping[str, Any], plugins: Plugins, problems: Problems
) -> Any:
    """Return the class that a section names, also where the rest of the section is wrong."""
    given = table.get(section)
    name = given.get(key) if isinstance(given, Mapping) and key in given else getattr(attrs.fields(cls), key).default
    if isinstance(name, str) and name:  # anything else was noted with its section
        return plugin_class(kind, name, (section, key), plugins, problems)
    return None


def _analyses(section: str, table: Any, plugins: Plugins, problems: Problems) -> dict[str, Any] | None:
    """Return the options of every analysis that a section names."""
    if not isinstance(table, Mapping):
        problems.add((section,), f"{written(table)} is not a table; write [{section}]")
        return None
    made = {}
    called: dict[str, str] = {}
    for name, options in table.items():
        path = (section, name)
        strange = plugins.is_code("analyses", name)
        # What a cube names is taken as it is named: it plays no part where the cube is read.
        known = strange and not plugins.imports(name)
        cls = None if known else plugin_class("analyses", name, path, plugins, problems)
        if cls is None and not known:
            continue
        if (other := called.setdefault(short(name), name)) != name or (strange and short(name) in plugins.names("analyses")):
            problems.add(path, f"the analysis {(other if other != name else short(name))!r} has that name already; rename the class")
        elif not isinstance(options, Mapping):
            problems.add(path, f"{written(options)} is not a table of options; write {dotted((name,))} = {{}} for the defaults")
        elif known:
            made[name] = structured_by(plain, options, path, problems)
        elif pair := make(cls, options, path, problems):
            made[name] = pair[0]
    return made


def _with_controls(
    analyses: dict[str, Any] | None, scored: Mapping[str, Any], plugins: Plugins, problems: Problems
) -> dict[str, Any] | None:
    """Return the analyses of `[analyses]` and those that `[controls]` asks for, which a study need not name twice."""
    found = _analyses("controls", scored, plugins, problems)
    if analyses is None or found is None:
        return None
    for name in found:
        if name in analyses and analyses[name] != found[name]:
            problems.add(("controls", name), f"[analyses] has {name} with other options; leave one of the two out")
    if CEILING in analyses and CEILING not in found:
        problems.add(
            ("analyses", CEILING), f"there are no masks of further seeds; write [controls] {CEILING} = {{ seeds = 3 }}"
        )
    return {**analyses, **found}


def _check_training(train: TrainSection, protocol: Any, table: Mapping[str, Any], problems: Problems) -> None:
    """Check that there is base training, or weights instead of it, where the protocol wants it and nowhere else."""
    if not protocol.trains:
        for key in ("steps", "weights"):
            if getattr(train, key):
                name = table.get("study", {}).get("protocol")
                problems.add(("train", key), f"the protocol {name!r} has no base training; leave it out")
    elif train.weights is None and train.steps < 1:
        problems.add(
            ("train", "steps"),
            "must be given and at least 1, unless train.weights names a file to load instead of training",
        )


def _check_trackers(run: RunSection | None, plugins: Plugins, problems: Problems) -> None:
    for n, name in enumerate(run.trackers if run else ()):
        path = ("run", "trackers", n)
        if plugins.imports(name) or not plugins.is_code("trackers", name):  # what a cube names tracks nothing
            plugin_class("trackers", name, path, plugins, problems)
        if run and name in run.trackers[:n]:
            problems.add(path, f"{written(name)} is there already")


def _check_groups(train: TrainSection, masks: MasksSection, problems: Problems) -> None:
    path, batch = (("train", "batch"), train.batch) if masks.batch is None else (("masks", "batch"), masks.batch)
    samples = masks.samples
    if rest := batch % samples:
        near = f"{batch - rest} or {batch - rest + samples}" if batch > samples else f"{samples}"
        problems.add(path, f"{batch} is not divisible by masks.samples = {samples}; choose {near}, for example")


def _check_size(masks: MasksSection, sampler: Any, problems: Problems) -> None:
    """Check that masks are asked for in one size, and a ranking's in any."""
    cut, beta = masks.cut, attrs.fields(MasksSection).beta.default
    if masks.density is not None:
        if masks.beta != beta:
            problems.add(("masks", "beta"), "masks.density is given, from which beta follows; leave one of the two out")
        if cut != "threshold":
            problems.add(("masks", "cut"), "masks.density is given, which says the size; leave one of the two out")
        for key in ("beta_start", "relative_beta"):
            if getattr(masks, key):
                problems.add(("masks", key), "masks.density is given, from which beta follows; leave one of the two out")
        if masks.among is not None:
            problems.add(("masks", "among"), "masks.density is a share of all weights, which does not go with it; leave one of the two out")
    elif cut == "threshold" and sampler is not None and issubclass(sampler, Ranking):
        problems.add(
            ("masks", "sampler"),
            f"{masks.sampler!r} ranks weights without training and has no threshold of its own; "
            "give masks.density, or masks.cut = { density = ... } or { within = ... }",
        )
    if masks.beta_start is not None and masks.density is None:
        if masks.beta_start > masks.beta:
            problems.add(("masks", "beta_start"), f"must be at most masks.beta = {masks.beta:g}, to which it rises")
        if masks.stop is not None:
            problems.add(("masks", "stop"), "with masks.beta_start beta rises until the last step, and no mask settles before")
    if isinstance(cut, Cut):
        if (cut.density is None) == (cut.within is None):
            problems.add(("masks", "cut"), "give either density or within")
        for key in ("split", "metric"):
            if cut.within is None and getattr(cut, key) is not None:
                problems.add(("masks", "cut", key), "says what within is measured by; give within, or leave it out")


def _check_cut(masks: MasksSection, layout: Mapping[str, tuple[str, ...]], problems: Problems) -> None:
    """Check that what a cut is measured by is there."""
    if not isinstance(masks.cut, Cut):
        return
    for key, valid in (("split", layout["splits"]), ("metric", layout["metrics"])):
        name = getattr(masks.cut, key)
        if name is not None and name not in valid:
            hint = near_miss(name, valid) or f"; the task has {listing(valid)}"
            problems.add(("masks", "cut", key), f"there is no {written(name)}{hint}")


def _labelled(task: Any, name: str, problems: Problems) -> bool:
    """Note what of a task's labels cannot be used; a lone text in brackets without a comma is the text, letter by letter."""
    try:
        given = {"splits": task.splits, "stages": task.stages, "metrics": task.metrics}
    except Exception as error:
        problems.add(("task",), f"splits, stages or metrics of {name!r} cannot be told: {told(error)}")
        problems.cause = error
        return False
    fine = True
    for what, labels in given.items():
        kind, words = (Stage, "modhook.Stage objects") if what == "stages" else (str, "names")
        if not isinstance(labels, tuple | list) or not all(isinstance(label, kind) for label in labels):
            hint = f"; write ({labels!r},)" if isinstance(labels, kind) else ""
            problems.add(("task",), f"{what} of {name!r} must be a tuple of {words}, not {labels!r}{hint}")
            fine = False
    return fine


def _layout(task: Any, protocol: Any, problems: Problems) -> dict[str, tuple[str, ...]] | None:
    """Return the labels that all runs of a study must share, since one cube holds them."""
    try:
        order = protocol()
        return {
            "splits": tuple(task.splits),
            "stages": tuple(order.stages(task)),
            "masked stages": tuple(order.masked_stages(task)),
            "metrics": tuple(task.metrics),
        }
    except Exception as error:
        problems.add(("task",), f"splits or stages cannot be told: {told(error)}")
        problems.cause = error
        return None
