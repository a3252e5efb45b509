"""A network in which there is nothing: what is said of it first, in an answer and in its report."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest
import torch
from two_functions import asked, network

import modhook
from modhook.findings import Finding
from modhook.findings.nothing import nothing
from modhook.report.facts import Facts
from modhook.report.findings import findings


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> modhook.Answer:
    """Two functions of a network that always answers the same, two seeds, compared with untrained networks."""
    model = network()
    with torch.no_grad():
        model[2].bias.copy_(torch.tensor([9.0, 0.0]))
    out = tmp_path_factory.mktemp("nothing") / "n.zarr"
    return asked(model, out, seeds=2, steps=4, samples=2, density=0.3, analyses=[], controls={"untrained": {}})


def test_nothing_is_said_first(answer: modhook.Answer) -> None:
    """The report's first headlines, and the answer's first lines after its verdicts, say of each function that nothing is there."""
    assert {v["real"] for v in answer.verdicts.values()} == {"no"}
    said = [
        f"Nothing of {name} is there to be found: without a mask the network scores little more than its control (untrained), in one seed "
        "at least, so that its mask and its scores say nothing."
        for name in ("a", "b")
    ]
    told = [str(one) for one in findings(Facts(answer.cube, Path("n.zarr")))]
    assert told[:2] == said
    assert told[2].startswith("The mask for a keeps ")
    lines = str(answer).splitlines()
    assert lines.index(said[0]) < lines.index(said[1]) < lines.index("a:")
    assert re.search(r"nothing there.*Nothing of a is there to be found", answer._repr_html_(), re.DOTALL)


def test_two_seeds_of_one_network_want_a_third(answer: modhook.Answer) -> None:
    """They make one pair of masks, one number: *stable* cannot be told, and what would tell is said."""
    (line,) = [line for line in str(answer).split("\nb:")[0].splitlines() if line.startswith("  stable")]
    assert line.endswith("(n = 1); two seeds make one pair of masks, and one number tells nothing: ask for a third seed")
    assert answer.verdicts["a"]["stable"] == "cannot tell"


def finding(measure: str, answer: str) -> Finding:
    """A finding of the verdict `real`."""
    nan = float("nan")
    return Finding("f", "real", measure, answer, 0.0, nan, nan, nan, 3, nan, 0.1, "w")  # type: ignore[arg-type]


def test_which_control_is_as_good() -> None:
    """Able networks: only a control that neither score nor size tells apart is named; any other answer says nothing."""
    able = [finding(f"ability against {k}", "yes") for k in ("shuffled", "untrained")]
    measures = ("score at equal size", "size at equal score")
    alike = [finding(f"advantage over shuffled as {what}", "no") for what in measures]
    better = [finding(f"advantage over untrained as {what}", a) for what, a in zip(measures, ("no", "yes"), strict=True)]
    assert nothing("f", [*able, *alike, *better]) == (
        "Nothing of f was found: the masks of its control (shuffled) are as good as its own."
    )
    assert nothing("f", [*able, attrs.evolve(alike[0], answer="cannot tell"), alike[1], *better]) == ""
