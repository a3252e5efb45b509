"""What the claims are measured by: one number per seed, and what stands beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs
import numpy as np
from cubes_of_studies import Network, Values
from shared_weights import by_neuron, inner, pair, pooled, separate, smaller

LEARNED = 0.9
"""Accuracy from where on a network, or a mask, counts as one that does its task."""
KEPT, LOST = 0.8, 0.1
"""Accuracy from where on a function counts as kept (*seen weakly* of that claim), and up to which as lost (*seen* of that one), in what
is said below a table."""


@attrs.frozen
class Beside:
    """A number beside the measured one: chance, a control, the unmasked network."""

    label: str
    values: Values | Mapping[str, Values]
    """One number per seed; of several functions, each by its name."""

    @property
    def known(self) -> bool:
        """Whether any seed has a number."""
        many = self.values.values() if isinstance(self.values, Mapping) else [self.values]
        return any(np.isfinite(values).any() for values in many)


@attrs.frozen
class Measured:
    """One number per seed, what stands beside it, and what has to hold for it to mean anything."""

    values: Values
    beside: Sequence[Beside] = ()
    granted: Sequence[tuple[str, Values, float]] = ()
    """(what, per seed, least): on average at least so much."""
    reading: Callable[[], str] = lambda: ""
    """What the controls do to the reading, in a sentence; empty where they change nothing."""


def worst(many: Sequence[Values], high: bool) -> Values:
    """Return, per seed, the least number where high is good, else the largest; NaN where one is missing."""
    return np.min(many, axis=0) if high else np.max(many, axis=0)


def mean(values: Values) -> float:
    """Return the mean of the seeds that have a number; NaN without any."""
    found = values[np.isfinite(values)]
    return float(found.mean()) if len(found) else float("nan")


def known(granted: Sequence[tuple[str, Values, float]]) -> list[tuple[str, Values, float]]:
    """Return what is taken for granted, as far as any seed has a number of it."""
    return [(what, values, least) for what, values, least in granted if np.isfinite(values).any()]


# -- accuracies under masks


def scored(network: Network, group: str, cross: bool, high: bool) -> Values:
    """Return the worse of the two functions' accuracies, each under its own mask, or under the other's with `cross`."""
    return worst([*each(network, group, cross).values()], high)


def each(network: Network, group: str, cross: bool) -> dict[str, Values]:
    """Return function -> its accuracy under its own mask, or under the other's with `cross`."""
    both = pair(network)
    splits = [both[(i + cross) % 2] for i in range(2)]
    return {split: network.at(f"{group}/accuracy", stage=s, split=split) for s, split in zip(both, splits, strict=True)}


def learned(network: Network) -> list[tuple[str, Values, float]]:
    """Return what claims about two functions take for granted."""
    splits = pair(network)
    unmasked = [network.at("scores/accuracy", stage="unmasked", split=s) for s in splits]
    return known([("the network itself", worst(unmasked, True), LEARNED)])


def controls(network: Network, cross: bool, high: bool) -> list[Beside]:
    """Return what other masks of the same sizes score on the same items, as far as the cube has them."""
    found = [
        Beside(
            "unmasked", worst([network.at("scores/accuracy", stage="unmasked", split=s) for s in pair(network)], high)
        ),
        Beside(
            "mask of the whole task",
            worst([network.at("scores/accuracy", stage="control", split=s) for s in pair(network)], high),
        ),
        Beside("random masks", scored(network, "random", cross, high)),
        Beside("largest weights", scored(network, "magnitude", cross, high)),
    ]
    for kind in ("shuffled", "untrained"):
        both = pair(network)
        values = [
            network.at("controls/equal_size/accuracy", stage=f"{s} ({kind})", split=both[(i + cross) % 2])
            for i, s in enumerate(both)
        ]
        found.append(Beside(f"{kind} network, equal size", worst(values, high)))
    return [b for b in found if b.known]


NO_CONTROLS = ("unmasked", "mask of the whole task")
"""What stands beside a score and is meant to have the function."""


def keeps(network: Network, _: Sequence[Network]) -> Measured:
    """Each function's mask on its own function."""
    values, beside = scored(network, "scores", False, True), controls(network, False, True)

    def reading() -> str:
        as_good = [b.label for b in beside if b.label not in NO_CONTROLS and mean(b.values) >= LEARNED]
        return (
            f"So do {' and '.join(as_good)}: the score of the mask alone says nothing of this network."
            if as_good
            else ""
        )

    return Measured(values, beside, learned(network), reading)


def loses(network: Network, _: Sequence[Network]) -> Measured:
    """Each function's mask on the other function."""
    values, beside = scored(network, "scores", True, False), controls(network, True, False)

    def reading() -> str:
        as_low = [b.label for b in beside if b.label not in NO_CONTROLS and mean(b.values) <= LOST]
        if mean(values) > LOST:
            return ""
        said = []
        if separate(network):
            said.append(
                "The two masks have no weight of the first and of the last matrix in common: each function has inputs and outputs of "
                "its own, and so the other one is lost whatever the weights between do. Of these the number says nothing."
            )
        if as_low:
            those = " and ".join(as_low)
            those = those[0].upper() + those[1:]
            said.append(f"{those} lose it as well: the number counts only beside what the mask keeps of its own function.")
        return " ".join(said)

    return Measured(values, beside, learned(network), reading)


def needed(network: Network, _: Sequence[Network]) -> Measured:
    """Each function without the weights of its mask; beside it what becomes of the other one, and what random removals do."""
    others, others_own = each(network, "inverse", True), each(network, "own_removed", True)
    at_random, rest = each(network, "own_removed/random", False), each(network, "own_removed/rest", False)
    beside = [
        Beside("left of the other function", others),
        Beside("without the weights that its mask alone keeps", each(network, "own_removed", False)),
        Beside("left of the other function after that", others_own),
        Beside("without as many random weights that its mask does not keep", rest),
        Beside("without as many random weights of all", at_random),
    ]

    def reading() -> str:
        said = []
        if harmed := below(others, KEPT):
            least = min(map(mean, others_own.values()))
            stays = f"; without those that it alone keeps, {percent(least)} or more are left" if least >= KEPT else ""
            said.append(f"Without all that a mask keeps the other function falls as well ({told(others, harmed)}){stays}.")
        if harmed := below(others_own, KEPT):
            said.append(f"It falls also without the weights that one mask alone keeps ({told(others_own, harmed)}).")
        if harmed := below(at_random, KEPT):
            known = [name for name in harmed if np.isfinite(rest[name]).any()]
            also = f", without as many that its mask does not keep {told(rest, known)}" if known else ""
            said.append(f"As many random weights of all do harm, too: without them {told(at_random, harmed)} are left{also}.")
        return " ".join(said)

    return Measured(scored(network, "inverse", False, False), [b for b in beside if b.known], learned(network), reading)


def survives(network: Network, others: Sequence[Network]) -> Measured:
    """Each function without the weights of the other's mask; beside it that function itself, and the same without layers set aside."""
    left, own = each(network, "inverse", True), each(network, "inverse", False)
    plain = network.study.removesuffix("_fullmask_io")
    whole = next((each(o, "inverse", True) for o in others if o.study == plain and o.point == network.point), {})
    beside = [
        Beside("left of each sum", left),
        Beside("of the sum whose own weights are taken out", own),
        Beside(f"left of each sum where input and output are not set aside (`{plain}`)", whole),
    ]

    def reading() -> str:
        said = []
        if there := [name for name, values in own.items() if mean(values) > LOST]:
            said.append(
                f"The removal does not take a sum itself away ({told(own, there)} of it are left): of its input and output weights "
                "those stay that the mask of the whole task keeps."
            )
        if fallen := [n for n, values in whole.items() if mean(values) >= mean(left[n]) + 0.05]:
            said.append(
                f"Where input and output are not set aside, more is left ({told(whole, fallen)}); why, and why not of both sums alike, "
                "was not examined."
            )
        return " ".join(said)

    return Measured(scored(network, "inverse", True, True), [b for b in beside if b.known], learned(network), reading)


def below(many: Mapping[str, Values], bound: float) -> list[str]:
    """Return the functions whose mean is below a bound."""
    return [name for name, values in many.items() if mean(values) < bound]


def told(many: Mapping[str, Values], names: Sequence[str]) -> str:
    """Return functions with their means: `mul 40.9 %, add 5.7 %`."""
    return ", ".join(f"{name} {percent(mean(many[name]))}" for name in names)


def percents(many: Mapping[str, Values]) -> str:
    """Return all functions with their means."""
    return told(many, [*many])


def percent(value: float) -> str:
    """Return a share as a reader sees it on the page."""
    return f"{100 * value:.1f} %"


# -- shared weights


def apart(network: Network, _: Sequence[Network]) -> Measured:
    """IoU of two masks over the inner matrices."""
    parts = inner(network)
    values, by_chance = pooled(network, parts)
    per_neuron = by_neuron(network, parts)
    everywhere = network.at("overlap/iou_total", stage=pair(network)[0], other=pair(network)[1])
    ceiling = worst([network.at("seed_ceiling/iou", stage=s, other=s) for s in pair(network)], True)
    beside = [
        Beside("chance", by_chance),
        Beside("chance, given how much of each neuron is kept", per_neuron),
        Beside("IoMin", smaller(network, parts)),
        Beside("over all matrices", everywhere),
        Beside("two masks of one function", ceiling),
    ]

    def reading() -> str:
        times = []
        if mean(by_chance) > 0:
            times.append(f"{mean(values) / mean(by_chance):.1f} times that of masks of these sizes, drawn evenly from each matrix")
        if mean(per_neuron) > 0:
            ratio = mean(values) / mean(per_neuron)
            times.append(f"{ratio:.1f} times that of masks that also keep as many weights of each neuron's inputs and outputs")
        said = [f"The IoU is {', and '.join(times)}."] if times else []
        gone, others = each(network, "own_removed", False), each(network, "own_removed", True)
        if all(np.isfinite(values).any() for values in (*gone.values(), *others.values())):
            said.append(
                f"What is left without the weights that one mask alone keeps: of its own sum {percents(gone)}, "
                f"of the other one {percents(others)}"
            )
            at_random = each(network, "own_removed/random", False)
            if np.isfinite([*at_random.values()]).any():
                said[-1] += f"; without as many random weights {percents(at_random)}"
            said[-1] += "; the sum's own inputs and outputs are among these weights." if separate(network) else "."
        return " ".join(said)

    own = [("each mask on its own function", scored(network, "scores", False, True), LEARNED)]
    return Measured(values, [b for b in beside if b.known], [*learned(network), *own], reading)
