"""Runs that are stopped within a stage and continued: to the very bytes of a run that was never stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_study import small_scan
from stopping import Stop

Run = Callable[..., tuple[int, str, str]]
Undisturbed = Callable[..., Path]

TRANSFER = """
[study]
name = "tiny"
protocol = "transfer"
[task]
name = "addmul"
train_size = 300
valid_size = 40
[model]
name = "fnn"
hidden = [9, 7]
init = "xavier"
[train]
batch = 16
validate_every = 0
[masks]
steps = 6
samples = 4
lr = 0.8
exclude = []
[protocol]
new_init = -1.0
[analyses]
inverse = {}
"""
TUPLE = """
[study]
name = "tiny"
[task]
name = "double_addition"
train_size = 400
valid_size = 40
tuple2_delay = 4
[model]
name = "lstm"
hidden = 6
[train]
steps = 6
batch = 16
[masks]
steps = 5
samples = 2
lr = 0.8
"""
SCAN = small_scan()


def study(name: str, tiny: Path) -> Path:
    """Write a study that runs in a second."""
    if name != "addmul":
        tiny.write_text({"transfer": TRANSFER, "tuple": TUPLE, "scan": SCAN}[name])
    return tiny


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("addmul", ["unmasked", "control", "mul"]),
        ("transfer", ["control", "mul"]),
        ("tuple", ["unmasked"]),
        ("scan", ["unmasked", "turn_left"]),
    ],
)
def test_stopped_within_stages_and_continued(
    name: str, stages: list[str], tiny: Path, tmp_path: Path, modhook_run: Run, undisturbed: Undisturbed, contents: Any, stop: Stop
) -> None:
    """A stage continues at the step of its checkpoint, and every byte of the cube is as if nothing had happened.

    Base training, validation and mask stages; a protocol that changes the weights; dropout and coin flips in every
    batch; a task that counts batches.
    """
    file = study(name, tiny)
    whole = undisturbed(file, "--checkpoint-every", 0)
    for stage in stages:
        stop.at = (stage, 4)
        assert modhook_run("run", file, "--out", tmp_path / "cut", "--checkpoint-every", 0)[0] == 130
        assert len(list((tmp_path / "cut/tiny.zarr.checkpoints").iterdir())) == 1
        stop.steps.clear()
    code, _, err = modhook_run("run", file, "--out", tmp_path / "cut", "--checkpoint-every", 0)
    assert code == 0, err
    assert stop.first(stages[-1]) == 4
    assert contents(tmp_path / "cut/tiny.zarr") == contents(whole)
    assert not (tmp_path / "cut/tiny.zarr.checkpoints").exists()


@pytest.mark.parametrize("after", ["write_weights", "set_status"])
def test_stopped_while_results_are_written(
    after: str,
    tmp_path: Path,
    tiny: Path,
    modhook_run: Run,
    undisturbed: Undisturbed,
    contents: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stage that wrote its weights and was not marked done yet starts again from the weights before it, not from these."""
    from modhook.cube import Cube
    from modhook.run import context

    file = study("transfer", tiny)
    whole = undisturbed(file)
    calls = 0

    def stopping(function: Callable[..., Any]) -> Callable[..., Any]:
        def stopped(*args: Any, **kwargs: Any) -> None:
            nonlocal calls
            calls += 1
            function(*args, **kwargs)
            if calls == 2:
                raise KeyboardInterrupt

        return stopped

    with monkeypatch.context() as patch:
        place = context if after == "write_weights" else Cube
        patch.setattr(place, after, stopping(getattr(place, after)))
        assert modhook_run("run", file, "--out", tmp_path / "cut")[0] == 130
    code, _, err = modhook_run("run", file, "--out", tmp_path / "cut")
    assert code == 0, err
    assert contents(tmp_path / "cut/tiny.zarr") == contents(whole)


def stopped_in_training(file: Path, out: Path, modhook_run: Run, stop: Stop) -> Path:
    """Stop the first seed's base training after three steps; return its checkpoint."""
    stop.at = ("unmasked", 4)
    assert modhook_run("run", file, "--out", out, "--checkpoint-every", 0)[0] == 130
    stop.steps.clear()
    (checkpoint,) = (out / "tiny.zarr.checkpoints").iterdir()
    return checkpoint


def test_another_thread_count_starts_the_stage_over(tiny: Path, tmp_path: Path, modhook_run: Run, stop: Stop) -> None:
    """A checkpoint of two threads is not continued with one: the stage starts over, and the message says why."""
    tiny.write_text(tiny.read_text() + "\n[run]\nthreads = 2\n")
    stopped_in_training(tiny, tmp_path, modhook_run, stop)
    code, _, err = modhook_run("run", tiny, "--out", tmp_path, "--set", "run.threads=1")
    assert code == 0
    assert "threads was 2 and is 1. It is not used, and the stage starts over." in err
    assert stop.first("unmasked") == 1


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty"])
def test_a_damaged_checkpoint_is_not_used(
    damage: str, tiny: Path, tmp_path: Path, modhook_run: Run, undisturbed: Undisturbed, contents: Any, stop: Stop
) -> None:
    """A flipped bit or a missing end is noticed and said; the stage starts over, to the same cube."""
    whole = undisturbed(tiny)
    checkpoint = stopped_in_training(tiny, tmp_path / "cut", modhook_run, stop)
    data = bytearray(checkpoint.read_bytes())
    data[-100] ^= 1
    checkpoint.write_bytes({"flipped": data, "truncated": data[:-50], "empty": b""}[damage])
    code, _, err = modhook_run("run", tiny, "--out", tmp_path / "cut")
    assert code == 0
    assert str(checkpoint) in err
    assert "It is not used, and the stage starts over." in err
    assert stop.first("unmasked") == 1
    assert contents(tmp_path / "cut/tiny.zarr") == contents(whole)


def test_other_weights_are_not_mixed_with_a_checkpoint(
    tiny: Path, tmp_path: Path, modhook_run: Run, stop: Stop
) -> None:
    """A mask stage is not continued on a network with other weights, though the study reads the same."""
    from modhook_plugins.networks.fnn import FNN, FNNOptions

    net = FNN(FNNOptions((12, 8))).build({"inputs": 42, "outputs": 20})
    torch.save(net.state_dict(), tmp_path / "w.pt")
    tiny.write_text(tiny.read_text().replace("steps = 6", 'weights = "w.pt"').replace("seeds = 2", "seeds = 1"))
    stop.at = ("control", 4)
    assert modhook_run("run", tiny, "--out", tmp_path, "--checkpoint-every", 0)[0] == 130
    with torch.no_grad():
        net.layer1.weight.add_(1)
    torch.save(net.state_dict(), tmp_path / "w.pt")
    import shutil

    shutil.rmtree(tmp_path / "tiny.zarr")
    stop.steps.clear()
    code, _, err = modhook_run("run", tiny, "--out", tmp_path)
    assert (code, "network before the stage was" in err) == (0, True)
    assert stop.first("control") == 1


def test_fresh_removes_checkpoints_and_nothing_else(tiny: Path, tmp_path: Path, modhook_run: Run, stop: Stop) -> None:
    """--fresh forgets checkpoints; a stranger's file in their folder stays."""
    checkpoint = stopped_in_training(tiny, tmp_path, modhook_run, stop)
    (checkpoint.parent / "notes.txt").write_text("mine")
    assert modhook_run("run", tiny, "--out", tmp_path, "--fresh", "--yes", "--only", "seed=1")[0] == 0
    assert stop.first("unmasked") == 1
    assert [p.name for p in checkpoint.parent.iterdir()] == ["notes.txt"]


def test_files_that_a_kill_left_half_written_go(tiny: Path, tmp_path: Path, modhook_run: Run, stop: Stop) -> None:
    """What a killed process left beside a chunk or a checkpoint is removed by the next run; other files are not touched."""
    checkpoint = stopped_in_training(tiny, tmp_path, modhook_run, stop)
    store = tmp_path / "tiny.zarr"
    halves = [store / f"scores/accuracy/c/0/0/0.{'a1' * 16}.partial", checkpoint.with_name(".x.partial")]
    halves[0].parent.mkdir(parents=True)
    mine = store / "my.partial"
    for file in (*halves, mine):
        file.write_text("")
    modhook_run("run", tiny, "--out", tmp_path, "--only", "seed=1")
    assert [f.exists() for f in (*halves, mine)] == [False, False, True]
