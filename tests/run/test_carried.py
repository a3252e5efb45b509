"""Stages that start with what the stage before left (`masks.clip_over = "all"`): stopped anywhere, and continued exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stopping import Stop

from modhook.cube import Cube, open_cube
from modhook.run.carried import CarriedFile

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
"""


@pytest.fixture(params=["posthoc", "transfer"])
def carrying(request: pytest.FixtureRequest, tiny: Path) -> Path:
    """A study whose clipping covers all, with a limit that acts in every step."""
    text = tiny.read_text() if request.param == "posthoc" else TRANSFER
    text = text.replace("seeds = 2", "seeds = 1").replace("[masks]", '[masks]\nclip_over = "all"\nclip = 0.01')
    tiny.write_text(text)
    return tiny


def files(cube: Path) -> list[str]:
    """Names in the folder of checkpoints."""
    folder = cube.with_name(f"{cube.name}.checkpoints")
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("stops", [range(1, 8), range(2, 5)])
def test_stopped_between_stages_and_continued(
    stops: range,
    carrying: Path,
    tmp_path: Path,
    modhook_run: Run,
    undisturbed: Undisturbed,
    contents: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped right after each change of a stage's status, the cube is that of a run without a stop; no file stays."""
    whole = undisturbed(carrying)
    set_status, calls = Cube.set_status, 0
    for stop in stops:

        def stopping(cube: Cube, labels: Any, stage: str, status: str, **rest: Any) -> None:
            nonlocal calls
            set_status(cube, labels, stage, status, **rest)
            calls += 1
            if calls == stop:  # noqa: B023 - called at once
                calls = 0
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Cube, "set_status", stopping)
            modhook_run("run", carrying, "--out", tmp_path / "cut")
    code, _, err = modhook_run("run", carrying, "--out", tmp_path / "cut")
    assert code == 0, err
    assert "starts without" not in err
    assert contents(tmp_path / "cut/tiny.zarr") == contents(whole)
    assert files(tmp_path / "cut/tiny.zarr") == []


@pytest.mark.parametrize("at", [("unmasked", 6), ("control", 1), ("control", 4), ("add", 5), ("mul", 1), ("mul", 3)])
def test_stopped_within_stages_and_continued(
    at: tuple[str, int],
    tiny: Path,
    tmp_path: Path,
    modhook_run: Run,
    undisturbed: Undisturbed,
    contents: Any,
    stop: Stop,
) -> None:
    """Stopped at a step, also at the last one of base training and the first of a stage, every byte is the same."""
    text = tiny.read_text().replace("seeds = 2", "seeds = 1")
    tiny.write_text(text.replace("[masks]", '[masks]\nclip_over = "all"\nclip = 0.01'))
    whole = undisturbed(tiny, "--checkpoint-every", 0)
    stop.at = at
    assert modhook_run("run", tiny, "--out", tmp_path / "cut", "--checkpoint-every", 0)[0] == 130
    code, _, err = modhook_run("run", tiny, "--out", tmp_path / "cut", "--checkpoint-every", 0)
    assert code == 0, err
    assert contents(tmp_path / "cut/tiny.zarr") == contents(whole)


def test_the_last_gradients_of_base_training_survive_a_stop_after_its_last_step(
    tiny: Path, tmp_path: Path, modhook_run: Run, contents: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while the trained network is measured, there is no step left to do, and its gradients come from the checkpoint."""
    from modhook.run import context

    text = tiny.read_text().replace("seeds = 2", "seeds = 1").replace("validate_every = 3", "validate_every = 0")
    tiny.write_text(text.replace("[masks]", '[masks]\nclip_over = "all"\nclip = 0.01'))
    modhook_run("run", tiny, "--out", tmp_path / "whole", "--checkpoint-every", 0)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(context, "score", interrupted)
        assert modhook_run("run", tiny, "--out", tmp_path / "cut", "--checkpoint-every", 0)[0] == 130
    assert len(files(tmp_path / "cut/tiny.zarr")) == 1
    assert modhook_run("run", tiny, "--out", tmp_path / "cut", "--checkpoint-every", 0)[0] == 0
    assert contents(tmp_path / "cut/tiny.zarr") == contents(tmp_path / "whole/tiny.zarr")


def test_it_matters_what_the_stage_before_left(carrying: Path, tmp_path: Path, modhook_run: Run) -> None:
    """Where the file is lost the stage still runs, says so in one sentence, and learns other logits."""
    modhook_run("run", carrying, "--out", tmp_path / "whole", "--set", "masks.logits_dtype=float32")
    with pytest.MonkeyPatch.context() as patch:
        written = CarriedFile.write

        def stopping(file: CarriedFile, carried: Any) -> None:
            written(file, carried)
            if "control" in file.path.name:
                file.path.unlink()
                status = Cube.set_status

                def stopped(*args: Any, **rest: Any) -> None:
                    status(*args, **rest)
                    raise KeyboardInterrupt

                patch.setattr(Cube, "set_status", stopped)

        patch.setattr(CarriedFile, "write", stopping)
        code, _, _ = modhook_run("run", carrying, "--out", tmp_path / "cut", "--set", "masks.logits_dtype=float32")
        assert code == 130
    code, _, err = modhook_run("run", carrying, "--out", tmp_path / "cut", "--set", "masks.logits_dtype=float32")
    assert code == 0
    assert err.count("starts without the gradients of the stages before") == 1
    with open_cube(tmp_path / "whole/tiny.zarr") as one, open_cube(tmp_path / "cut/tiny.zarr") as two:
        differs = [
            not np.array_equal(a, b)
            for a, b in zip(one["masks/layout0/logits"][0], two["masks/layout0/logits"][0], strict=True)
        ]
    assert differs == [False, True, True]
