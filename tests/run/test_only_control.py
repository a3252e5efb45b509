"""`--only-control`: base training and the control now, the rest later, to the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stopping import Stop

from modhook.cube import open_cube
from modhook_tasks.addmul import AddMul

Run = Callable[..., tuple[int, str, str]]


def states(cube: Path) -> dict[str, list[int]]:
    """Return how far every stage and analysis of a tiny cube is, over its seeds."""
    with open_cube(cube) as found:
        stages = {s: found["runs/status"].sel(stage=s).values.tolist() for s in ("unmasked", "control", "add", "mul")}
        return stages | {a: found[f"runs/{a}"].values.tolist() for a in ("sharing", "inverse")}


def test_the_control_now_and_the_rest_later(
    tiny: Path, tmp_path: Path, modhook_run: Run, undisturbed: Callable[..., Path], contents: Any
) -> None:
    """No later stage and no analysis is computed; the same again does nothing; without it the cube becomes that of one run."""
    code, out, err = modhook_run("run", tiny, "--out", tmp_path / "parts", "--only-control")
    assert (code, "4 stages computed;" in out) == (0, True), err
    cube = tmp_path / "parts/tiny.zarr"
    now, later = [1, 1], [0, 0]
    assert states(cube) == {"unmasked": now, "control": now, "add": later, "mul": later, "sharing": later, "inverse": later}
    code, out, err = modhook_run("run", tiny, "--out", tmp_path / "parts", "--only-control")
    assert (code, "0 stages computed, 4 were there already" in out) == (0, True), err
    code, out, err = modhook_run("run", tiny, "--out", tmp_path / "parts")
    assert (code, "4 stages computed, 4 were there already" in out) == (0, True), err
    assert contents(cube) == contents(undisturbed(tiny))
    code, out, err = modhook_run("run", tiny, "--out", tmp_path / "parts", "--only-control")
    assert (code, "0 stages computed" in out) == (0, True), err


@pytest.mark.parametrize("protocol", ["posthoc", "transfer"])
@pytest.mark.parametrize("stopped", [False, True])
def test_the_rest_starts_with_what_the_control_left(
    protocol: str,
    stopped: bool,
    tiny: Path,
    tmp_path: Path,
    modhook_run: Run,
    undisturbed: Callable[..., Path],
    contents: Any,
    stop: Stop,
) -> None:
    """With `clip_over = "all"` the control's gradients wait for the later run, asked for twice or stopped within the control too."""
    text = tiny.read_text().replace("[masks]", '[masks]\nclip_over = "all"\nclip = 0.01\nlogits_dtype = "float32"')
    if protocol == "transfer":
        text = text.replace('name = "tiny"', 'name = "tiny"\nprotocol = "transfer"')
        text = text.replace("steps = 6\n", "").replace("sharing = {}\n", "")
    tiny.write_text(text)
    parts = ("run", tiny, "--out", tmp_path / "parts", "--checkpoint-every", 0)
    waiting = tmp_path / "parts/tiny.zarr.checkpoints"
    whole = undisturbed(tiny, "--checkpoint-every", 0)
    if stopped:
        stop.at = ("control", 3)
        assert modhook_run(*parts, "--only-control")[0] == 130
    for _ in range(2):
        code, _, err = modhook_run(*parts, "--only-control")
        assert code == 0, err
        assert len(list(waiting.iterdir())) == 2, "one file for each seed"
    code, _, err = modhook_run(*parts)
    assert (code, "starts without" in err) == (0, False), err
    assert contents(tmp_path / "parts/tiny.zarr") == contents(whole)
    assert not waiting.exists()


def test_on_workers(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """Workers end with the control, too."""
    code, out, err = modhook_run("run", tiny, "--out", tmp_path, "--only-control", "--workers", 1, "--set", "run.threads=1")
    assert (code, "4 stages computed;" in out) == (0, True), err
    assert states(tmp_path / "tiny.zarr")["add"] == [0, 0]


def test_where_there_is_no_control(
    tiny: Path, tmp_path: Path, modhook_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task or a protocol without a control: one sentence, nothing written."""
    said = "has no stage 'control' (its stages: "
    code, _, err = modhook_run("run", tiny, "--out", tmp_path / "out", "--only-control", "--set", "study.protocol=baseline")
    assert (code, f"{said}unmasked); leave --only-control away." in err) == (2, True), err
    stages = AddMul.stages.fget
    monkeypatch.setattr(AddMul, "control", False)
    monkeypatch.setattr(AddMul, "stages", property(lambda self: stages(self)[1:]))
    code, _, err = modhook_run("run", tiny, "--out", tmp_path / "out", "--only-control")
    assert (code, f"{said}unmasked, add, mul)" in err) == (2, True), err
    assert not (tmp_path / "out").exists()


def test_under_transfer(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """A protocol that has other stages before or none ends after its control just the same."""
    text = tiny.read_text().replace('name = "tiny"', 'name = "tiny"\nprotocol = "transfer"').replace("steps = 6\n", "")
    tiny.write_text(text.replace("sharing = {}\n", ""))
    code, out, err = modhook_run("run", tiny, "--out", tmp_path, "--only-control")
    assert (code, "2 stages computed" in out) == (0, True), err
    with open_cube(tmp_path / "tiny.zarr") as cube:
        assert cube["runs/status"].sel(seed=1).values.tolist() == [1, 0, 0]
