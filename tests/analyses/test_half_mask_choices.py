"""Which tensors are early: in the published networks, at random, and with mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import nn

from modhook.cube import masks_from, open_cube, weights_from
from modhook.errors import PatternError, StudyError, UserError
from modhook.masks.select import select
from modhook.plugin.manager import plugins
from modhook.run.build import model_shapes
from modhook.study import load, points
from modhook_plugins.analyses.half_mask import HalfMask, HalfMaskOptions

STUDIES = Path(__file__).parents[2] / "studies"
LAYERS = [f"layer{i}.weight" for i in range(1, 5)]


def choices(analysis: HalfMask, model: nn.Module, names: list[str], seed: int = 1) -> list[tuple[str, ...]]:
    """What the analysis takes for early."""
    run = SimpleNamespace(model=model, labels={"seed": seed})
    return analysis._choices(run, names)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("study", "early", "late"),
    [
        ("addmul_fnn", LAYERS[:3], [LAYERS[3], "output.weight"]),
        ("tuple_fnn", LAYERS[:2], [*LAYERS[2:], "output.weight"]),
        ("tuple_fnn_small", LAYERS[:2], [*LAYERS[2:], "output.weight"]),
        (
            "tuple_lstm",
            ["lstm.weight_ih_l0", "lstm.weight_hh_l0"],
            ["lstm.weight_ih_l1", "lstm.weight_hh_l1", "output.weight"],
        ),
        (
            "cifar10_cnn",
            [f"conv{i}.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")],
            ["conv4.weight", "conv4.bias", "output.weight", "output.bias"],
        ),
    ],
)
def test_early_tensors_of_the_published_networks(study: str, early: list[str], late: list[str]) -> None:
    """The studies' patterns take the tensors that the paper's table names, in networks of the paper's size."""
    found = points(load(STUDIES / f"{study}.toml"))[0].study
    installed = plugins()
    task = installed.load("tasks", found.task.name)(found.task.options)
    model = model_shapes(found, task, installed)
    names = list(select(model, found.masks.include, found.masks.exclude))
    (chosen,) = choices(HalfMask(found.analyses["half_mask"]), model, names)
    assert [n for n in names if n in chosen] == early
    assert [n for n in names if n not in chosen] == late


def test_early_tensors_of_the_transformer() -> None:
    """The first two of three layers of encoder and decoder, and the output map, are early; the third layers are late."""
    found = load(STUDIES / "scan_transformer.toml")
    installed = plugins()
    model = model_shapes(found, installed.load("tasks", "scan")(found.task.options), installed)
    names = list(select(model, found.masks.include, found.masks.exclude))
    (chosen,) = choices(HalfMask(found.analyses["half_mask"]), model, names)
    late = {n for n in names if n not in chosen}
    assert late == {n for n in names if n.startswith(("encoder.2.", "decoder.2."))}
    assert len(late) > 10
    assert "output.weight" in chosen


def test_random_choices() -> None:
    """Five different halves of the tensors, the same again for the same seed, others for another; never more than there are."""
    model = nn.LSTM(2, 2, 2, bias=False)
    names = [n for n, _ in model.named_parameters()] + ["a", "b", "c"]
    five = HalfMask(HalfMaskOptions(random=5))
    found = choices(five, model, names)
    assert [len(c) for c in found] == [4] * 5
    assert len(set(found)) == 5
    assert found == choices(five, model, names)
    assert found != choices(five, model, names, seed=2)
    assert len(choices(five, model, ["a", "b"])) == 2
    many = [str(i) for i in range(40)]
    drawn = choices(five, model, many)
    assert len(set(drawn)) == 5
    assert {len(c) for c in drawn} == {20}


def test_random_halves_in_a_cube(tmp_path: Path, run_study: Callable[..., None]) -> None:
    """Each choice's two halves complement each other, and both scores are those of an LSTM with that half masked."""
    folder = str(tmp_path)
    settings = ["task.valid_size=200", "train.steps=150", "train.lr=0.02", "analyses.half_mask.random=3"]
    sets = [part for s in settings for part in ("--set", s)]
    run_study(STUDIES / "addmul_lstm.toml", "--variant", "smoke", "--out", folder, *sets)
    from modhook_plugins.networks.lstm import LSTMReadout
    from modhook_tasks.addmul import AddMul, AddMulOptions

    task = AddMul(AddMulOptions(2_000, 200))
    batch = task.prepare(task.test_set("iid"), None, False)  # type: ignore[arg-type]
    with open_cube(tmp_path / "addmul_lstm-smoke.zarr") as cube:
        found = cube["half_mask"].sel(seed=1).load()
        weights, control = weights_from(cube, seed=1), masks_from(cube, seed=1, stage="control")
        model = LSTMReadout(42, 20, 8, 2, 3).requires_grad_(False)
        assert list(found["choice"].values) == [1, 2, 3]
        sets_ = set()
        for choice in (1, 2, 3):
            for half in ("early", "late"):
                at = found.sel(choice=choice, half=half)
                on = [n for n in control if int(at["masked"].sel(parameter=n))]
                assert len(on) == (3 if half == "early" else 2)
                model.load_state_dict({n: w * control[n] if n in on else w for n, w in weights.items()})
                said = model(batch["inputs"]).view(-1, 2, 10).argmax(-1)
                assert float(at["accuracy"]) == pytest.approx(float((said == batch["target"]).all(-1).double().mean()))
                sets_.add(tuple(on))
        assert len(sets_) == 6
        assert (found["masked"].sum("half") == 1).all()


def test_mistakes(tmp_path: Path) -> None:
    """Both options at once are refused with the study; patterns that name nothing, or nothing masked, say so."""
    study = tmp_path / "s.toml"
    text = (STUDIES / "addmul_fnn.toml").read_text()
    study.write_text(text.replace("half_mask = {}", 'half_mask = { early = ["layer1.*"], random = 2 }'))
    with pytest.raises(StudyError, match="early and random exclude each other"):
        load(study)
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(PatternError, match=r"analyses.half_mask.early pattern '0.wieght' matches no parameter"):
        choices(HalfMask(HalfMaskOptions(("0.wieght",))), model, ["0.weight"])
    with pytest.raises(UserError, match=r"names no masked tensor: 0.bias; masked are 0.weight"):
        choices(HalfMask(HalfMaskOptions(("0.bias",))), model, ["0.weight"])
