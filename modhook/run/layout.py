"""What a study's cube holds: every group, dimension and variable, before the first run."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

import modhook
from modhook.cube import Plan, layout_variables
from modhook.errors import PluginError, listing, near_miss
from modhook.plugin.code import short
from modhook.plugin.interfaces import Analysis, Protocol, Task
from modhook.plugin.manager import Plugins
from modhook.plugin.variables import Variable
from modhook.run.build import build_model, model_shapes
from modhook.run.control_plan import control_plan
from modhook.run.declaring import labels_of, once, variables_of
from modhook.run.histories import GAIN, STEPS, TRUST, TURNOVER, history
from modhook.run.network_labels import network_labels
from modhook.run.units import masked_of
from modhook.steps.loop import recorded_steps
from modhook.study import ControlStage, Point, Study, control_stages, points, resolved
from modhook.study.units import over_weights
from modhook.unit.group import Group, written

SUBSET = "part of the training set"
"""Names the training items that are measured on the way, beside the splits; `train_subset` gives them."""


@attrs.frozen
class Layout:
    """Names and shapes of one network's parameters, and what of it is masked."""

    name: str
    state: dict[str, tuple[tuple[int, ...], str]]
    """{name: (shape, dtype)} of the whole state dict."""
    masked: tuple[str, ...]
    """Groups of units, and parameters whose weights have masks."""
    units: tuple[Group, ...] = ()


@attrs.frozen
class Prepared:
    """A study with everything decided that must be known before the first run."""

    study: Study
    points: list[Point]
    layouts: list[Layout]
    """One per point, equal for equal networks."""
    tasks: list[Task]
    """One per point, the same object for equal tasks."""
    protocol: Protocol
    analyses: dict[str, Analysis]
    """By the names that the cube has for them: one that the study names by its code has that of its class."""
    network_labels: dict[str, dict[str, list[Any]]] = attrs.field(factory=dict)
    """{analysis: {dimension: labels}} of dimensions that depend on the networks."""

    def stages(self, task: Task) -> tuple[str, ...]:
        """Return the labels of all stages of a run, in the order in which they are computed: the protocol's, then the controls'."""
        return (*self.protocol.stages(task), *(control.label for control in self.controls(task)))

    def controls(self, task: Task) -> tuple[ControlStage, ...]:
        """Return the further stages of the controls that learn masks."""
        return control_stages(self.study.controls, self.protocol.masked_stages(task))

    def distinct(self) -> dict[str, Layout]:
        """Return the different layouts by name."""
        return {layout.name: layout for layout in self.layouts}


def layouts(found: Sequence[Point], tasks: Sequence[Task], plugins: Plugins) -> list[Layout]:
    """Return one layout per sweep point. Raises `PatternError` for patterns that match nothing, `UserError` for a bad network."""
    known: dict[Any, str] = {}
    result = []
    for point, task in zip(found, tasks, strict=True):
        plain = over_weights(point.study.masks)
        # What units there are is tried on the network's own code, which needs values.
        model = model_shapes(point.study, task, plugins) if plain else build_model(point.study, task, plugins, 0)
        wanted = masked_of(point.study, model, plugins)
        masked, units = wanted.names, wanted.groups
        state = {n: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for n, t in model.state_dict().items()}
        name = known.setdefault((tuple(state.items()), masked, written(units)), f"layout{len(known)}")
        result.append(Layout(name, state, masked, units))
    return result


def valid_steps(steps: int, every: int) -> list[int]:
    """Return the steps (from 1) at which a stage of `steps` steps is measured on the way; never at its end."""
    return list(range(every, steps, every)) if every else []


def plan(
    prepared: Prepared,
    seeds: Sequence[int],
    data: Mapping[str, Any],
    code: Mapping[str, Any] | None = None,
    controls: Sequence[ControlStage] | None = None,
) -> Plan:
    """Return the cube's plan.

    `data` is the fingerprint of the data, `code` the digests of the files that the study names; `controls` are the stages of controls
    in their order in the cube, the study's own unless given.
    """
    study, task = prepared.study, prepared.tasks[0]
    stages, masked = prepared.protocol.stages(task), prepared.protocol.masked_stages(task)
    controls = prepared.controls(task) if controls is None else controls
    learned = [control.label for control in controls]
    variables: list[Variable] = []
    labels: dict[str, dict[str, list[Any]]] = {
        "scores": {"stage": list(stages), "split": list(task.splits)},
        "runs": {"stage": [*stages, *learned]},
        "history": {
            "stage": list(masked),
            "split": list(task.splits),
            "parameter": _parameters(prepared),
            **_steps(prepared),
        },
        "timing": {"stage": [*stages, *learned], **_steps(prepared)},
    }
    variables += [
        Variable(
            f"scores/{m}",
            ("stage", "split"),
            "float64",
            f"mean {m} over each split's items",
            attrs={"table": task.table(m)},
        )
        for m in task.metrics
    ]
    stops = masked and any(p.study.masks.stop for p in prepared.points)
    variables += [*([STEPS] if stops else []), *([TRUST] if masked else [])]
    variables += [v for v, wanted in ((GAIN, _gains(prepared)), (TURNOVER, masked and _rises(prepared))) if wanted]
    variables += history(task, labels["history"], labels["timing"])
    if controls:
        declared, its_labels = control_plan(task, controls, variables, labels["history"])
        variables += declared
        labels |= its_labels
    sizes: dict[str, dict[str, int]] = {}
    parts = [
        layout_variables(
            layout.name,
            layout.state,
            layout.masked,
            stages if prepared.protocol.weights_per_stage else [*masked, *learned],
            study.masks.logits_dtype,
            prepared.protocol.weights_per_stage,
            {g.name: (len(g), written((g,))) for g in layout.units},
        )
        for layout in prepared.distinct().values()
    ]
    for name, analysis in prepared.analyses.items():
        declared, its_labels = analysis_plan(prepared, name, analysis)
        variables += declared
        labels |= its_labels
    run_dims: dict[str, list[Any]] = {"seed": list(seeds)}
    for key in study.sweep:
        run_dims[key] = list(dict.fromkeys(p.labels[key] for p in prepared.points))
    attributes = {
        "study": resolved(study),
        "data": dict(data),
        "versions": versions(),
        "layouts": [layout.name for layout in prepared.layouts],
        **({"code": dict(code)} if code else {}),
    }
    for part in parts:
        variables += part.variables
        labels |= {g: {n: list(v) for n, v in d.items()} for g, d in part.labels.items()}
        sizes |= {g: dict(d) for g, d in part.sizes.items()}
    return Plan(attributes, run_dims, tuple(variables), labels, sizes)


def analysis_plan(
    prepared: Prepared, name: str, analysis: Analysis
) -> tuple[list[Variable], dict[str, dict[str, list[Any]]]]:
    """Return an analysis' variables, with those that say where it is done or why not, and the labels of its groups."""
    task = prepared.tasks[0]
    masked = prepared.protocol.masked_stages(task)
    declared = list(variables_of(name, analysis, task))
    known: dict[str, list[Any]] = {
        "stage": list(masked),
        "split": list(task.splits),
        "parameter": _parameters(prepared),
        **{dim: list(labels) for dim, labels in labels_of(name, analysis, task, masked).items()},
        **prepared.network_labels.get(name, {}),
    }
    groups: dict[str, dict[str, list[Any]]] = {}
    every_run = {"seed", *prepared.points[0].labels}  # the cube itself refuses these
    for variable in declared:
        if unknown := [d for d in variable.dims if d not in known and d not in every_run]:
            raise PluginError(
                f"the analysis {name!r} declares {variable.name} over {unknown[0]!r}, which has no labels{near_miss(unknown[0], known)}; "
                f"there are {listing(known)}, and `labels` or `network_labels` give those of others."
            )
        groups.setdefault(variable.group, {}).update({d: known[d] for d in variable.dims if d in known})
    done = Variable(f"runs/{name}", (), "uint8", f"whether the analysis {name} is done: 0 pending, 1 done, 2 failed")
    why = Variable(f"runs/{name}_reason", (), "str", f"why the analysis {name} failed; empty if it did not")
    return [*declared, done, why], groups


def _parameters(prepared: Prepared) -> list[str]:
    return list(dict.fromkeys(n for layout in prepared.layouts for n in layout.masked))


def _steps(prepared: Prepared) -> dict[str, list[int]]:
    def union(lists: Sequence[list[int]]) -> list[int]:
        return sorted(set().union(*lists))

    studies = [p.study for p in prepared.points]
    return {
        "step": union([recorded_steps(s.masks.steps) for s in studies]),
        "train_step": union([recorded_steps(s.train.steps) for s in studies]),
        "valid_step": union([valid_steps(s.masks.steps, s.masks.validate_every) for s in studies]),
        "train_valid_step": union([valid_steps(s.train.steps, s.train.validate_every) for s in studies]),
    }


def _gains(prepared: Prepared) -> bool:
    return any(p.study.masks.relative_beta or p.study.masks.among for p in prepared.points)


def _rises(prepared: Prepared) -> bool:
    """Return whether masks are cut under a pull that rises: how much they change is not told by their threshold's density."""
    return any(p.study.masks.beta_start is not None and p.study.masks.cut != "threshold" for p in prepared.points)


def versions() -> dict[str, str]:
    """Return the versions that the numbers depend on."""
    import numpy
    import torch

    return {
        "modhook": modhook.__version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }


def prepare(study: Study, plugins: Plugins, tasks: Sequence[Task]) -> Prepared:
    """Return everything about a study that is known before the first run. Raises `UserError`."""
    found = points(study)
    protocol: Protocol = plugins.load("protocols", study.study.protocol)(study.protocol)
    analyses = {short(name): plugins.load("analyses", name)(options) for name, options in study.analyses.items()}
    once({name: variables_of(name, analysis, tasks[0]) for name, analysis in analyses.items()})
    labelled = network_labels(found, tasks, plugins, analyses, protocol.masked_stages(tasks[0]))
    return Prepared(study, found, layouts(found, tasks, plugins), list(tasks), protocol, analyses, labelled)
