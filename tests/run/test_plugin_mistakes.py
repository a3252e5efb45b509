"""An author's mistake: the line of their file, the traceback on request, and what can be known before training is said before."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from warm import Warm

from modhook.cli import main
from modhook.cube import open_cube
from modhook.plugin.manager import plugins
from modhook_tasks.addmul import AddMul

Run = Callable[..., tuple[int, str, str]]
HERE = str(Path(__file__))

PLUGIN = """
import modhook, torch, torch.nn.functional as F
from modhook_tasks.addmul import AddMul

@modhook.hookimpl
def modhook_tasks():
    return [modhook.Spec("mine", "a task of mine", "my_task:Mine")]

class Mine(AddMul):
    def loss(self, net, batch):
        if self.at("loss"):
            return F.cross_entropy(net(batch["inputs"]), batch["no such name"])
        return super().loss(net, batch)

    def score(self, net, batch):
        if self.at("score"):
            torch.zeros(2) + torch.zeros(3)
        return super().score(net, batch)

    def test_set(self, split):
        if self.at("test_set"):
            return {}["lost"]
        return super().test_set(split)

    def at(self, what):
        import os
        return os.environ.get("WRONG") == what
"""


@pytest.fixture
def mine(tiny: Path, tmp_path: Path, warm: Warm) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the study with a task of an installed plugin whose code is wrong at one place, in a process of its own."""
    import os

    site = tmp_path / "site"
    info = site / "my_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "my_task.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[modhook]\nmy_plugin = my_task\n")
    tiny.write_text(tiny.read_text().replace('"addmul"', '"mine"').replace("seeds = 2", "seeds = 1"))

    def run(wrong: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        paths = os.pathsep.join([str(site), *(p for p in sys.path if p)])
        env = {**os.environ, "PYTHONPATH": paths, "WRONG": wrong}
        return warm.run("-m", "modhook", "run", tiny, "--out", tmp_path / "out", *arguments, env=env)

    return run


def line_of(text: str) -> int:
    """Return the line of the plugin that holds a text."""
    return next(n for n, line in enumerate(PLUGIN.splitlines(), 1) if text in line)


def test_the_line_of_a_plugins_author(mine: Any, tmp_path: Path) -> None:
    """An error in a loss, also one that torch raises for it, names the author's file and line, in the message and in the cube."""
    file = tmp_path / "site/my_task.py"
    found = mine("loss")
    reason = f"KeyError: 'no such name' ({file}, line {line_of('no such name')})"
    assert (found.returncode, f"Failed: seed=1, unmasked: {reason}" in found.stderr) == (1, True), found.stderr
    assert "Traceback" not in found.stderr
    assert found.stdout.startswith("0 stages computed")  # no empty tables
    with open_cube(tmp_path / "out/tiny.zarr") as cube:
        assert str(cube["runs/reason"].sel(seed=1, stage="unmasked").values) == reason
    found = mine("score", "--retry-failed", "--debug")
    assert (
        f"must match the size of tensor b (3) at non-singleton dimension 0 ({file}, line {line_of('zeros(2)')})"
        in found.stderr
    )
    assert found.stderr.count("Traceback (most recent call last):") == 1
    assert "torch.zeros(2) + torch.zeros(3)" in found.stderr
    found = mine("test_set", "--fresh", "--yes")
    said = f"Error: test_set('iid') of task 'mine' fails: KeyError: 'lost' ({file}, line {line_of('lost')})."
    assert (found.returncode, said in found.stderr) == (2, True), found.stderr


@pytest.mark.parametrize("where", ["build", "load"])
def test_what_a_plugin_raises_before_the_runs_is_one_kind_of_error(
    where: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A KeyError in `build` or `load` is told as one in `train_set` is: the author's line, exit code 2, no cube."""

    def lost(*_: Any) -> Any:
        return {}["lost"]

    kind, name = ("models", "fnn") if where == "build" else ("tasks", "addmul")
    monkeypatch.setattr(plugins().load(kind, name), where, lost)
    with pytest.raises(SystemExit) as stop:
        main(["run", str(tiny), "--out", str(tmp_path / "out")])
    said = " ".join(capsys.readouterr().err.split())
    assert stop.value.code == 2, said
    line = lost.__code__.co_firstlineno + 1
    assert f"{where} of {kind[:-1]} '{name}' fails: KeyError: 'lost' ({__file__}, line {line})." in said
    assert not (tmp_path / "out/tiny.zarr").exists()


@pytest.mark.parametrize(
    ("name", "replacement", "said"),
    [
        ("loss", lambda self, net, batch: net(batch["inputs"]), "must be one number, a tensor of shape (), not a tensor of shape"),
        ("loss", lambda self, net, batch: 3.0, "the loss of task 'addmul' must be one number, a tensor of shape (), not float"),
        ("loss", lambda self, net, batch: None, "not NoneType"),
        ("loss", lambda self, net, batch: net(batch["inputs"]).mean().detach(), "does not depend on the network's weights"),
        ("score", lambda self, net, batch: {}, "does not return the metric 'accuracy', which `metrics` names"),
        ("score", lambda self, net, batch: {"acuracy": torch.ones(2)}, "'accuracy' (did you mean 'acuracy'?)"),
        ("score", lambda self, net, batch: {"accuracy": torch.ones(())}, "must return one number per item for 'accuracy'"),
        ("score", lambda self, net, batch: {"accuracy": torch.ones(3)}, "one number per item for 'accuracy', but of 8 items it returned 3"),
        ("score", lambda self, net, batch: torch.ones(2), "must return {metric: (B,) tensor}, not Tensor"),
        ("test_set", lambda self, split: None, "the data of split iid must be tensors by name"),
        ("test_set", lambda self, split: {}, "found no tensor"),
        ("test_set", lambda self, split: {"a": torch.ones(0, 2)}, "at least one; found a 0"),
        ("test_set", lambda self, split: {"a": torch.ones(2), "b": torch.ones(3)}, "same number of items, at least one; found a 2, b 3"),
        ("test_set", lambda self, split: {"a": [1, 2]}, "with the items first, but 'a' is list"),
        ("train_set", lambda self, stage: None if stage == "mul" else {"a": torch.ones(2)}, "the training data of mul"),
    ],
)  # fmt: skip
def test_what_a_task_gives_is_tried_before_training(
    name: str,
    replacement: Any,
    said: str,
    tiny: Path,
    tmp_path: Path,
    modhook_run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What cannot be used is one sentence, nothing is trained and nothing is written."""
    monkeypatch.setattr(AddMul, name, replacement)
    code, _, err = modhook_run("run", tiny, "--out", tmp_path / "out")
    assert (code, said in err, "unmasked:" in err) == (2, True, False), err
    assert not (tmp_path / "out").exists()


def test_the_trial_leaves_no_trace(
    tiny: Path, tmp_path: Path, modhook_run: Run, contents: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that counts its batches and draws from the global generator gives the cube that it gives without the trial."""
    prepare, state = AddMul.prepare, {"batches": 0}

    def counting(self: AddMul, batch: Any, rng: Any, training: bool) -> Any:
        batch = prepare(self, batch, rng, training)
        state["batches"] += training
        return (
            {**batch, "inputs": batch["inputs"] * (1 + 0.01 * state["batches"] + torch.rand(()))} if training else batch
        )

    monkeypatch.setattr(AddMul, "prepare", counting)
    monkeypatch.setattr(AddMul, "state_dict", lambda self: dict(state))
    monkeypatch.setattr(AddMul, "load_state_dict", lambda self, saved: state.update(saved))
    assert modhook_run("run", tiny, "--out", tmp_path / "tried")[0] == 0
    state["batches"] = 0
    monkeypatch.setattr("modhook.run.drive.try_tasks", lambda *arguments: None)
    assert modhook_run("run", tiny, "--out", tmp_path / "untried")[0] == 0
    assert contents(tmp_path / "tried/tiny.zarr") == contents(tmp_path / "untried/tiny.zarr")


def test_debug_shows_what_failed_an_analysis(
    tiny: Path, tmp_path: Path, modhook_run: Run, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """Runs and analyses that fail show their traceback with --debug, each once; the variable is gone afterwards."""
    import os

    from modhook.cli import main
    from modhook_plugins.analyses.sharing import Sharing

    monkeypatch.setattr(Sharing, "compute", lambda self, run: {}["nothing"])
    with pytest.raises(SystemExit):
        main(["run", str(tiny), "--out", str(tmp_path), "--set", "study.seeds=1", "--debug"])
    err = capfd.readouterr().err
    assert err.count("Traceback (most recent call last):") == 1
    assert f"KeyError: 'nothing' ({HERE}, line " in err
    assert "MODHOOK_DEBUG" not in os.environ


def test_debug_shows_why_a_plugin_was_skipped(mine: Any, tmp_path: Path) -> None:
    """A plugin that cannot be imported is one line that names its own, and a traceback with --debug."""
    file = tmp_path / "site/my_task.py"
    file.write_text("import math\nmath.sqrt(-1)\n")
    reason = f"plugin 'my_plugin' of my-plugin was skipped: ValueError: math domain error ({file}, line 2)"
    found = mine("")
    assert (found.returncode, f"Warning: {reason}\n" in found.stderr, "Traceback" in found.stderr) == (2, True, False)
    found = mine("", "--debug")
    assert f'File "{file}", line 2, in <module>' in found.stderr


def test_a_network_larger_than_memory_is_said_to_be_so(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """A network that cannot even be built is told what is short, and nothing is written."""
    tiny.write_text(re.sub(r"hidden = .*", "hidden = [99_999_999_999]", tiny.read_text()))
    code, _, err = modhook_run("run", tiny, "--out", tmp_path / "out")
    assert (code, err.count("\n"), (tmp_path / "out").exists()) == (1, 1, False), err
    assert err.startswith("Error: out of memory (")
    assert err.endswith("; use a smaller batch or network, fewer masks.samples or a device with more.\n")


def test_a_figure_that_fails_leaves_the_others(
    tiny: Path, tmp_path: Path, modhook_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named with its author's line, also one that returns no figure; the others are drawn."""
    from modhook.plugin.manager import plugins

    assert modhook_run("run", tiny, "--out", tmp_path, "--set", "study.seeds=1")[0] == 0
    first, second = (plugins().load("figures", name) for name in ("addmul_performance", "addmul_overlap"))
    monkeypatch.setattr(first, "draw", lambda self, cubes: {}["lost"])
    monkeypatch.setattr(second, "draw", lambda self, cubes: None)
    code, out, err = modhook_run("plot", tmp_path / "tiny.zarr", "--format", "png")
    said = f"Error: could not draw 'addmul_performance': KeyError: 'lost' ({HERE}, line "
    assert (code, said in err, err.count("\n")) == (1, True, 1), err
    assert "'addmul_overlap': draw of the figure 'addmul_overlap' returned nothing, not a matplotlib.figure.Figure" in err
    assert (tmp_path / "tiny-figures/kept_weights.png").exists()
    assert "performance" not in out
    assert err.endswith("; the others are drawn.\n")
    code, _, err = modhook_run("plot", tmp_path / "tiny.zarr", "--figure", "addmul_overlap")
    assert (code, err.count("drawn")) == (1, 0), err
    code, _, err = modhook_run("plot", tmp_path / "tiny.zarr", "--figure", "addmul_performanc")
    assert (code, "unknown figure 'addmul_performanc' (did you mean 'addmul_performance'?)" in err) == (2, True), err
