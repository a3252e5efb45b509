"""The count of verdicts: what is right where, the pages against docs/verdicts.json, and one question from end to end."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import modhook
from modhook.findings import VERDICTS

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests/verdicts"))

import asked_networks as networks  # noqa: E402 - a program beside the tests, not a package
import count_verdicts  # noqa: E402
import verdict_table  # noqa: E402

FOUND = json.loads((ROOT / "docs/verdicts.json").read_text(encoding="utf-8"))


def row(network: str, alone: bool = False, **verdicts: str) -> dict[str, Any]:
    """Return a row in which every verdict is yes but those given."""
    said = dict.fromkeys(VERDICTS, "yes") | verdicts
    return {"network": network, "function": "f", "alone": alone, "seeds": 3, "unmasked": 1.0, "kept": 0.5, "verdicts": said, "findings": []}


def outcomes(one: dict[str, Any]) -> list[str]:
    """Return the outcome of each verdict, in their order."""
    return [verdict_table.outcome(one, v) for v in VERDICTS]


def test_what_is_right_depends_on_what_is_there() -> None:
    """Yes where a function is; no to `real`, and no other claim, where none is; nothing where nobody knows."""
    assert outcomes(row("welded_fnn")) == ["right"] * 6
    assert outcomes(row("welded_fnn", necessary="no", real="cannot tell"))[1:4] == ["wrong", "right", "cannot tell"]
    assert outcomes(row("hist", alone=True, specific="cannot tell")) == ["right", "right", "", "right", "right", "right"]
    assert outcomes(row(networks.TRAINED, necessary="no")) == ["", "", "", "right", "", ""]
    assert outcomes(row("welded_fnn/shuffled")) == ["wrong"] * 4 + ["", ""]
    nothing = row("welded_fnn/shuffled", sufficient="cannot tell", necessary="no", specific="cannot tell", real="no")
    assert outcomes(nothing) == ["right"] * 4 + ["", ""]
    counted = verdict_table.counts([nothing, row("welded_fnn/untrained", real="no")]).splitlines()[-1]
    assert counted == "| nothing there | 2 | 3 | 1 of 2, 1 wrong | 1 of 2, 1 wrong | 1 of 2, 1 wrong | 2 of 2 | - | - |"


def test_the_pages_show_what_was_counted() -> None:
    """The tables of docs/real.md and docs/ask.md are those of docs/verdicts.json, of one setting and the networks that are asked."""
    assert FOUND["setting"] == networks.SETTING
    assert {r["network"] for r in FOUND["rows"]} <= set(networks.ORDER)
    for page, parts in verdict_table.blocks(FOUND).items():
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        for name, block in parts.items():
            assert verdict_table.replaced(text, name, block) == text
    assert count_verdicts.merged(FOUND["rows"], [r for r in FOUND["rows"] if r["network"] == "welded_fnn"]) == FOUND["rows"]


def test_rows_of_another_setting_are_dropped() -> None:
    """A table is of one setting: another one begins it anew."""
    rows = [row("welded_fnn"), row(networks.TRAINED)]
    now = count_verdicts.document(rows)
    assert count_verdicts.current(now) == rows
    assert count_verdicts.current({**now, "setting": {**networks.SETTING, "lr": 1.0}}) == []
    assert count_verdicts.current({}) == []


def test_other_outputs_are_other_answers() -> None:
    """Every output that is asked for stands for another one, and no other output changes; a lone one is turned round."""
    tolerance = torch.tensor([0.5, 0.5, float("inf"), 0.5]).expand(5, 2, 4)
    target = torch.arange(40.0).view(5, 2, 4)
    moved = networks.other_outputs({"target": target, "tolerance": tolerance}, 3)["target"]
    place = [int((target[0, 0] == value).nonzero()) for value in moved[0, 0]]
    assert sorted(place) == [0, 1, 2, 3]
    assert [a == b for a, b in enumerate(place)] == [False, False, True, False]
    assert torch.equal(moved, target[..., place])
    lone = networks.other_outputs({"target": target[..., :1], "tolerance": tolerance[..., :1]}, 3)["target"]
    assert torch.equal(lone, 1 - target[..., :1])


def test_a_question_is_kept_and_judged_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row has every verdict with its numbers; a second call only reads the cube."""
    short = {**networks.SETTING, "steps": 1, "samples": 1}
    rows = networks.summarised("welded_fnn", networks.ask("welded_fnn", 1, tmp_path, short), 1)
    assert [r["function"] for r in rows] == ["largest", "positive"]
    for one in rows:
        assert set(one["verdicts"]) == set(VERDICTS) == {f["verdict"] for f in one["findings"]}
        assert one["verdicts"]["real"] == "cannot tell"  # one seed
    monkeypatch.setattr(modhook, "ask", None)
    cube = networks.ask("welded_fnn", 1, tmp_path, short)
    assert verdict_table.plain(networks.summarised("welded_fnn", cube, 1)) == verdict_table.plain(rows)
    assert not networks.whole(cube, 2, short)
    assert not networks.whole(cube, 1, {**short, "lr": 0.2})
    damaged = cube.copy(deep=True)
    damaged["runs/status"][:, -1] = 0
    assert not networks.whole(damaged, 1, short)
