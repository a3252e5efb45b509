"""`modhook.ask(units=...)`: masks over units, with controls, verdicts and analyses, from one cube."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from ask_setting import Setting

import modhook
from modhook import UserError

pytestmark = pytest.mark.filterwarnings("ignore::modhook.ModhookWarning")


def asked(setting: Setting, out: Any, **others: Any) -> dict[str, Any]:
    """The arguments of the one question that several tests look at."""
    analyses = ["sharing", "inverse", "size_curve", "mask_histogram", "mask_images", "half_mask", "layers"]
    controls = dict.fromkeys(("random", "magnitude", "own_removed", "shuffled"), True)
    usual = {"units": "neuron", "seeds": 1, "controls": controls, "analyses": analyses, "within": 0.05, "out": out}
    return setting.arguments(**{**usual, **others})


@pytest.fixture(scope="module")
def answer(setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Neurons of two functions, with controls and the analyses that look at single entries."""
    out = tmp_path_factory.mktemp("ask") / "units.zarr"
    return modhook.ask(setting.model, setting.functions, **asked(setting, out))


def test_masks_of_units_come_back(answer: Any, setting: Setting) -> None:
    """The masks of a cube know their units, and score what the cube says they score."""
    assert answer.failed == ()
    masks = answer.masks["small", 1]
    assert list(masks) == ["neuron:0"]
    assert masks["neuron:0"].shape == (16,)
    x, y = (torch.cat(part) for part in zip(*setting.tests["small"], strict=True))
    with torch.no_grad(), masks.applied_to(setting.model) as net:
        expected = float((net(x).argmax(-1) == y).double().mean())
    assert float(answer.scores.sel(seed=1, stage="small", split="small", metric="accuracy")) == pytest.approx(expected)
    weights = masks.weights(setting.model)
    assert set(weights) == {"0.weight", "0.bias", "2.weight"}
    assert modhook.masks_from(answer.path, 1, "small") == masks


def test_counts_are_of_units(answer: Any) -> None:
    """Overlap, chance, density, random and magnitude controls and parts count units; verdicts are made of them."""
    a, b = answer.masks["small", 1], answer.masks["large", 1]
    found = answer.cube["overlap"].sel(seed=1)
    assert float(found["iou_total"].sel(stage="small", other="large")) == pytest.approx(modhook.iou(a, b))
    assert float(found["density"].sel(stage="small")) == a.kept() / 16
    assert int(answer.parts["size"].sum()) == 16 * len(answer.seeds)
    assert set(answer.verdicts["small"]) >= {"sufficient", "necessary", "real"}
    assert "random" in answer.cube.children
    assert "neuron:0" in [str(p) for p in answer.cube["masks/layout0"].coords["parameter"].values]


def test_the_same_call_goes_on(answer: Any, setting: Setting) -> None:
    """The call made again computes nothing; with other units it is another question."""
    again = modhook.ask(setting.model, setting.functions, **asked(setting, answer.path))
    assert again.masks["large", 1] == answer.masks["large", 1]
    with pytest.raises(UserError, match=r"masks\.units|another question"):
        modhook.ask(setting.model, setting.functions, **asked(setting, answer.path, units="layer"))


def test_given_units_lie_in_memory(setting: Setting, tmp_path: Path) -> None:
    """A mapping beside weights is asked for as kinds are; what is no unit is one sentence, and nothing is written."""
    halves = {"left": {"0.weight": slice(0, 8)}, "right": {"0.weight": slice(8, 16)}}
    out = tmp_path / "given.zarr"
    answer = modhook.ask(setting.model, setting.functions, **setting.arguments(units=[halves, "weight"], seeds=1, out=out))
    masks = answer.masks["small", 1]
    assert list(masks) == ["0.weight", "2.weight", "units"]
    assert masks.units is not None
    assert masks.units["units"].labels == ("left", "right")
    for units, said in (
        ("nueron", "did you mean 'neuron'"),
        ("head", "no head was found in Sequential"),
        ({"left": {"0.weight": 16}}, "leaves the tensor"),
    ):
        with pytest.raises(UserError, match=re.escape(said)):
            modhook.ask(setting.model, setting.functions, **setting.arguments(units=units, out=tmp_path / "none.zarr"))
    assert not (tmp_path / "none.zarr").exists()
