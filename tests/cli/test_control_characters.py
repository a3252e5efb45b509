"""What a cube says is shown by a terminal and not obeyed: no escape sequence, bell, carriage return or turned text gets through."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from modhook.cli import main
from modhook.cube import Plan, create
from modhook.errors import CubeError, StorageError, UserError, printable
from modhook.plugin.interfaces import Tracker
from modhook.plugin.variables import Variable
from modhook.run.trackers import Trackers

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\rall is well\b\x7f\u202egnp.exe\u2066\u200f\u2028end"
ALLOWED = {"\n", "\t"}


def harmful(text: str) -> set[str]:
    """Return every control, bidi or separator character of a text, as Unicode classes them."""
    turned = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI", "AL_MARK"}
    return {
        c
        for c in text
        if c not in ALLOWED
        and (
            unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")
            or unicodedata.bidirectional(c) in turned
            or c in "\u200e\u200f\u061c"
        )
    }


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A cube whose labels, reasons, attributes and names say harmful things."""
    plan = Plan(
        attrs={"study": {"study": {"name": EVIL}, "task": {"name": EVIL}, "model": {"name": EVIL}}, "data": {}},
        run_dims={"seed": [1, 2], "masks.x": [EVIL, "plain"]},
        variables=(
            Variable("scores/accuracy", ("stage", "split"), "float64", EVIL, attrs={"table": "percent", "units": EVIL}),
            Variable("scores/other", ("stage", "split"), "float64", EVIL, attrs={"table": "number", "units": EVIL}),
        ),
        labels={"scores": {"stage": [EVIL, "add"], "split": [f"iid {EVIL}"]}},
    )
    cube = create(tmp_path / "evil.zarr", plan)
    for seed in (1, 2):
        run = {"seed": seed, "masks.x": EVIL}
        for stage in (EVIL, "add"):
            cube.write("scores/accuracy", np.array([0.5]), run, stage=stage)
            cube.write("scores/other", np.array([0.5]), run, stage=stage)
            cube.set_status(run, stage, "done")
    cube.set_status({"seed": 1, "masks.x": "plain"}, "add", "failed", reason=EVIL, route=EVIL)
    return tmp_path / "evil.zarr"


COMMANDS = {
    "text": ["show"],
    "csv": ["show", "--format", "csv"],
    "markdown": ["show", "--format", "markdown"],
    "latex": ["show", "--format", "latex"],
    "verify": ["show", "--verify"],
    "plot": ["plot"],
    "plot one": ["plot", "--figure", "scan_accuracy"],
    "report": ["report"],
    "analyse": ["analyse"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_prints_it(name: str, evil: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Tables in every format, lists of figures and every error message are free of control characters."""
    command, *rest = COMMANDS[name]
    with pytest.raises(SystemExit):
        main([command, str(evil), *(["sharing"] if command == "analyse" else []), *rest])
    out, err = capfd.readouterr()
    assert harmful(out + err) == set()
    if command == "show":
        assert "owned" in out + err
        assert "x1b" in out + err


def test_damage_is_told_without_it(evil: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A sentence that names a run and a stage of a stranger's cube is plain text."""
    next(f for f in sorted((evil / "scores/accuracy").rglob("c/0/0/*/*")) if f.is_file()).unlink()
    with pytest.raises(SystemExit) as stop:
        main(["show", str(evil)])
    _, err = capfd.readouterr()
    assert stop.value.code == 2
    assert harmful(err) == set()
    assert "all is well" in err
    assert "is missing" in err


@pytest.mark.parametrize("kind", [UserError, CubeError, StorageError])
def test_an_error_says_it_as_plain_text(kind: type[Exception]) -> None:
    """Also in a traceback of somebody's own script; what the error was made of is as it was."""
    error = kind(f"there is no {EVIL}")
    assert harmful(str(error)) == set()
    assert harmful(error.args[0]) != set()


def test_ordinary_text_stays() -> None:
    """Other languages, signs, line breaks and tabs are shown as they are."""
    for text in ("größer – 中文 עברית العربية ≥ 5 ± 1\n\tnext", "👩\u200d🔬", ""):
        assert printable(text) == text
    assert printable("a\nb", line=True) == "a\\nb"


def test_progress_is_told_without_it() -> None:
    """Every tracker gets printable labels, stages and messages."""
    heard: list[str] = []

    class Ear(Tracker):
        def run_started(self, label: str) -> None:
            heard.append(label)

        def stage_finished(self, stage: str, scores: object) -> None:
            heard.append(f"{stage} {scores}")

        def message(self, text: str) -> None:
            heard.append(text)

    trackers = Trackers({"ear": Ear()})
    trackers.run_started(f"x={EVIL}")
    trackers.stage_finished(EVIL, {f"accuracy/{EVIL}": 0.5})
    trackers.message(EVIL)
    assert len(heard) == 3
    assert harmful("".join(heard)) == set()
    assert all("owned" in text for text in heard)
