"""Controls as stages: stopped and continued, one that fails, `--only-control`, a cube that is analysed later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stopping import Stop

from modhook.cube import masks_from, open_cube, open_for_writing
from modhook.run.mend import survey
from modhook_plugins.trackers.progress import Progress
from modhook_tasks.addmul import AddMul

Run = Callable[..., tuple[int, str, str]]
CONTROLS = """
[controls]
shuffled = { stages = ["add", "mul"] }
untrained = false
nonsense = { stages = ["mul"] }
seed_ceiling = { seeds = 2, stages = ["add", "mul"] }
"""
LABELS = ("add (shuffled)", "mul (shuffled)", "mul (nonsense)", "add (mask seed 2)", "mul (mask seed 2)")


@pytest.fixture
def study(tiny: Path) -> Path:
    """The tiny study with controls, of one seed."""
    tiny.write_text(tiny.read_text().replace("seeds = 2", "seeds = 1") + CONTROLS)
    return tiny


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_text: str) -> Path:
    """The cube of that study, computed without a stop."""
    from modhook.cli import main

    folder = tmp_path_factory.mktemp("whole")
    (folder / "tiny.toml").write_text(tiny_text.replace("seeds = 2", "seeds = 1") + CONTROLS)
    with pytest.raises(SystemExit) as stop:
        main(["run", str(folder / "tiny.toml"), "--out", str(folder), "--checkpoint-every", "0"])
    assert stop.value.code == 0
    return folder / "tiny.zarr"


def states(cube: Path) -> dict[str, int]:
    """Return how far every stage and analysis is."""
    with open_cube(cube) as found:
        stages = {str(s): int(found["runs/status"].sel(stage=s)[0]) for s in found["runs/stage"].values}
        return stages | {a: int(found[f"runs/{a}"][0]) for a in ("sharing", "seed_ceiling")}


def test_stopped_within_controls_and_continued(
    study: Path, whole: Path, tmp_path: Path, modhook_run: Run, contents: Any, stop: Stop
) -> None:
    """Stopped at steps of three controls, one after the other, every byte is that of a run without a stop; no file stays."""
    for at in (("mul (shuffled)", 2), ("mul (nonsense)", 5), ("add (mask seed 2)", 1)):
        stop.at = at
        assert modhook_run("run", study, "--out", tmp_path, "--checkpoint-every", 0)[0] == 130
    code, out, err = modhook_run("run", study, "--out", tmp_path, "--checkpoint-every", 0)
    assert (code, "2 stages computed, 7 were there already" in out) == (0, True), err
    assert contents(tmp_path / "tiny.zarr") == contents(whole)
    assert not (tmp_path / "tiny.zarr.checkpoints").exists()


def test_the_control_alone_and_controls_later(
    study: Path, whole: Path, tmp_path: Path, modhook_run: Run, contents: Any
) -> None:
    """`--only-control` computes no control of another kind; the same command without it computes them to the same bits."""
    code, out, err = modhook_run("run", study, "--out", tmp_path, "--only-control", "--checkpoint-every", 0)
    assert (code, "2 stages computed;" in out) == (0, True), err
    assert states(tmp_path / "tiny.zarr") == {
        **dict.fromkeys(("unmasked", "control"), 1), **dict.fromkeys(("add", "mul", *LABELS, "sharing", "seed_ceiling"), 0)
    }  # fmt: skip
    code, out, err = modhook_run("run", study, "--out", tmp_path, "--checkpoint-every", 0)
    assert (code, "7 stages computed, 2 were there already" in out) == (0, True), err
    assert contents(tmp_path / "tiny.zarr") == contents(whole)


def test_a_control_that_fails_stops_nothing_else(
    study: Path, tmp_path: Path, modhook_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is marked failed with its reason, controls of other kinds and analyses are computed, and it can be tried again."""
    nonsense = AddMul.nonsense
    calls = 0

    def failing(task: AddMul, data: Any, stage: str, seed: int) -> Any:
        nonlocal calls
        calls += seed > 0
        if seed > 0:  # 0 is the trial before anything is computed
            raise ValueError("no nonsense today")
        return nonsense(task, data, stage, seed)

    with monkeypatch.context() as patch:
        patch.setattr(AddMul, "nonsense", failing)
        code, out, err = modhook_run("run", study, "--out", tmp_path)
    assert code == 1
    assert calls
    assert "seed=1, mul (nonsense): " in out + err
    assert "no nonsense today" in out + err
    found = states(tmp_path / "tiny.zarr")
    assert found.pop("mul (nonsense)") == 2
    assert found == dict.fromkeys(found, 1)
    code, out, err = modhook_run("run", study, "--out", tmp_path)
    assert (code, "0 stages computed" in out) == (1, True)
    code, out, err = modhook_run("run", study, "--out", tmp_path, "--retry-failed")
    assert (code, "1 stages computed, 8 were there already" in out) == (0, True), err
    assert set(states(tmp_path / "tiny.zarr").values()) == {1}


def test_clipping_over_all_starts_each_control_anew(study: Path, tmp_path: Path, modhook_run: Run, contents: Any) -> None:
    """With `clip_over = "all"` a control hands its gradients on to its own next stage, none is missed, and no file stays."""
    study.write_text(study.read_text().replace("[masks]", '[masks]\nclip_over = "all"\nclip = 0.01'))
    code, _, err = modhook_run("run", study, "--out", tmp_path / "a")
    assert (code, "starts without" in err) == (0, False), err
    assert not (tmp_path / "a/tiny.zarr.checkpoints").exists()
    assert modhook_run("run", study, "--out", tmp_path / "b")[0] == 0
    assert contents(tmp_path / "a/tiny.zarr") == contents(tmp_path / "b/tiny.zarr")


def test_scored_controls_join_a_finished_cube(study: Path, tmp_path: Path, modhook_run: Run) -> None:
    """`[controls] random` and its like are analyses: they join a cube that is there, and other options are refused."""
    without = study.read_text().replace(CONTROLS, "")
    study.write_text(without)
    assert modhook_run("run", study, "--out", tmp_path)[0] == 0
    study.write_text(without + "[controls]\nrandom = { draws = 2 }\nmagnitude = true\ninverse = true\nown_removed = true\n")
    code, out, err = modhook_run("run", study, "--out", tmp_path)
    assert (code, "0 stages computed" in out) == (0, True), err
    below = out[out.index("Before you trust these numbers:") :]
    assert "- The trained network itself is weak, so its masks say little: " in below
    assert "- The mask was still changing: " in below
    with open_cube(tmp_path / "tiny.zarr") as found:
        assert found["random/draws/accuracy"].shape == (1, 3, 2, 3)
        assert found["own_removed/draws/accuracy"].shape == (1, 3, 5, 3)
        assert found["magnitude/accuracy"].notnull().all()
    study.write_text(without + "[controls]\nrandom = { draws = 3 }\n")
    code, _, err = modhook_run("run", study, "--out", tmp_path)
    assert (code, "analyses.random.draws is 2 there and 3 here" in err) == (2, True), err


def test_learned_controls_join_a_finished_cube(
    tiny: Path, whole: Path, tmp_path: Path, modhook_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Controls that join a cube in two goes have the numbers of a cube laid out with them; what was there keeps its very files."""
    bare = tiny.read_text().replace("seeds = 2", "seeds = 1")
    folder, cube = tmp_path / "o", tmp_path / "o" / "tiny.zarr"
    some = '[controls]\nnonsense = { stages = ["mul"] }\nseed_ceiling = { seeds = 2, stages = ["add"] }\n'
    kept: dict[str, bytes] = {}
    computed: list[str] = []
    started = Progress.stage_started

    def stage_started(self: Progress, name: str, steps: int) -> None:
        computed.append(name)
        started(self, name, steps)

    monkeypatch.setattr(Progress, "stage_started", stage_started)
    goes = (
        (bare, None),
        (bare + some, {"mul (nonsense)", "add (mask seed 2)"}),
        (bare + CONTROLS, set(LABELS) - {"mul (nonsense)", "add (mask seed 2)"}),
        (bare + some, set()),
        (bare, set()),
    )
    for text, new in goes:
        tiny.write_text(text)
        computed.clear()
        code, _, err = modhook_run("run", tiny, "--out", folder)
        assert code == 0, err
        assert new is None or set(computed) == new
        values = {str(f.relative_to(cube)): f.read_bytes() for f in cube.rglob("c/**/*") if f.is_file()}
        values = {f: d for f, d in values.items() if "stage" not in f and not f.startswith(("runs/", "seed_ceiling/"))}
        assert {f: values[f] for f in kept} == kept
        kept = values
    with open_cube(whole) as expected, open_cube(cube) as found:
        assert set(found["controls/stage"].values) == set(LABELS)
        assert found.attrs["study"]["controls"].keys() == {"nonsense", "seed_ceiling", "shuffled"}
        assert found.groups == expected.groups
        for group in expected.groups:
            one, other = expected[group].to_dataset(), found[group].to_dataset()
            assert set(one.variables) == set(other.variables)
            if "stage" in one.coords:
                other = other.sel(stage=one["stage"].values)
            for name, value in one.data_vars.items():
                if group != "/timing" and name not in ("digest", "ms_per_step", "train_ms_per_step"):
                    np.testing.assert_array_equal(other[name].values, value.values, err_msg=f"{group}/{name}")
    assert survey(open_for_writing(cube)) == 1


def test_what_reads_a_cube_knows_controls(whole: Path, tmp_path: Path, modhook_run: Run) -> None:
    """Tables, a later analysis, verification, figures and the report work, and the report's findings are about the study's stages."""
    from modhook.report.facts import Facts

    code, out, err = modhook_run("show", whole, "--verify")
    assert (code, "controls/scores/accuracy" in out) == (0, True), err
    assert modhook_run("analyse", whole, "half_mask")[0] == 0
    assert modhook_run("report", whole, "--out", tmp_path / "r.html")[0] == 0
    with open_cube(whole) as found:
        facts = Facts(found, whole)
        assert facts.stages == ["unmasked", "control", "add", "mul"]
        assert facts.masked == ["control", "add", "mul"]
        assert facts.controls == list(LABELS)
        assert bool(facts.overlap.notnull().all())
        assert masks_from(found, 1, "add (shuffled)") != masks_from(found, 1, "add")
