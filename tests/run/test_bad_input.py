"""Mistakes a user makes: one clear sentence, exit code 2, nothing written and nothing lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from warm import Warm

import modhook.plugin.manager
from modhook.cube import open_cube
from modhook.plugin.hookspecs import Spec
from modhook.plugin.manager import Broken, Entry, Plugins, plugins

Run = Callable[..., tuple[int, str, str]]

MISTAKES: dict[str, tuple[tuple[str, str], list[str]]] = {
    "unknown key": (("steps = 5", "stepps = 5"), ["masks.stepps", "did you mean", "steps"]),
    "wrong type": (("steps = 6", "steps = 3.7"), ["train.steps", "3.7"]),
    "text for a number": (("samples = 2", 'samples = "2"'), ["masks.samples"]),
    "not finite": (("beta = 1e-4", "beta = inf"), ["masks.beta", "finite"]),
    "nan": (("lr = 0.8", "lr = nan"), ["masks.lr", "finite"]),
    "unknown task": (('name = "addmul"', 'name = "admul"'), ["unknown task 'admul'", "'addmul'", "scan", "package"]),
    "unknown model": (('name = "fnn"', 'name = "ffn"'), ["unknown model 'ffn'", "seq2seq_lstm"]),
    "unknown analysis": (("sharing = {}", "shearing = {}"), ["unknown analysis 'shearing'", "did you mean 'sharing'"]),
    "unknown option of a task": (("valid_size = 60", "valid_sise = 60"), ["task.valid_sise", "valid_size"]),
    "batch not divisible by K": (("samples = 2", "samples = 3"), ["16", "3"]),
    "pattern that matches nothing": (
        ("[analyses]", 'exclude = ["*embedding*"]\n[analyses]'),
        ["'*embedding*'", "layer1.weight"],
    ),
    "empty sweep list": (("[analyses]", '[sweep]\n"masks.beta" = []\n[analyses]'), ["masks.beta", "empty"]),
    "name that is no plain name": (('name = "tiny"', 'name = "../tiny"'), ["study.name", "../tiny"]),
    "missing weights": (
        ("steps = 6", 'steps = 6\nweights = "none.safetensors"'),
        ["train.weights", "none.safetensors"],
    ),
    "no such callable": (('name = "fnn"\nhidden = [12, 8]', 'name = "math:nope"'), ["model.name", "nope"]),
    "split that does not exist": (
        ('name = "addmul"\ntrain_size = 400\nvalid_size = 60', 'name = "scan"\nsplits = ["simple", "turn_lefd"]'),
        ["unknown SCAN split 'turn_lefd' (did you mean 'turn_left'?)", "valid splits: simple, jump, length"],
    ),
    "class that does not exist": (
        ('name = "addmul"\ntrain_size = 400\nvalid_size = 60', 'name = "cifar10"\nremoved = ["hourse"]'),
        ["removed: unknown class 'hourse' (did you mean 'horse'?)", "CIFAR-10 has airplane"],
    ),
    "malformed": (("[model]", "[model"), ["line 10", "not valid TOML"]),
    "wrong inverse option": (("inverse = {}", 'inverse = { io_mask = "none" }'), ["io_mask", "'control' or 'full'"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_study(mistake: str, tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """Each mistake is named with its place, exits with 2, and writes nothing."""
    (old, new), words = MISTAKES[mistake]
    text = tiny.read_text()
    assert old in text
    tiny.write_text(text.replace(old, new))
    code, _, err = modhook_run("run", tiny, "--out", tmp_path / "out")
    assert code == 2, err
    assert "tiny.toml" in err or "pattern" in err
    for word in words:
        assert word in err
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_every_mistake_at_once(tiny: Path, modhook_run: Run) -> None:
    """check lists all mistakes of a file in one go."""
    text = (
        tiny.read_text()
        .replace("steps = 5", "stepps = 5")
        .replace("samples = 2", "samples = 2.5")
        .replace('"addmul"', '"admul"')
    )
    tiny.write_text(text)
    code, _, err = modhook_run("check", tiny)
    assert code == 2
    for word in ("masks.stepps", "masks.samples", "admul"):
        assert word in err


def test_a_stage_or_split_without_data(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """Data that a later stage or split needs and that are not there are said before anything is trained."""
    for wrong, said in (("task.valid_size=1", "the data of split "), ("task.train_size=1", "the training data of ")):
        code, _, err = modhook_run("run", tiny, "--out", tmp_path / "out", "--set", wrong)
        assert (code, said in err, "unmasked:" in err) == (2, True, False), err
        assert not (tmp_path / "out").exists()


def test_missing_study(tmp_path: Path, modhook_run: Run) -> None:
    """A file that is not there is one sentence."""
    code, _, err = modhook_run("run", tmp_path / "none.toml", "--out", tmp_path / "out")
    assert (code, "none.toml" in err) == (2, True)
    assert not (tmp_path / "out").exists()


def test_output_folder_not_writable(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """An output folder that cannot be made or written is an error before anything is computed."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    code, _, err = modhook_run("run", tiny, "--out", blocked)
    assert (code, f"cannot be made: {blocked} is a file; give another one with --out." in err) == (2, True), err
    code, _, err = modhook_run("run", tiny, "--out", blocked / "below" / "it")
    assert (code, f"below/it cannot be made: {blocked} is a file" in err) == (2, True), err
    assert blocked.read_text() == ""
    code, _, err = modhook_run("run", tiny, "--out", "/proc/modhook")
    assert (code, "not writable" in err) == (2, True), err


def test_folder_holds_something_else(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """A folder of that name which is no cube is never touched, not even with --fresh."""
    (tmp_path / "tiny.zarr").mkdir()
    (tmp_path / "tiny.zarr/thesis.txt").write_text("three years of work")
    for more in ((), ("--fresh", "--yes")):
        code, _, err = modhook_run("run", tiny, "--out", tmp_path, *more)
        assert code == 2, err
        assert "tiny.zarr" in err
        assert (tmp_path / "tiny.zarr/thesis.txt").read_text() == "three years of work"


def test_cube_of_another_version_of_the_study(tiny: Path, tmp_path: Path, modhook_run: Run, contents: Any) -> None:
    """A changed setting is another study: it says which, and the old cube is untouched."""
    modhook_run("run", tiny, "--out", tmp_path, "--only", "seed=1")
    before = contents(tmp_path / "tiny.zarr")
    code, _, err = modhook_run("run", tiny, "--out", tmp_path, "--set", "masks.beta=0.01")
    assert code == 2
    assert "holds another study" in err
    assert "masks.beta" in err
    assert contents(tmp_path / "tiny.zarr") == before


def test_fresh_asks(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """--fresh needs --yes without a terminal, and then starts over."""
    modhook_run("run", tiny, "--out", tmp_path, "--set", "study.seeds=1")
    code, _, err = modhook_run("run", tiny, "--out", tmp_path, "--fresh")
    assert (code, "--yes" in err) == (2, True)
    code, out, _ = modhook_run(
        "run", tiny, "--out", tmp_path, "--fresh", "--yes", "--set", "masks.beta=0.01", "--set", "study.seeds=1"
    )
    assert (code, "4 stages computed;" in out) == (0, True)


def test_weights_that_do_not_fit(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """Weights of another network name the tensor; a pickle is refused and its code not run; nothing is written."""
    tiny.write_text(tiny.read_text().replace("steps = 6", 'weights = "w.pt"'))
    state = {"layer1.weight": torch.zeros(3, 42)}
    torch.save(state, tmp_path / "w.pt")
    code, _, err = modhook_run("run", tiny, "--out", tmp_path / "out")
    assert code == 2
    assert "lack layer1.bias" in err

    class Evil:
        """Would make a folder if it were unpickled."""

        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "evil"),))

    torch.save(Evil(), tmp_path / "w.pt")
    code, _, err = modhook_run("run", tiny, "--out", tmp_path / "out")
    assert (code, "holds Python objects besides tensors" in err) == (2, True)
    assert not (tmp_path / "evil").exists()
    assert not (tmp_path / "out").exists()


def test_a_run_that_diverges_is_recorded_and_the_others_go_on(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """A loss that is not finite marks its stage failed with the reason, exit code 1; a rerun says so, --retry-failed tries again."""
    tiny.write_text(tiny.read_text() + '\n[sweep]\n"train.lr" = [1e-3, 1e38]\n')
    code, out, err = modhook_run("run", tiny, "--out", tmp_path, "--set", "study.seeds=1")
    assert code == 1, err
    assert "4 stages computed" in out
    assert "Failed: seed=1, train.lr=1e+38" in err
    with open_cube(tmp_path / "tiny.zarr") as cube:
        status = cube["runs"]["status"].sel(seed=1, stage="unmasked").values.tolist()
        assert status == [1, 2]
        assert "loss is" in str(cube["runs"]["reason"].sel(seed=1, stage="unmasked").values[1])
    code, out, err = modhook_run("run", tiny, "--out", tmp_path, "--set", "study.seeds=1")
    assert (code, "failed before" in err, "--retry-failed" in err) == (1, True, True)
    assert "0 stages computed" in out
    code, _, err = modhook_run("run", tiny, "--out", tmp_path, "--set", "study.seeds=1", "--retry-failed")
    assert (code, "failed before" in err) == (1, False)


def test_a_broken_plugin_is_named_and_skipped(
    tiny: Path, tmp_path: Path, modhook_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plugin that cannot be imported is a warning while nothing of it is needed, and explains an unknown name."""
    good = plugins()
    entries = [e for kind in modhook.plugin.manager.KINDS for e in good.entries(kind)]
    broken = Plugins(entries, [Broken("mine", "modhook-mine", "ImportError: no module named wat")])
    monkeypatch.setattr(modhook.plugin.manager, "plugins", lambda: broken)
    code, _, err = modhook_run("run", tiny, "--out", tmp_path, "--set", "study.seeds=1")
    assert code == 0
    assert "'mine' of modhook-mine was skipped: ImportError" in err
    tiny.write_text(tiny.read_text().replace('"addmul"', '"mytask"'))
    code, _, err = modhook_run("run", tiny, "--out", tmp_path / "other")
    assert code == 2
    assert "modhook-mine was skipped" in err


def test_a_plugin_of_the_wrong_kind(
    tiny: Path, tmp_path: Path, modhook_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spec that points at something else than the interface is an error that names plugin and object."""
    entries = [e for kind in modhook.plugin.manager.KINDS for e in plugins().entries(kind)]
    wrong = Plugins([*entries, Entry("tasks", Spec("odd", "not a task", "math:sqrt"), "modhook-odd")], [])
    monkeypatch.setattr(modhook.plugin.manager, "plugins", lambda: wrong)
    tiny.write_text(tiny.read_text().replace('name = "addmul"\ntrain_size = 400\nvalid_size = 60', 'name = "odd"'))
    code, _, err = modhook_run("run", tiny, "--out", tmp_path)
    assert code == 2
    assert "must be a subclass of modhook.Task" in err


def test_two_runs_at_once(tiny: Path, tmp_path: Path, modhook_run: Run, warm: Warm) -> None:
    """A second run of the same cube refuses clearly while another process writes it."""
    modhook_run("run", tiny, "--out", tmp_path, "--only", "seed=1")
    holder = warm.start(
        "-c",
        f"import signal\nfrom modhook.cube import writer_lock\nwith writer_lock({str(tmp_path / 'tiny.zarr')!r}):\n"
        " print('held', flush=True)\n signal.pause()",
    )
    assert holder.stdout.readline() == "held\n"
    code, _, err = modhook_run("run", tiny, "--out", tmp_path)
    holder.kill()
    holder.communicate()
    assert code == 2
    assert f"process {holder.pid}" in err


def test_a_device_that_is_not_here(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """A device that does not exist is a mistake, not a traceback."""
    code, _, err = modhook_run("run", tiny, "--out", tmp_path / "out", "--device", "cuda:97")
    assert (code, "device 'cuda:97' cannot be used here" in err) == (2, True)
    assert not (tmp_path / "out").exists()


def test_show_and_plot_of_no_cube(tmp_path: Path, modhook_run: Run) -> None:
    """Paths that are no cubes are said to be none."""
    for command in ("show", "plot"):
        code, _, err = modhook_run(command, tmp_path / "none.zarr")
        assert (code, "none.zarr" in err) == (2, True)
