"""The known networks by name: data without overlap, batches that repeat, the task and the protocol in a study."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import modhook
from modhook import UserError
from modhook.cli import main
from modhook.cube import open_cube, weights_from
from modhook.testing import check_task
from modhook_tasks import known
from modhook_tasks.known import stored
from modhook_tasks.known.network import KnownNetwork
from modhook_tasks.known.task import KnownOptions, KnownTask


@pytest.mark.parametrize("name", known.networks())
def test_training_and_held_out_items_do_not_overlap(name: str) -> None:
    """No held-out input is among the training inputs (the one exception: a sparse input may be drawn twice, as all zeros is)."""
    built = known.build(name)
    for function in list(built.functions.values())[:2]:
        train, test = ({tuple(x) for x in d["inputs"].tolist()} for d in (function.train, function.test))
        both = {x for x in train & test if sum(v != 0 for v in x) > 1}
        assert both == set()
        if name.startswith("superposed"):
            continue
        assert len(train) == len(function.train["inputs"])
        assert len(test) == len(function.test["inputs"])
    assert all(not p.requires_grad for p in built.model.parameters())
    assert not built.model.training


def test_batches_can_be_gone_through_again() -> None:
    """Batches are whole, the same each time, other ones for another seed, and a pass holds every item once."""
    function = known.build("hist").functions["hist"]
    batches = function.batches(3, size=128, passes=2)
    once, again = list(batches), list(batches)
    assert len(once) == len(batches) == 8
    assert all(torch.equal(a[n], b[n]) for a, b in zip(once, again, strict=True) for n in a)
    assert not torch.equal(once[0]["inputs"], next(iter(function.batches(4)))["inputs"])
    seen = torch.cat([b["inputs"] for b in once[:4]])
    assert {tuple(x) for x in seen.tolist()} == {tuple(x) for x in function.train["inputs"].tolist()}
    assert sum(len(b["inputs"]) for b in function.test_batches(100)) == 512


def test_fit_masks_and_evaluate_take_them() -> None:
    """A function's batches, loss and score are what `fit_masks` and `evaluate` ask for, and masks cover what truth covers."""
    built = known.build("frac_prevs+hist")
    function = built.functions["hist"]
    fit = modhook.fit_masks(built.model, function.batches(), function.loss, steps=2, progress=False)
    assert fit.masks.keys() == built.truth.necessary["hist"].keys() == built.truth.minimal["hist"].keys()
    assert all(m.shape == built.truth.owner[n].shape for n, m in fit.masks.items())
    assert modhook.evaluate(built.model, None, function.test_batches(), function.score) == 1
    everything = modhook.Masks(built.truth.minimal["hist"])
    assert modhook.evaluate(built.model, everything, function.test_batches(), function.score) > 0.98
    assert modhook.evaluate(built.model, ~everything, function.test_batches(), function.score) < 0.2


def test_an_unknown_name_is_refused() -> None:
    """The message lists the names; so does an unknown control."""
    for name in ("hits", "hist/bad", "hist+hist", ""):
        with pytest.raises(UserError, match=r"there is no known network .* frac_prevs\+hist, .*/permuted"):
            known.build(name)
    with pytest.raises(UserError, match="names 'hits', but the functions of 'hist' are hist"):
        KnownTask(KnownOptions("hist", functions=("hits",))).load()


def test_stored_truth_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is saved is what is loaded, a function that needs nothing included."""
    monkeypatch.setattr(stored, "FILES", tmp_path)
    model = known.build("hist").model
    mask = {n: torch.rand(p.shape) < 0.1 for n, p in model.named_parameters()}
    nothing = {n: torch.zeros_like(m) for n, m in mask.items()}
    stored.save("x", ({"a": mask, "b": nothing}, {"a": nothing}))
    necessary, minimal = stored.load("x", model)
    assert necessary.keys() == {"a", "b"}
    for found, expected in ((necessary["a"], mask), (necessary["b"], nothing), (minimal["a"], nothing)):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[n], expected[n]) for n in expected)


@pytest.mark.parametrize("network", ["frac_prevs+hist", "welded_lstm", "superposed_5_2/permuted"])
def test_the_task_keeps_its_promises(network: str) -> None:
    """The public check of tasks: data, loss, scores per item, and masks on every stage."""
    check_task(KnownTask, KnownNetwork, {"network": network})


def test_a_network_that_is_given(tmp_path: Path) -> None:
    """The smoke study trains nothing: the stage `unmasked` holds the shipped weights and their accuracy, and a second run adds none."""
    study = Path(__file__).parents[2] / "studies" / "known_compiled.toml"
    arguments = [
        "run",
        str(study),
        "--variant",
        "smoke",
        "--out",
        str(tmp_path),
        "--set",
        'sweep.task.network=["hist+reverse"]',
    ]
    for _ in range(2):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
    path = tmp_path / "known_compiled-smoke.zarr"
    with open_cube(path) as cube:
        accuracy = cube["scores"]["accuracy"].isel(seed=0)
        assert accuracy["stage"].values.tolist() == ["unmasked", "hist", "reverse"]
        assert accuracy.sel(stage="unmasked").values.ravel().tolist() == [1, 1]
    weights = weights_from(path, seed=1)
    assert all(torch.equal(t, weights[n]) for n, t in known.build("hist+reverse").model.named_parameters())


def test_networks_of_other_functions_in_one_sweep() -> None:
    """With numbers for labels, stages and splits of all welded networks are called alike."""
    for name in ("welded_fnn", "welded_cnn"):
        task = KnownTask(KnownOptions(name, labels="numbers"))
        assert task.splits == ("function1", "function2") == tuple(s.name for s in task.stages)
        one = KnownTask(KnownOptions(name, labels="numbers", functions=(list(task.known.functions)[1],)))
        assert one.splits == ("function2",)
        assert torch.equal(one.train_set("function2")["inputs"], task.train_set("function2")["inputs"])
