"""A whole study: what is in the cube, recomputed plainly, and what a second run does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import save_file
from stopping import Stop
from torch import nn

import modhook
from modhook.cube import logits_from, masks_from, open_cube, weights_from
from modhook_plugins.networks.fnn import FNN, FNNOptions
from modhook_tasks.addmul import AddMul, AddMulOptions

Run = Callable[..., tuple[int, str, str]]
STAGES = ["control", "add", "mul"]


def plain_accuracy(model: nn.Module, split: str) -> float:
    """Accuracy on a split, written out with Python's own arithmetic."""
    data = AddMul(AddMulOptions(400, 60)).test_set(split)
    right = 0
    for (a, b), op in zip(data["operands"].tolist(), data["operation"].tolist(), strict=True):
        x = torch.zeros(42)
        for i, digit in enumerate((a % 10, a // 10, b % 10, b // 10)):
            x[10 * i + digit] = 1
        x[40 + op] = 1
        with torch.no_grad():
            ones, tens = model(x[None])[0].view(2, 10).argmax(-1).tolist()
        right += 10 * tens + ones == ((a + b) if op == 0 else (a * b)) % 100
    return right / len(data["operation"])


def fnn(weights: dict[str, torch.Tensor]) -> nn.Module:
    """The study's network with given weights."""
    model = FNN(FNNOptions((12, 8))).build({"inputs": 42, "outputs": 20})
    model.load_state_dict(weights)
    return model


def test_the_cube_holds_what_a_plain_recomputation_gives(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """Scores, inverse scores and overlaps equal what plain code computes from the stored weights and masks."""
    code, out, err = modhook_run("run", tiny, "--out", tmp_path / "r")
    assert (code, "8 stages computed" in out) == (0, True), err
    with xr.open_datatree(tmp_path / "r/tiny.zarr", engine="zarr") as cube:
        assert cube["scores"]["accuracy"].dims == ("seed", "stage", "split")
        assert list(cube["scores"]["stage"].values) == ["unmasked", *STAGES]
        assert (cube["runs"]["status"] == 1).all()
        for seed in (1, 2):
            weights = weights_from(cube, seed)
            accuracy = cube["scores"]["accuracy"].sel(seed=seed)
            for split in ("iid", "add", "mul"):
                assert float(accuracy.sel(stage="unmasked", split=split)) == plain_accuracy(fnn(weights), split)
            masks = {s: masks_from(cube, seed=seed, stage=s) for s in STAGES}
            for stage, mask in masks.items():
                assert set(mask) == {"layer1.weight", "layer2.weight", "output.weight"}
                assert 0 < mask.density < 1  # the settings are chosen so that the test can tell masks apart
                logits = logits_from(cube, seed=seed, stage=stage)
                assert all(torch.equal(logits[n] >= 0, mask[n]) for n in mask)
                for name, values in (("scores", mask), ("inverse", ~mask)):
                    kept = {n: w * values[n] if n in values else w for n, w in weights.items()}
                    found = cube[name]["accuracy"].sel(seed=seed, stage=stage, split="add")
                    assert float(found) == plain_accuracy(fnn(kept), "add")
            flat = {s: np.concatenate([m[n].numpy().ravel() for n in sorted(m)]) for s, m in masks.items()}
            overlap = cube["overlap"].sel(seed=seed)
            for a in STAGES:
                for b in STAGES:
                    both, either = (flat[a] & flat[b]).sum(), (flat[a] | flat[b]).sum()
                    at = overlap.sel(stage=a, other=b)
                    assert float(at["iou_total"]) == pytest.approx(both / either)
                    assert float(at["iomin_total"]) == pytest.approx(both / min(flat[a].sum(), flat[b].sum()))
                    one, two = masks[a]["layer2.weight"].numpy(), masks[b]["layer2.weight"].numpy()
                    per_tensor = at["iou"].sel(parameter="layer2.weight")
                    assert float(per_tensor) == pytest.approx((one & two).sum() / (one | two).sum())
                assert float(overlap["remaining_total"].sel(stage=a)) == pytest.approx(
                    (flat[a] & flat["control"]).sum() / flat["control"].sum()
                )
            assert float(overlap["shared_total"].sel(stage="add")) == pytest.approx(
                (flat["add"] & flat["mul"]).sum() / flat["add"].sum()
            )
            assert np.isnan(overlap["shared_total"].sel(stage="control"))


def test_history_and_validation(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """Losses, densities and scores on the way are in the cube at the steps they belong to."""
    modhook_run("run", tiny, "--out", tmp_path)
    with open_cube(tmp_path / "tiny.zarr") as cube:
        history = cube["history"]
        assert history["loss"].dims == ("seed", "stage", "step")
        assert list(history["step"].values) == [1, 2, 3, 4, 5]
        assert list(history["train_valid_step"].values) == [3]
        assert list(history["valid_step"].values) == [2, 4]
        assert history["mask_loss"].sel(step=5).notnull().all()
        seldom = {"mask_loss", "unmasked_loss"}
        assert all(history[n].notnull().all() for n in {*history.data_vars} - seldom)
        for stage in STAGES:  # the density at the last step is that of the mask
            mask = masks_from(cube, seed=1, stage=stage)
            assert float(history["density"].sel(seed=1, stage=stage, step=5)) == pytest.approx(mask.density)
        assert (cube["timing"]["seconds"] > 0).all()
        assert set(cube["runs"]["route"].sel(stage="add").values.ravel()) != {""}


def test_a_rerun_computes_nothing(tiny: Path, tmp_path: Path, modhook_run: Run, contents: Any) -> None:
    """The same command again finds everything and changes no byte."""
    modhook_run("run", tiny, "--out", tmp_path)
    before = contents(tmp_path / "tiny.zarr")
    code, out, _ = modhook_run("run", tiny, "--out", tmp_path)
    assert code == 0
    assert "0 stages computed, 8 were there already" in out
    assert contents(tmp_path / "tiny.zarr") == before


@pytest.mark.parametrize(("stage", "together"), [("unmasked", 1), ("control", 1), ("mul", 2)])
def test_interrupted_and_continued_is_bit_identical(
    tiny: Path,
    tmp_path: Path,
    modhook_run: Run,
    undisturbed: Callable[..., Path],
    contents: Any,
    stop: Stop,
    stage: str,
    together: int,
) -> None:
    """Ctrl-C in a stage loses it only, or that of all runs at once; the same command continues to the bytes of an uninterrupted run."""
    command = (tiny, "--set", f"run.together={together}")
    whole = undisturbed(*command)
    stop.at = (stage, 3)
    code, _, err = modhook_run("run", *command, "--out", tmp_path / "cut")
    assert code == 130
    assert "the same command continues" in err
    with open_cube(tmp_path / "cut/tiny.zarr") as cube:  # a half-finished cube opens
        status = cube["runs"]["status"].sel(seed=1)
        assert status.sel(stage=stage) == 0
        other = cube["scores"]["accuracy"].sel(seed=2)
        assert other.isnull().all() if together == 1 else other.sel(stage=stage).isnull().all()
    code, out, _ = modhook_run("run", *command, "--out", tmp_path / "cut")
    done = {"unmasked": 0, "control": 1, "mul": 3}[stage] * together
    assert code == 0
    assert f"{8 - done} stages computed" in out
    assert contents(tmp_path / "cut/tiny.zarr") == contents(whole)


def test_seeds_and_analyses_extend_the_cube(
    tiny: Path, tmp_path: Path, modhook_run: Run, undisturbed: Callable[..., Path]
) -> None:
    """One seed without analyses, continued to two seeds with analyses, holds the same numbers as all at once."""
    text = tiny.read_text()
    tiny.write_text(text.replace("seeds = 2", "seeds = 1").partition("[analyses]")[0])
    modhook_run("run", tiny, "--out", tmp_path / "grown")
    tiny.write_text(text)
    code, out, _ = modhook_run("run", tiny, "--out", tmp_path / "grown")
    assert code == 0
    assert "4 stages computed, 4 were there already" in out
    with open_cube(tmp_path / "grown/tiny.zarr") as one, open_cube(undisturbed(tiny)) as two:
        for group in ("scores", "inverse", "overlap", "history", "masks/layout0"):
            xr.testing.assert_identical(one[group].to_dataset().load(), two[group].to_dataset().load())
        assert one.attrs["study"] == two.attrs["study"]


def test_sweeps_become_dimensions(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """Each swept key is a dimension; networks of different shapes get layouts of their own; every point is its own run."""
    tiny.write_text(tiny.read_text() + '\n[sweep]\n"model.hidden" = [[12, 8], [6, 6, 6]]\n"masks.beta" = [0.0, 0.5]\n')
    code, _, err = modhook_run("run", tiny, "--out", tmp_path, "--set", "study.seeds=1")
    assert code == 0, err
    with open_cube(tmp_path / "tiny.zarr") as cube:
        accuracy = cube["scores"]["accuracy"]
        assert accuracy.dims == ("seed", "model.hidden", "masks.beta", "stage", "split")
        assert list(accuracy["model.hidden"].values) == ["12-8", "6x3"]
        assert accuracy.notnull().all()
        assert set(cube["masks"].children) == {"layout0", "layout1"}
        pull = cube["overlap"]["density"].sel(stage="control")
        assert (pull.sel({"masks.beta": 0.5}) < pull.sel({"masks.beta": 0.0})).all()
        deep = masks_from(cube, seed=1, stage="add", **{"model.hidden": "6x3", "masks.beta": 0.5})
        assert deep["layer3.weight"].shape == (6, 6)
        missing = cube["overlap"]["iou"].sel({"model.hidden": "12-8", "parameter": "layer3.weight"})
        assert missing.isnull().all()
    code, out, _ = modhook_run("show", tmp_path / "tiny.zarr")
    assert code == 0
    table = out.partition("inverse/")[0]
    assert "model.hidden, masks.beta" in table
    for point in ("12-8, 0.0", "12-8, 0.5", "6x3, 0.0", "6x3, 0.5"):
        assert f"\n {point} " in table, "every point is a row of one table"


def test_only_computes_what_is_asked(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """--only seed=2 computes that seed and leaves the other pending; an unknown coordinate is an error."""
    code, out, _ = modhook_run("run", tiny, "--out", tmp_path, "--only", "seed=2")
    assert (code, "4 stages computed" in out) == (0, True)
    with open_cube(tmp_path / "tiny.zarr") as cube:
        assert cube["runs"]["status"].sum("stage").values.tolist() == [0, 4]
    code, _, err = modhook_run("run", tiny, "--out", tmp_path, "--only", "seed=7")
    assert (code, "matches no run" in err) == (2, True)
    code, _, err = modhook_run("run", tiny, "--out", tmp_path, "--only", "beta=7")
    assert (code, "is no dimension of this study; it has: seed" in err) == (2, True)


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_weights_are_loaded_instead_of_trained(tiny: Path, tmp_path: Path, modhook_run: Run, kind: str) -> None:
    """[train] weights gives the frozen network; nothing is trained, and the weights in the cube are the file's."""
    torch.manual_seed(5)
    state = FNN(FNNOptions((12, 8))).build({"inputs": 42, "outputs": 20}).state_dict()
    file = tmp_path / f"w.{kind}"
    save_file(state, file) if kind == "safetensors" else torch.save(state, file)
    tiny.write_text(tiny.read_text().replace("steps = 6", f'weights = "{file.name}"'))
    code, _, err = modhook_run("run", tiny, "--out", tmp_path)
    assert code == 0, err
    stored = weights_from(open_cube(tmp_path / "tiny.zarr"), seed=2)
    assert all(torch.equal(stored[n], t) for n, t in state.items())


def test_any_callable_is_a_model(tiny: Path, tmp_path: Path, modhook_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """model.name = "module:callable" brings a stock network, with its buffers kept in the cube."""
    (tmp_path / "mynet.py").write_text(
        "from torch import nn\n"
        "def make(width=4):\n"
        "    return nn.Sequential(nn.Linear(42, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 20))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    tiny.write_text(tiny.read_text().replace('name = "fnn"\nhidden = [12, 8]', 'name = "mynet:make"\nwidth = 6'))
    code, _, err = modhook_run("run", tiny, "--out", tmp_path)
    assert code == 0, err
    weights = weights_from(open_cube(tmp_path / "tiny.zarr"), seed=1)
    assert int(weights["1.num_batches_tracked"]) == 6
    assert weights["0.weight"].shape == (6, 42)


def test_threads_are_the_studys_own(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """[run] threads holds during the run, is recorded, and the process has its own number back afterwards."""
    before = torch.get_num_threads()
    modhook_run("run", tiny, "--out", tmp_path, "--set", "run.threads=2", "--set", "study.seeds=1")
    assert torch.get_num_threads() == before
    assert set(open_cube(tmp_path / "tiny.zarr")["runs"]["threads"].values.ravel()) == {2}


def test_public_names_resolve() -> None:
    """Every name that modhook promises can be had."""
    for name in modhook.__all__:
        assert getattr(modhook, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = modhook.nope


def test_plot_draws_every_figure_that_applies(tiny: Path, tmp_path: Path, modhook_run: Run) -> None:
    """plot writes each applicable figure in three formats beside the cube, and explains one that does not apply."""
    modhook_run("run", tiny, "--out", tmp_path, "--set", "study.seeds=1")
    code, out, err = modhook_run("plot", tmp_path / "tiny.zarr")
    assert code == 0, err
    files = sorted(p.name for p in (tmp_path / "tiny-figures").iterdir())
    # What its two analyses, sharing and inverse, and its history allow.
    names = ["addmul_overlap", "addmul_performance", "history", "kept_weights", "parts"]
    assert files == [f"{name}.{kind}" for name in names for kind in ("pdf", "png", "svg")]
    assert len(out.splitlines()) == len(files)
    code, _, err = modhook_run("plot", tmp_path / "tiny.zarr", "--figure", "scan_accuracy")
    assert (code, "for the task scan" in err) == (2, True)
    code, _, err = modhook_run("plot", tmp_path / "tiny.zarr", "--figure", "scan_acuracy")
    assert (code, "did you mean 'scan_accuracy'" in err) == (2, True)
