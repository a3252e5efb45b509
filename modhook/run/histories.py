"""The variables of a cube that say how its stages went: curves over steps, times, and what is said of masks at the end."""

from __future__ import annotations

from typing import Any

from modhook.plugin.interfaces import Task
from modhook.plugin.variables import Variable

_WINDOW = "mean since the step before"

STEPS = Variable(
    "history/steps",
    ("stage",),
    "float64",
    'number of optimiser steps that the mask stage did, where `masks.stop = "settled"` may end it early',
    attrs={"table": "number"},
)

TRUST = Variable(
    "history/trust",
    ("stage",),
    "str",
    "reasons not to believe in the stage's masks yet, one line each, `rule: sentence`; empty without any",
)

GAIN = Variable(
    "history/gain",
    ("stage",),
    "float64",
    "what the network saves on its loss by the learned weights, on the first training batches: what a relative beta counts in",
)

TURNOVER = Variable(
    "history/turnover",
    ("stage",),
    "float64",
    "share of the weights that the stage's cut keeps which as large a cut did not keep a tenth of the steps before the end",
    units="share",
)

_MASK_STAGE = (
    Variable(
        "history/loss", ("stage", "step"), "float64", f"loss of the mask stage without its regulariser, {_WINDOW}"
    ),
    Variable(
        "history/gradient_norm",
        ("stage", "step"),
        "float64",
        f"gradient norm of the logits before clipping, {_WINDOW}",
    ),
    Variable(
        "history/density",
        ("stage", "step"),
        "float64",
        "share of the masked weights that the deterministic mask keeps",
    ),
    Variable(
        "history/changed",
        ("stage", "step"),
        "float64",
        "number of logits that changed side of the deterministic mask since the step before",
    ),
    Variable(
        "history/mask_loss",
        ("stage", "step"),
        "float64",
        "loss under the deterministic mask on that step's batch, before it is learned from; NaN where it was not measured",
    ),
    Variable(
        "history/unmasked_loss",
        ("stage", "step"),
        "float64",
        "loss of the unmasked network on the same batch; NaN where it was not measured",
    ),
    Variable(
        "history/parameter_gradient_norm",
        ("stage", "step", "parameter"),
        "float32",
        "norm of the loss' gradient of each parameter's logits at that step, before regulariser and clipping",
    ),
    Variable(
        "history/parameter_density",
        ("stage", "step", "parameter"),
        "float32",
        "share of each parameter's weights that the deterministic mask keeps",
    ),
    Variable(
        "history/remaining",
        ("stage", "step", "parameter"),
        "float32",
        "share of the weights of each parameter that the control keeps which the deterministic mask keeps; "
        "in the control itself, and where there is none, of all its weights",
    ),
    Variable(
        "timing/ms_per_step",
        ("stage", "step"),
        "float64",
        f"time of an optimiser step of the mask stage, batches and measuring aside, {_WINDOW}",
        units="ms",
    ),
)

_BASE_TRAINING = (
    Variable(
        "timing/train_ms_per_step",
        ("train_step",),
        "float64",
        f"time of an optimiser step of base training, batches and measuring aside, {_WINDOW}",
        units="ms",
    ),
    Variable("history/train_loss", ("train_step",), "float64", f"loss of base training, {_WINDOW}"),
    Variable(
        "history/train_gradient_norm",
        ("train_step",),
        "float64",
        f"gradient norm of base training before clipping, {_WINDOW}",
    ),
)


def history(task: Task, labels: dict[str, list[Any]], timing: dict[str, list[Any]]) -> list[Variable]:
    """Return the curves of a study's stages; a dimension without any step or parameter is left out, together with its variables.

    Args:
        task: whose metrics are measured on the way. labels, timing: the labels of both groups by dimension, from which such
            dimensions are taken away.
    """
    found = [*_MASK_STAGE, *_BASE_TRAINING, *(v for metric in task.metrics for v in _measured(metric))]
    optional = ("step", "train_step", "valid_step", "train_valid_step", "parameter")
    empty = [d for d in optional if not labels[d] or (d == "step" and not labels["stage"])]
    for dim in empty:
        del labels[dim]
    for dim in ("valid_step", "train_valid_step", *(d for d in ("step", "train_step") if d in empty)):
        del timing[dim]
    return [v for v in found if not set(v.dims) & set(empty)]


def _measured(metric: str) -> tuple[Variable, ...]:
    """Return what is measured of a metric on the way."""
    return (
        Variable(
            f"history/valid_{metric}",
            ("stage", "valid_step", "split"),
            "float64",
            f"{metric} measured during the mask stage",
        ),
        Variable(
            f"history/train_valid_{metric}",
            ("train_valid_step", "split"),
            "float64",
            f"{metric} measured during base training",
        ),
        Variable(
            f"history/subset_{metric}",
            ("stage", "valid_step"),
            "float64",
            f"{metric} during the mask stage on a fixed random subset of the base training set",
        ),
        Variable(
            f"history/train_subset_{metric}",
            ("train_valid_step",),
            "float64",
            f"{metric} during base training on a fixed random subset of the training set",
        ),
    )
