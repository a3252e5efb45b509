"""What the claims about a second task are measured by: permuted MNIST, whose masks may reuse the weights of the task before."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import numpy as np
from claim_measures import LEARNED, Beside, Measured, known, mean, worst
from cubes_of_studies import Network, Values
from shared_weights import expected_shared, masks_of, matrix
from verdict_rule import Rule

from modhook.report.facts import listed

LITTLE, LAST = Rule(0.3, 0.5, high=False), Rule(0.7, 0.5)
"""Bounds of what a second permutation reuses between the first and the last layer, and in the last."""
_SHOWN = 10
"""Tasks of which the paper shows what they reuse: the 2nd, 4th, 6th, 8th and 10th."""


def reuses_little(network: Network, _: Sequence[Network]) -> Measured:
    """The largest share that the second task's mask reuses in a layer before the last."""
    inner = _layers(network)[:-1]
    each = [Beside(f"in `{name}`", values) for name, values in zip(inner, _second(network, "reused", inner), strict=True)]
    return _measured(network, inner, each, _said_of_inner)


def reuses_last(network: Network, _: Sequence[Network]) -> Measured:
    """The share that the second task's mask reuses in the last layer."""
    return _measured(network, _layers(network)[-1:], [], _said_of_last)


@attrs.frozen
class _Layer:
    """Of each seed: the layer of which the second mask reuses most, in numbers of shape (seeds,)."""

    reused: Values
    by_chance: Values
    """Share that masks drawn evenly would reuse: of the layer's weights those in use by then."""
    kept: Values
    """Weights that the second mask keeps; NaN where the cube has no masks of this seed."""
    shared: Values
    """Of these the ones of the first mask."""
    by_neuron: Values
    """As many as masks with as many weights in each row and column would share."""


def _layers(network: Network) -> list[str]:
    """Return the weights whose reuse counts; none where the cube says nothing of a second task.

    The first layer is learned anew for each task, so that what is reused there are places, not weights; the paper's figure is without it.
    """
    found = network.array("transfer_sharing/reused")
    if found is None or found.sizes["stage"] < 2:
        return []
    return [str(p) for p in found["parameter"].values if not str(p).endswith("bias")][1:]


def _second(network: Network, name: str, layers: Sequence[str]) -> Values:
    """Return (layers, seeds) a number of `transfer_sharing` when the second task is learned."""
    found = network.array(f"transfer_sharing/{name}")
    if found is None:
        return np.empty((0, network.cube.sizes["seed"]))
    return np.asarray(found.isel(stage=1).sel(parameter=list(layers)).transpose("parameter", "seed").values)


def _measured(network: Network, layers: Sequence[str], each: Sequence[Beside], said: Callable[[_Layer], list[str]]) -> Measured:
    if not layers:
        return Measured(np.full(network.cube.sizes["seed"], np.nan))
    reused, in_use = (_second(network, name, layers) for name in ("reused", "used"))
    which = np.argmax(np.nan_to_num(reused), axis=0)  # (seeds,)
    most = _Layer(*(x[which, np.arange(len(which))] for x in (reused, in_use, *_counts(network, layers))))
    with np.errstate(invalid="ignore", divide="ignore"):
        given_neurons = most.by_neuron / most.kept
    first, second = _accuracy(network, 0, 0), _accuracy(network, 1, 1)
    beside = [
        Beside("in use by then (what random masks would reuse)", most.by_chance),
        Beside("what masks would reuse, given how much of each neuron is kept", given_neurons),
        *each,
        Beside("accuracy of the first task, before the second is learned", first),
        Beside("after it, with the first layer learned anew", _accuracy(network, 1, 0)),
        Beside("accuracy of the second task", second),
    ]

    def reading() -> str:
        sentences = [*_counted(most), *said(most)]
        if (learned := len(network.stages)) < _SHOWN:
            told = f"by which more is in use; {learned} were learned here, and nothing is said of later ones."
            sentences.append(f"The paper's figure goes on to the tenth task, {told}")
        return " ".join(sentences)

    learning = known([("both tasks under their masks", worst([first, second], True), LEARNED)])
    return Measured(most.reused, [b for b in beside if b.known], learning, reading)


def _accuracy(network: Network, stage: int, task: int) -> Values:
    return network.at("scores/accuracy", stage=network.stages[stage], split=str(network.cube["scores"]["split"].values[task]))


def _counted(most: _Layer) -> list[str]:
    done = np.isfinite(most.kept)
    if not done.any():
        return []
    of_each = listed([f"{n:.0f} of {of:.0f}" for n, of in zip(most.shared[done], most.kept[done], strict=True)])
    evenly, by_neuron = (listed([f"{n:.2f}" for n in many[done]]) for many in (most.by_chance * most.kept, most.by_neuron))
    said = f"Seed by seed {of_each} weights are reused, biases aside; of masks drawn evenly {evenly} would be, "
    return [f"{said}of masks with as many weights of each neuron's inputs and outputs {by_neuron}."]


def _said_of_inner(most: _Layer) -> list[str]:
    return ["Masks drawn evenly meet the bound as well, so little is in use by then."] if mean(most.by_chance) <= LITTLE.weakly else []


def _said_of_last(most: _Layer) -> list[str]:
    said = []
    if mean(most.by_chance) >= mean(most.reused):
        said.append("It is no more than masks drawn evenly would reuse.")
    if np.nanmax(most.reused) < LAST.weakly:
        said.append("No seed reaches the bound of *seen weakly*.")
    return said


def _counts(network: Network, parameters: Sequence[str]) -> tuple[Values, Values, Values]:
    """Return (parameters, seeds) how many weights the second mask keeps, and the first one, too; and what to expect given each neuron's."""
    kept, shared, expected = (np.full((len(parameters), network.cube.sizes["seed"]), np.nan) for _ in range(3))
    for at, (first, second) in masks_of(network, network.stages[:2]):
        for p, name in enumerate(parameters):
            kept[p, at], shared[p, at] = float(second[name].sum()), float((first[name] & second[name]).sum())
            expected[p, at] = expected_shared(matrix(first[name]), matrix(second[name]))
    return kept, shared, expected
