"""The whole state of one stage of mask learning, and how to continue from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from modhook.stacked import prepare
from modhook.values.randomness import cuda_states, set_cuda_states

if TYPE_CHECKING:
    from modhook.fit.engine import MaskTrainer


def state_of(trainer: MaskTrainer) -> dict[str, Any]:
    """Return logits, trained weights, optimiser, all that scaling, clipping and a density remember, routes, all random states."""
    return {
        "logits": {n: logit.detach().clone() for n, logit in trainer.logits.items()},
        "weights": {n: trainer.weights[n].detach().clone() for n in trainer.trained},
        "optimizer": trainer.optimizer.state_dict(),
        "noise": [g.get_state() for g in trainer.generators],
        "routes": None if trainer.stacked is None else trainer.stacked.state_dict(),
        "units": {"activations": trainer.activations is not None, "refused": trainer.refused},
        "layers": trainer.layers is not None,
        "torch": torch.get_rng_state(),
        "cuda": cuda_states(),
        "sides": trainer.watch.state_dict(),
        "travelled": trainer.travelled,
        "earlier": trainer.earlier,
        **({} if trainer.scale is None else {"norms": trainer.scale.norms}),
        **({"clipping": trainer.clipping.state_dict()} if trainer.clipping.all else {}),
        **({} if trainer.target is None else {"target": trainer.target.state_dict()}),
    }


def load_state(trainer: MaskTrainer, state: Mapping[str, Any]) -> None:
    """Continue from `state_of`'s result."""
    with torch.no_grad():
        for name, value in state["logits"].items():
            trainer.logits[name].copy_(value)
        for name, value in state["weights"].items():
            trainer.weights[name].copy_(value)
    trainer.optimizer.load_state_dict(state["optimizer"])
    for generator, value in zip(trainer.generators, state["noise"], strict=True):
        generator.set_state(value)
    trainer.watch.load_state_dict(state["sides"], trainer.logits)
    trainer.travelled, trainer.earlier = state["travelled"], dict(state["earlier"])
    if trainer.scale is not None:
        trainer.scale.norms = state["norms"].clone()
    if trainer.clipping.all:
        trainer.clipping.load_state_dict(state["clipping"])
    if trainer.target is not None and "target" in state:
        trainer.target.load_state_dict(state["target"])
    units = state.get("units", {"activations": False, "refused": ""})
    trainer.activations, trainer.refused = trainer.activations if units["activations"] else None, units["refused"]
    if trainer.activations is not None and state["routes"] is not None:
        trainer.stacked = trainer.activations.resume(trainer.samples, trainer.guard, state["routes"])
    elif state["routes"] is not None:
        trainer.plan(layers=state.get("layers", False))
        names = (*trainer.masked, *(n for n in trainer.constant() if n not in trainer.masked))
        layers = trainer.layers is not None and not trainer.layers.look(trainer.weights, trainer.logits)
        trainer.stacked = prepare(trainer.model, trainer.function, None, names, trainer.samples, trainer.executor, trainer.guard, layers)
        trainer.stacked.load_state_dict(state["routes"])
    torch.set_rng_state(state["torch"])
    set_cuda_states(state.get("cuda", ()))
