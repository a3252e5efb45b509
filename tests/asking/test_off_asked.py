"""`ask(off=)`: what a weight becomes that is not kept, in every mask, score and control of an answer, against deep copies."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from ask_setting import Setting, loss, score
from torch import Tensor, nn

import modhook
from modhook import Masks, TrustWarning, UserError
from modhook.asking.task import Question
from modhook.run.changed import shuffle

WANTED = {"shuffled": True, "own_removed": {"draws": 2}}


def other(setting: Setting) -> nn.Module:
    """Return a second network of the same kind, not far from the first."""
    net = copy.deepcopy(setting.model)
    drawn = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in net.parameters():
            p += 0.5 * p.std() * torch.randn(p.shape, generator=drawn)
    return net


def accuracy(net: nn.Module, batches: Any) -> float:
    """Return the share of right answers."""
    with torch.no_grad():
        return float(torch.cat([score(net, b) for b in batches]).mean())


def put(net: nn.Module, keep: Any, off: dict[str, Tensor]) -> nn.Module:
    """Return a deep copy with the other weights where a mask is False."""
    twin = copy.deepcopy(net)
    for name, mask in keep.items():
        twin.get_parameter(name).data = torch.where(mask, twin.get_parameter(name), off[name]).detach()
    return twin


@pytest.mark.parametrize("kind", ["network", "shuffled"])
def test_every_score_is_that_of_the_other_weights(kind: str, setting: Setting, tmp_path: Path) -> None:
    """Scores, inverse, own removal and a learned control equal those of deep copies with the other weights put in by hand."""
    second = other(setting)
    off: Any = {"network": second, "shuffled": "shuffled"}[kind]
    arguments = setting.arguments(steps=8, seeds=1, lr=1.0, include="*weight*")
    answer = modhook.ask(setting.model, setting.functions, off=off, controls=WANTED, within=None, density=0.4, **arguments)
    if kind == "shuffled":
        none = Masks({n: torch.zeros_like(m) for n, m in answer.masks["small", 1].items()})
        weights = dict(none.materialize(setting.model, "shuffled", seed=1).named_parameters())
    else:
        weights = dict(second.named_parameters())
        assert isinstance(answer.off, dict)
        assert all(torch.equal(t, weights[n]) for n, t in answer.off.items())
    control = copy.deepcopy(setting.model)
    shuffle(control, 1)
    differ = 0
    for name in setting.functions:
        masks = answer.masks[name, 1]
        own = masks - answer.masks["large" if name == "small" else "small", 1]
        assert masks.materialize(setting.model, answer.off, seed=1)[0].weight.equal(put(setting.model, masks, weights)[0].weight)
        for split, tests in setting.tests.items():
            at = {"seed": 1, "stage": name, "split": split}
            for found, keep in (("scores", masks), ("inverse", ~masks), ("own_removed", ~own)):
                value = float(answer.cube[f"{found}/accuracy"].sel(at))
                assert value == pytest.approx(accuracy(put(setting.model, keep, weights), tests), abs=1e-12)
                zeros = {n: torch.zeros_like(w) for n, w in weights.items()}
                differ += value != pytest.approx(accuracy(put(setting.model, keep, zeros), tests), abs=1e-12)
            label = f"{name} (shuffled)"
            learned = modhook.masks_from(answer.path, 1, label)
            # What is shuffled of a shuffled network is another order of the same weights, drawn from the run's seed.
            its = weights if kind != "shuffled" else dict((learned ^ learned).materialize(control, "shuffled", seed=1).named_parameters())
            value = float(answer.cube["controls/scores/accuracy"].sel({**at, "stage": label}))
            assert value == pytest.approx(accuracy(put(control, learned, its), tests), abs=1e-12)
    assert differ > 4, "a test that zero would pass as well"


def test_another_off_is_another_question(setting: Setting, tmp_path: Path) -> None:
    """The same weights continue, however they are given; others, and none, are refused, and so are weights that do not fit."""
    second, out = other(setting), tmp_path / "a.zarr"
    arguments = setting.arguments(seeds=1, steps=2, analyses=(), out=out)
    modhook.ask(setting.model, setting.functions, off=second, **arguments)
    before = {f: f.stat().st_mtime_ns for f in out.rglob("*") if f.is_file()}
    # What is not masked (the biases) plays no part.
    given = {n: t + (0 if n.endswith("weight") else 1) for n, t in second.state_dict().items()}
    modhook.ask(setting.model, setting.functions, off=given, **arguments)
    changed = {n: t.clone() for n, t in given.items()}
    changed["2.weight"][0, 0] += 1e-6
    for off in (changed, "zero", None, "redrawn"):
        with pytest.raises(UserError, match=r"another question: what weights become that are not kept \(off\) is another one"):
            modhook.ask(setting.model, setting.functions, off=off, **arguments)
    del changed["2.weight"]
    for off, text in ((changed, "off lacks 2.weight"), ("zeros", "unknown off 'zeros'"), (3, "off must be one of")):
        with pytest.raises(UserError, match=text):
            modhook.ask(setting.model, setting.functions, off=off, **arguments)
    assert {f: f.stat().st_mtime_ns for f in out.rglob("*") if f.is_file()} == before


def test_the_network_itself_is_warned_of(setting: Setting) -> None:
    """Off weights that are the network's own change nothing: a warning says so, and no mask is called sufficient for it."""
    arguments = setting.arguments(seeds=2, steps=2, analyses=())
    with pytest.warns(TrustWarning, match="off holds the very weights that the network has"):
        answer = modhook.ask(setting.model, setting.functions, off=setting.model, **arguments)
    assert {v["sufficient"] for v in answer.verdicts.values()} == {"cannot tell"}
    almost = {n: t.clone() for n, t in setting.model.state_dict().items()}
    almost["0.weight"][0, 0] += 1
    for sampler in ("gumbel", "magnitude"):
        for off, there in ((setting.model, True), (almost, False)):
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                given = {"steps": 2, "off": off, "sampler": sampler, "density": 0.5, "progress": False}
                fit = modhook.fit_masks(setting.model, setting.functions["small"], loss, **given)
            assert any("the very weights" in c for c in fit.cautions) == there
            assert any("the very weights" in str(w.message) and w.category is TrustWarning for w in seen) == there


def test_workers_are_sent_the_weights() -> None:
    """What is offered to a worker holds the tensors, so that it finds them under the study's name of them."""
    tensors = {"0.weight": torch.ones(2, 2)}
    question = Question(nn.Linear(1, 1), {}, {}, {}, {}, {}, (), None, {}, 1, 1, tensors, "weights given to ask, 1")
    (weights,) = [o for o in question.offers() if not hasattr(o, "kind")]
    sent = pickle.loads(pickle.dumps(weights))
    assert (sent.name, sent.tensors["0.weight"].tolist()) == ("weights given to ask, 1", [[1, 1], [1, 1]])
