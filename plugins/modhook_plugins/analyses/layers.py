"""Masks by layer, by part of a layer, and by head: a whole network in one table (`Masks.by`, `Masks.heads`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from modhook import Analysis, Masks, Task, Variable

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from modhook import FinishedRun

ITSELF = "(itself)"
"""The part of modules that are no part of a numbered layer, and of layers without parts."""


class Layers(Analysis):
    """The share of weights that every stage's mask keeps in each part of each layer: `encoder.layer.0`, `attention.query`."""

    def variables(self, task: Task) -> tuple[Variable, ...]:
        """Declare the group `layers`."""
        own = ("stage", "layer", "part")
        return (
            Variable("layers/density", own, "float64", "share of the weights of this part of the layer that the stage keeps"),
            Variable("layers/kept", own, "float64", "number of these weights", units="weights"),
        )

    def network_labels(self, model: nn.Module, task: Task, stages: Sequence[str]) -> Mapping[str, Sequence[Any]]:
        """Return the network's layers and their parts."""
        import torch

        # One place per parameter: only their names matter.
        names = Masks({name: torch.ones(1, dtype=torch.bool, device="cpu") for name, _ in model.named_parameters()})
        table = names.by(("layer", "part"))
        return {"layer": _unique(table["layer"]), "part": [p or ITSELF for p in _unique(table["part"])]}

    def compute(self, run: FinishedRun) -> dict[str, Any]:
        """Sum up every stage's mask."""
        labels = run.coordinates("layers/density")
        layers, parts = [[str(label) for label in labels[dim]] for dim in ("layer", "part")]
        kept = np.full((len(run.stages), len(layers), len(parts)), np.nan)
        density = kept.copy()
        for s, stage in enumerate(run.stages):
            masks = run.masks[stage]
            if masks.units is not None:
                masks = masks.weights(run.model)
            for row in masks.by(("layer", "part")).itertuples(index=False):
                at = s, layers.index(str(row.layer)), parts.index(str(row.part) or ITSELF)
                kept[at], density[at] = row.kept, row.density
        return {"layers/density": density, "layers/kept": kept}


class Heads(Analysis):
    """The share of weights that every stage's mask keeps of each head of each attention."""

    def variables(self, task: Task) -> tuple[Variable, ...]:
        """Declare the group `heads`."""
        doc = "share of the head's queries, keys, values and output that the stage keeps"
        return (Variable("heads/density", ("stage", "attention", "head"), "float64", doc),)

    def network_labels(self, model: nn.Module, task: Task, stages: Sequence[str]) -> Mapping[str, Sequence[Any]]:
        """Return the network's attentions, and the numbers of their heads. Raises `UserError` for a network without any."""
        import torch

        every = {n: torch.zeros(p.shape, dtype=torch.bool, device="cpu") for n, p in model.named_parameters()}
        table = Masks(every).heads(model=model)
        return {"attention": _unique(table["module"]), "head": list(range(int(table["head"].max()) + 1))}

    def compute(self, run: FinishedRun) -> dict[str, Any]:
        """Count every stage's mask."""
        labels = run.coordinates("heads/density")
        attentions = [str(label) for label in labels["attention"]]
        density = np.full((len(run.stages), len(attentions), len(labels["head"])), np.nan)
        for s, stage in enumerate(run.stages):
            for row in run.masks[stage].heads(model=run.model).itertuples(index=False):
                density[s, attentions.index(str(row.module)), int(row.head)] = row.density
        return {"heads/density": density}


def _unique(labels: pd.Series[Any]) -> list[str]:
    return [str(label) for label in labels.unique()]
