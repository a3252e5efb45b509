"""What the claims about splits, classes and tasks are measured by: SCAN, CIFAR-10, mathematics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from claim_measures import LEARNED, Beside, Measured, known, mean, percent, told, worst
from cubes_of_studies import Network, Values

OF_IMAGES = 0.7
"""Accuracy from where on a mask counts as one that does its task of CIFAR-10, whose networks reach less than others."""


# -- SCAN


def fails(split: str) -> Callable[[Network, Sequence[Network]], Measured]:
    """By how much a split's own mask is worse on it than the mask of the whole task."""

    def measure(network: Network, _: Sequence[Network]) -> Measured:
        whole, own = (network.at("scores/accuracy", stage=s, split=split) for s in ("control", split))
        beside = [
            Beside("mask of the whole task", whole),
            Beside("the split's own mask", own),
            Beside("unmasked", network.at("scores/accuracy", stage="unmasked", split=split)),
        ]
        beside.append(Beside("random masks", network.at("random/accuracy", stage=split, split=split)))
        learning = network.at("trained_on/accuracy", stage=split)
        beside += [
            Beside("the split's own mask on its own training items", learning),
            Beside("unmasked on these", network.at("trained_on/unmasked/accuracy", stage=split)),
        ]
        granted = [("the mask of the whole task", whole, LEARNED), ("the split's own mask on its training items", learning, LEARNED)]
        return Measured(whole - own, [b for b in beside if b.known], known(granted))

    return measure


def like_scratch(split: str) -> Callable[[Network, Sequence[Network]], Measured]:
    """How far the own mask's accuracy is from that of networks trained on the split."""

    def measure(network: Network, others: Sequence[Network]) -> Measured:
        own = network.at("scores/accuracy", stage=split, split=split)
        same = [
            o
            for o in others
            if o.study == "scan_baselines"
            and o.table["model"]["name"] == network.table["model"]["name"]
            and o.point.get("task.train_split") == split
        ]
        scratch = same[0].at("scores/accuracy", stage="unmasked", split=split) if same else np.full(1, np.nan)
        return Measured(np.abs(own - mean(scratch)), [Beside("own mask", own), Beside("trained on the split", scratch)])

    return measure


# -- CIFAR-10, mathematics


def removed(network: Network, _: Sequence[Network]) -> Measured:
    """What a class loses under the mask that is learned without it."""
    values = _over_classes(network, "class_removal/target_drop", np.nanmean)
    adjusted = _over_classes(network, "logit_adjustment/target_drop", np.nanmean)
    beside = [
        *_each_class(network, "target_drop"),
        Beside("largest of another class", _over_classes(network, "class_removal/other_drop", np.nanmean)),
        Beside("with a constant added to the removed class' logit", adjusted),
        *_images(network),
    ]

    def reading() -> str:
        if not mean(adjusted) < mean(values) / 2:
            return ""
        each = told({s: network.at("logit_adjustment/target_drop", stage=s) for s in _without_a_class(network)}, _without_a_class(network))
        auc, whole = (mean(_over_classes(network, f"logit_adjustment/{name}", np.nanmean)) for name in ("auc", "control_auc"))
        return (
            "Most of it is outvoted, not gone: with one constant on the removed class' logit, chosen without labels so that the class is "
            f"predicted as often as under the mask of all classes, {percent(mean(adjusted))} is lost instead ({each}). How well that "
            f"logit, less the largest other, tells the class from others (AUC) is {auc:.3f}, under the mask of all classes {whole:.3f}."
        )

    return Measured(values, [b for b in beside if b.known], _images_learned(network), reading)


def spared(network: Network, _: Sequence[Network]) -> Measured:
    """The largest loss of another class over that of the removed one."""
    beside = [
        *_each_class(network, "other_share"),
        Beside("largest loss of another class", _over_classes(network, "class_removal/other_drop", np.nanmean)),
        Beside("that with the constant", _over_classes(network, "logit_adjustment/other_drop", np.nanmean)),
        Beside("over that of the removed one, with the constant", _over_classes(network, "logit_adjustment/other_share", np.nanmedian)),
        *_images(network),
    ]

    def reading() -> str:
        return (
            "A lower logit of one class takes nothing from the others, whichever weights it comes from: a small number does not say "
            "that the class has weights of its own. Each is the largest of many differences, which chance makes larger; a class that gains "
            "counts as one that loses nothing. The output layer's mask is that of all classes, as in the paper."
        )

    values = _over_classes(network, "class_removal/other_share", np.nanmedian)
    return Measured(values, [b for b in beside if b.known], _images_learned(network), reading)


def _each_class(network: Network, name: str) -> list[Beside]:
    """Return a number of each removed class: the mean or median of few hides how unlike they are."""
    found = [Beside(f"without {stage}", network.at(f"class_removal/{name}", stage=stage)) for stage in _without_a_class(network)]
    return [b for b in found if b.known]


def _without_a_class(network: Network) -> list[str]:
    return [stage for stage in network.stages if stage not in ("unmasked", "control")]


def _on_own_images(network: Network) -> list[Values]:
    """Return what each mask without a class scores on the images that it was learned on."""
    return [network.at("trained_on/accuracy", stage=stage) for stage in _without_a_class(network)]


def _images(network: Network) -> list[Beside]:
    """Return accuracies over all classes, and what masks without a class score on the images that they were learned on."""
    found = [
        Beside("accuracy unmasked", network.at("scores/accuracy", stage="unmasked", split="valid")),
        Beside("under the mask of all classes", network.at("scores/accuracy", stage="control", split="valid")),
        Beside("under random masks of its size", network.at("random/accuracy", stage="control", split="valid")),
        Beside("of masks without a class, on images they were learned on", np.mean(_on_own_images(network), axis=0)),
    ]
    return [b for b in found if b.known]


def _images_learned(network: Network) -> list[tuple[str, Values, float]]:
    whole = network.at("scores/accuracy", stage="control", split="valid")
    least = worst(_on_own_images(network), True)
    return known([("the mask of all classes", whole, OF_IMAGES), ("the worst mask on its own images", least, OF_IMAGES)])


def _over_classes(network: Network, name: str, over: Callable[..., Any]) -> Values:
    found = network.array(name)
    if found is None:
        return np.full(network.cube.sizes["seed"], np.nan)
    values = found.transpose("seed", "stage").values
    return np.array([over(v[np.isfinite(v)]) if np.isfinite(v).any() else np.nan for v in values])


def alike(network: Network, _: Sequence[Network]) -> Measured:
    """IoU of two masks of one function."""
    found, by_chance = network.array("stability/iou_total"), network.array("stability/chance_total")
    nothing = np.full(network.cube.sizes["seed"], np.nan)
    values, expected = (
        nothing if x is None else np.asarray(x.mean("function", skipna=False).values) for x in (found, by_chance)
    )
    return Measured(values, [Beside("chance", expected)])


def easy_fails(network: Network, _: Sequence[Network]) -> Measured:
    """By how much the mask of easy questions is worse on hard ones than the mask of all."""
    whole, own = (network.at("scores/accuracy", stage=s, split="hard") for s in ("control", "easy"))
    return Measured(
        whole - own,
        [Beside("mask of all questions", whole), Beside("mask of easy ones", own)],
        [("the mask of all questions", whole, 0.5)],
    )
