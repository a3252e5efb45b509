"""Trackers: what reaches TensorBoard and Weights & Biases, and what a tracker's failure does."""

from __future__ import annotations

import io
import json
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

import modhook.plugin.manager
from modhook import Tracker
from modhook.cube import masks_from, open_cube
from modhook.errors import UserError
from modhook.plugin.hookspecs import Spec
from modhook.plugin.manager import Entry, Plugins, plugins
from modhook.run.trackers import Trackers
from modhook_plugins.trackers import progress
from modhook_plugins.trackers.pictures import pictures
from modhook_plugins.trackers.places import beside, plain

Run = Callable[..., tuple[int, str, str]]
STUDY = """
[study]
name = "told"
seeds = 2
[task]
name = "addmul"
train_size = 200
valid_size = 30
[model]
name = "fnn"
hidden = [8]
[train]
steps = 4
batch = 16
[masks]
steps = 3
lr = 0.8
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study file."""
    path = tmp_path / "told.toml"
    path.write_text(STUDY)
    return path


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process: returns exit code, output, errors."""
    from modhook.cli import main

    def command(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(a) for a in arguments])
        out, err = capfd.readouterr()
        return int(stop.value.code or 0), out, err

    return command


@pytest.mark.parametrize("first", [1, 101])
def test_what_comes_before_the_first_step_is_no_speed(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where weights are ranked for 40 s before a stage's first step, or it is continued, speed and time left are those of its steps."""
    now, told = [0.0], io.StringIO()
    monkeypatch.setattr(progress.Progress, "now", lambda self: now[0])
    shown = progress.Progress(Console(file=told, width=200))
    shown.stage_started("a", 400)
    for step, when in ((first, 40.0), (first + 40, 60.0), (first + 80, 80.0)):
        now[0] = when
        shown.step(step, {"loss": 0.5, "density": 0.25, "changed": 3} if step > first else {})
    left = "2 min 40 s" if first == 1 else "1 min 50 s"  # 319 and 219 steps, two a second
    assert told.getvalue().splitlines() == [
        f"  a: step {first} of 400",
        f"  a: step {first + 80} of 400, 2.0 step/s, {left} left; loss 0.5, weights kept 25 %, logits that changed side 3",
    ]


@pytest.mark.filterwarnings("default::DeprecationWarning")  # of what TensorBoard imports
def test_tensorboard_holds_what_the_cube_holds(study: Path, tmp_path: Path, run: Run) -> None:
    """Every run's log, read back by TensorBoard itself, has the cube's losses, norms, densities and scores at their steps."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for options in (["--only-control"], []):  # the second continues the first's runs and logs
        code, _, err = run("run", study, "--out", tmp_path, "--tracker", "tensorboard", *options)
        assert code == 0, err
    cube = open_cube(tmp_path / "told.zarr")
    for seed in (1, 2):
        log = accumulator.EventAccumulator(str(tmp_path / "told-tensorboard" / f"seed={seed}")).Reload()
        curves = {tag: [(e.step, e.value) for e in log.Scalars(tag)] for tag in log.Tags()["scalars"]}
        history, scores = cube["history"].sel(seed=seed), cube["scores"]["accuracy"].sel(seed=seed)
        expected: dict[str, list[tuple[int, float]]] = {}
        for name in ("loss", "gradient_norm"):
            values = history[f"train_{name}"].values.tolist()
            expected[f"unmasked/{name}"] = list(zip(range(1, 5), values, strict=True))
        for stage in ("control", "add", "mul"):
            expected[f"{stage}/mask_loss"] = [(3, float(history["mask_loss"].sel(stage=stage, step=3)))]
            for name in ("loss", "gradient_norm", "density", "changed"):
                expected[f"{stage}/{name}"] = list(
                    zip((1, 2, 3), history[name].sel(stage=stage).values.tolist(), strict=True)
                )
        for stage in ("unmasked", "control", "add", "mul"):
            for split in ("iid", "add", "mul"):
                last, score = 4 if stage == "unmasked" else 3, float(scores.sel(stage=stage, split=split))
                expected[f"{stage}/accuracy/{split}"] = [(last, score)]
                expected[f"final/{stage}/accuracy/{split}"] = [(0, score)] * (2 if stage in ("unmasked", "control") else 1)
        assert set(curves) == set(expected)
        for tag, points in expected.items():
            assert [step for step, _ in curves[tag]] == [step for step, _ in points]
            assert [value for _, value in curves[tag]] == pytest.approx([value for _, value in points], rel=1e-6)
        shown = {tag: log.Images(tag) for tag in log.Tags()["images"]}
        masks = {stage: masks_from(cube, seed=seed, stage=stage) for stage in ("control", "add", "mul")}
        assert set(shown) == {f"{stage}/mask/{name}" for stage in masks for name in masks[stage]}
        for tag, (image,) in shown.items():
            stage, _, name = tag.split("/")
            pixels = np.array(Image.open(io.BytesIO(image.encoded_image_string)).convert("L"))
            assert (image.step, pixels.tolist()) == (3, greys(masks[stage][name]).tolist())
        assert settings_and_metrics(log) == ({**SETTINGS, "seed": seed}, {tag for tag in curves if tag.startswith("final/")})


SETTINGS = {"study.name": "told", "task.name": "addmul", "model.hidden": "[8]", "train.steps": 4, "masks.lr": 0.8, "masks.beta": 1e-4}
"""Some of the study's settings, two of them at their defaults."""


def settings_and_metrics(log: Any) -> tuple[dict[str, Any], set[str]]:
    """Return what TensorBoard's page of hyper-parameters reads of a run: those of SETTINGS and the seed, and its metrics."""
    from tensorboard.plugins.hparams import metadata

    held = log.SummaryMetadata
    content = {tag: held(tag).plugin_data.content for tag in log.PluginTagToContent("hparams")}
    values = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG]).hparams
    known = {n: v.number_value if v.HasField("number_value") else v.string_value for n, v in values.items()}
    metrics = metadata.parse_experiment_plugin_data(content[metadata.EXPERIMENT_TAG]).metric_infos
    return {name: known[name] for name in (*SETTINGS, "seed")}, {one.name.tag for one in metrics}


def greys(mask: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a mask's picture weight by weight: 64 x 64 cells at most, each as dark as the share of its weights that are kept."""
    matrix = mask.reshape(len(mask) if mask.dim() > 1 else 1, -1).tolist()
    rows, columns = len(matrix), len(matrix[0])
    kept, there = np.zeros((2, min(rows, 64), min(columns, 64)))
    for r in range(rows):
        for c in range(columns):
            cell = r * min(rows, 64) // rows, c * min(columns, 64) // columns
            kept[cell] += matrix[r][c]
            there[cell] += 1
    return np.round(255 * (1 - kept / there)).astype(np.uint8)


def test_pictures_of_any_mask() -> None:
    """Convolutions, vectors, scalars and tensors without weights: a pixel is as dark as its weights are kept."""
    draw = torch.Generator().manual_seed(0)
    sizes = {"matrix": (3, 2), "large": (100, 130), "convolution": (5, 3, 7, 7), "vector": (200,), "scalar": ()}
    masks = {name: torch.rand(size, generator=draw) < 0.4 for name, size in sizes.items()}
    shown = dict(pictures({**masks, "nothing": torch.zeros(0, 3) > 0}))
    assert list(shown) == list(masks)
    for name, mask in masks.items():
        assert shown[name].tolist() == greys(mask).tolist()


def records(log: bytes) -> Iterator[bytes]:
    """Yield the records of a W&B file: LevelDB's log format (blocks of 32 KiB; checksum, length, kind) after 7 bytes."""
    at, parts = 7, b""
    while at < len(log):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", log, at)
        parts, at = parts + log[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def test_wandb_offline(study: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, without a network or an account, one W&B run per run of the study is written beside the cube."""
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    code, _, err = run("run", study, "--out", tmp_path, "--tracker", "wandb")
    assert code == 0, err
    assert "failed" not in err
    found, finals, files = {}, {}, {}
    for file in (tmp_path / "told-wandb").rglob("*.wandb"):
        name, logged, settings, summary = "", {}, {}, {}
        for data in records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            name = record.run.display_name or name
            logged |= {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
            for changed in (record.run.config, record.config):
                settings |= {i.key: json.loads(i.value_json) for i in changed.update}
            summary |= {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.summary.update}
        found[name] = logged
        assert settings | {**SETTINGS, "seed": int(name[-1])} == settings
        finals[name], files[name] = summary, file.parent / "files"
    assert set(found) == {"seed=1", "seed=2"}
    cube = open_cube(tmp_path / "told.zarr")
    for seed in (1, 2):
        for stage in ("control", "add", "mul"):
            density = float(cube["history"]["density"].sel(seed=seed, stage=stage, step=3))
            assert found[f"seed={seed}"][f"{stage}/density"] == pytest.approx(density)
            score = float(cube["scores"]["accuracy"].sel(seed=seed, stage=stage, split="add"))
            assert found[f"seed={seed}"][f"{stage}/accuracy/add"] == finals[f"seed={seed}"][f"{stage}/accuracy/add"] == score
            for name, mask in masks_from(cube, seed=seed, stage=stage).items():
                place = found[f"seed={seed}"][f"{stage}/mask/{name}/path"]
                pixels = np.array(Image.open(files[f"seed={seed}"] / place).convert("L"))
                assert pixels.tolist() == greys(mask).tolist()


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_said_before_anything(
    name: str, study: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the tracker's package, one sentence names the extra to install, and nothing is computed or deleted."""
    for module in [m for m in sys.modules if m.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type] # Python's own way to say: not there
    code, _, err = run("run", study, "--out", tmp_path / "out", "--tracker", name)
    assert (code, f'pip install "modhook[{name}]"' in err) == (2, True), err
    assert not (tmp_path / "out").exists()


def test_unknown_trackers_are_named(study: Path, tmp_path: Path, run: Run) -> None:
    """A misspelt tracker, on the command line or in the study, is answered with the nearest valid one."""
    code, _, err = run("run", study, "--out", tmp_path / "out", "--tracker", "tensorbord")
    assert (code, "unknown tracker 'tensorbord' (did you mean 'tensorboard'?)" in err) == (2, True)
    study.write_text(STUDY + '[run]\ntrackers = ["progres", "wandb", "wandb"]\n')
    code, _, err = run("check", study)
    assert code == 2
    assert "run.trackers[0]: unknown tracker 'progres' (did you mean 'progress'?)" in err
    assert 'run.trackers[2]: "wandb" is there already' in err


class Breaks(Tracker):
    """Fails at the second step of every stage."""

    told = 0

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Count, then fail."""
        type(self).told += 1
        if step == 2:
            raise OSError("disk full")


def test_a_tracker_that_fails_costs_nothing(
    study: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left out and said so, at once and at the end; every stage is computed, to the same numbers."""
    monkeypatch.setitem(sys.modules, "breaking_tracker", sys.modules[__name__])
    entries = [e for kind in modhook.plugin.manager.KINDS for e in plugins().entries(kind)]
    breaks = Entry("trackers", Spec("breaks", "for a test", "breaking_tracker:Breaks"), "modhook-breaks")
    found = Plugins([*entries, breaks], [])
    monkeypatch.setattr(modhook.plugin.manager, "plugins", lambda: found)
    study.write_text(STUDY + '[run]\ntrackers = ["breaks", "progress"]\n')
    code, out, err = run("run", study, "--out", tmp_path / "one")
    assert (code, "8 stages computed" in out) == (0, True)
    assert Breaks.told == 2
    said = "the tracker 'breaks' failed (OSError: disk full) and is left out from here on"
    assert err.count(said) == 2
    assert err.strip().endswith(f"Warning: {said}; the cube has everything.")
    assert run("run", study, "--out", tmp_path / "two", "--set", 'run.trackers=["progress"]')[0] == 0
    one, two = open_cube(tmp_path / "one/told.zarr"), open_cube(tmp_path / "two/told.zarr")
    assert one["history"].to_dataset().identical(two["history"].to_dataset())


def test_every_event_reaches_every_tracker() -> None:
    """The tracker of trackers passes on every method that a tracker has; Ctrl-C goes through."""
    seen: list[str] = []

    class Spy(Tracker):
        def __getattribute__(self, name: str) -> Any:
            seen.append(name)
            return super().__getattribute__(name)

    both = Trackers({"a": Spy(), "b": Spy()})
    public = [n for n, found in vars(Tracker).items() if callable(found) and not n.startswith("_") and n != "now"]  # which trackers ask
    places = {
        "step": (1, {}),
        "stage_finished": ("s", {}),
        "stage_started": ("s", 1),
        "run_settings": ({},),
        "run_scores": ({},),
        "stage_masks": ("s", {}),
        "study_started": ("s", 1),
        "study_progress": (1, 0, 1, 2),
        "close": (),
    }
    for name in public:
        getattr(both, name)(*places.get(name, ("text",)))
    assert [n for n in seen if n in public] == [n for name in public for n in (name, name)]
    assert both.failures == []

    class Stopped(Tracker):
        def message(self, text: str) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trackers({"a": Stopped()}).message("x")


def test_places() -> None:
    """Logs lie beside a local cube and in the current directory for a remote one; a label becomes one folder."""
    assert beside("results/scan.zarr", "wandb") == Path("results/scan-wandb")
    assert beside("s3://bucket/runs/scan.zarr", "wandb") == Path("scan-wandb")
    assert plain("seed=3, masks.beta=1e-05, task.sets=a/b") == "seed=3_masks.beta=1e-05_task.sets=a_b"


def test_user_errors_of_a_tracker_in_place_are_failures() -> None:
    """What a tracker raises after it was made never stops a run, whatever its type."""

    class Refuses(Tracker):
        def place(self, cube: str) -> None:
            raise UserError("not here")

    both = Trackers({"refuses": Refuses()})
    both.place("x.zarr")
    assert both.failures == [
        "the tracker 'refuses' failed (UserError: not here) and is left out from here on; the cube has everything."
    ]
