"""The claims of the paper, in our words: which number of which studies, and from where on it counts as seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import beta_measures
import claim_measures as measures
import numpy as np
import split_measures
import transfer_measures
from cubes_of_studies import Network
from verdict_rule import Rule

ADDMUL = ("addmul_fnn", "addmul_fnn_big", "addmul_fnn_huge", "addmul_lstm")
ELSEWHERE = {"tuple_fnn_small": "the paper shows this network in its test of half masks alone; in this claim's figures, `tuple_fnn`"}
"""What the paper's own figures of a claim have instead, by study."""
TUPLE = ("tuple_lstm", "tuple_fnn", "tuple_fnn_small", "tuple_fnn_copied_io")
SCAN = ("scan", "scan_transformer")
CIFAR = ("cifar10_cnn", "cifar10_cnn_no_dropout", "cifar10_resnet")
TRANSFER = ("transfer", "transfer_prefer_old", "transfer_prefer_old_more")
MATHS = ("maths_add_or_sub", "maths_differentiate", "maths_linear_1d", "maths_collect", "maths_sort")


@attrs.frozen
class Claim:
    """One claim, and the studies of the paper that it is about."""

    key: str
    studies: tuple[str, ...]
    statement: str
    number: str
    """What is measured, in words."""
    figure: str
    """The figure of `modhook plot` that shows it."""
    rule: Rule
    measure: Callable[[Network, Sequence[Network]], measures.Measured]
    percent: bool = True
    within: tuple[float, float] = (0.0, 1.0)


OWN, OTHER, WITHOUT = Rule(0.95, 0.8), Rule(0.1, 0.5, high=False), Rule(0.1, 0.5, high=False)
DROP, TWO = Rule(0.3, 0.05), (-1.0, 1.0)
CLAIMS = (
    Claim(
        "addmul-keeps",
        ADDMUL,
        "The mask of an operation keeps what the network needs for it.",
        "accuracy under its own mask, the worse operation",
        "addmul_performance",
        OWN,
        measures.keeps,
    ),
    Claim(
        "addmul-loses",
        ADDMUL,
        "The mask of one operation does not do the other.",
        "accuracy of the other operation, the better one",
        "addmul_performance",
        OTHER,
        measures.loses,
    ),
    Claim(
        "addmul-needs",
        ADDMUL,
        "Without the weights of its mask the network cannot do the operation any more.",
        "accuracy on the operation under the inverted mask, the better one",
        "addmul_performance",
        WITHOUT,
        measures.needed,
    ),
    Claim(
        "beta-holds",
        ("addmul_beta",),
        "How strongly masks are pulled to be small matters little for what they do.",
        f"decades of beta over which both masks are at least {100 * measures.LEARNED:.0f} % right",
        "beta_sensitivity",
        Rule(1.0, 0.5),
        beta_measures.holds,
        False,
        (0.0, np.inf),
    ),
    Claim(
        "beta-falls",
        ("addmul_beta",),
        "The stronger the pull, the less the masks of the two operations share.",
        "shared share of the kept weights, mean of both operations, at the smallest beta minus that at the largest",
        "beta_sensitivity",
        Rule(0.2, 0.05),
        beta_measures.falls,
        True,
        TWO,
    ),
    Claim(
        "tuple-keeps",
        TUPLE,
        "The mask of one of two equal sums keeps what the network needs for it.",
        "accuracy under its own mask, the worse sum",
        "tuple_performance",
        OWN,
        measures.keeps,
    ),
    Claim(
        "tuple-loses",
        TUPLE,
        "The mask of one sum does not do the other, although it is the same function.",
        "accuracy on the other sum, the better one",
        "tuple_performance",
        OTHER,
        measures.loses,
    ),
    Claim(
        "tuple-apart",
        TUPLE,
        "Between input and output the two sums hardly share weights: the network does not reuse what it has learned.",
        "IoU of the two masks over the inner matrices",
        "tuple_overlap",
        Rule(0.1, 0.3, high=False),
        measures.apart,
        False,
    ),
    Claim(
        "tuple-survives",
        ("tuple_lstm_fullmask_io", "tuple_fnn_fullmask_io"),
        "Without one sum's weights, input and output aside, the other sum remains.",
        "accuracy on the other sum under the inverted mask, the worse one",
        "tuple_performance",
        OWN,
        measures.survives,
    ),
    *(
        Claim(
            f"scan-{s}",
            SCAN,
            f"SCAN, {s.replace('_', ' ')}: what generalises to the split in the trained network is not needed on the split's own "
            "training set, so its mask loses it.",
            "accuracy on the split under the mask of the whole task minus that under the split's own",
            "scan_accuracy",
            DROP,
            split_measures.fails(s),
            True,
            TWO,
        )
        for s in ("jump", "length", "turn_left")
    ),
    *(
        Claim(
            f"scan-scratch-{s}",
            SCAN,
            f"SCAN, {s.replace('_', ' ')}: the split's mask generalises as badly as a network that is trained on the split alone.",
            "distance of the two accuracies (needs the study `scan_baselines` as well)",
            "scan_baselines",
            Rule(0.1, 0.2, high=False),
            split_measures.like_scratch(s),
        )
        for s in ("jump", "length", "turn_left")
    ),
    Claim(
        "cifar-target",
        CIFAR,
        "A mask learned without one class of images loses most of that class.",
        "relative loss of the removed class' accuracy, mean over classes",
        "class_drops",
        Rule(0.8, 0.5),
        split_measures.removed,
        True,
        (-np.inf, 1.0),
    ),
    Claim(
        "cifar-others",
        CIFAR,
        "The other classes lose little, most of them under a tenth of it.",
        "largest relative loss of another class over that of the removed one, median over classes",
        "class_drops",
        Rule(0.1, 0.3, high=False),
        split_measures.spared,
        True,
        (0.0, np.inf),
    ),
    Claim(
        "cifar-stable",
        ("cifar10_stability",),
        "Two masks of one function, learned in another order of the data, are much alike.",
        "IoU, mean over functions",
        "stability",
        Rule(0.7, 0.5),
        split_measures.alike,
        False,
    ),
    Claim(
        "transfer-little",
        TRANSFER,
        "A network that learns a second permutation of the pixels reuses few of the weights that the first one needs.",
        "reused share of the second task's mask, the layer between the first and the last that reuses most",
        "transfer_sharing",
        transfer_measures.LITTLE,
        transfer_measures.reuses_little,
    ),
    Claim(
        "transfer-last",
        TRANSFER,
        "Only in the last layer the second permutation reuses many.",
        "reused share of the second task's mask in the last layer",
        "transfer_sharing",
        transfer_measures.LAST,
        transfer_measures.reuses_last,
    ),
    Claim(
        "maths-hard",
        MATHS,
        "The weights that easy questions of mathematics need are not enough for hard ones.",
        "accuracy on hard questions under the mask of all minus that under the mask of easy ones",
        "maths_hard",
        DROP,
        split_measures.easy_fails,
        True,
        TWO,
    ),
)
"""Every claim, in the order of the page."""
