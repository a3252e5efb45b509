"""An analysis whose dimensions depend on the network: in a sweep over networks, continued, grown, and added to a finished cube."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from modhook.cube import masks_from, open_cube

Modhook = Callable[..., tuple[int, str, str]]
OWN = """
import numpy as np
from torch import nn

from modhook import Analysis, Variable


class Linears(Analysis):
    def variables(self, task):
        return (Variable("linears/kept", ("stage", "linear", "side"), "float64", "weights kept on either side of the middle"),)

    def labels(self, task, stages):
        return {"side": ["left", "right"]}

    def network_labels(self, model, task, stages):
        assert list(stages) == ["control", "add", "mul"]
        return {"linear": [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]}

    def compute(self, run):
        linears = [str(label) for label in run.coordinates("linears/kept")["linear"]]
        kept = np.full((len(run.stages), len(linears), 2), np.nan)
        for name in self.network_labels(run.model, run.task, run.stages)["linear"]:
            for s, stage in enumerate(run.stages):
                for side, half in enumerate(run.masks[stage][f"{name}.weight"].tensor_split(2, 1)):
                    kept[s, linears.index(name), side] = int(half.sum())
        return {"linears/kept": kept}


class Twice(Linears):
    def network_labels(self, model, task, stages):
        return {"linear": ["a", "a"]}


class Fails(Linears):
    def network_labels(self, model, task, stages):
        return {"linear": [model.nothing]}


class Wrong(Linears):
    def network_labels(self, model, task, stages):
        return {"linear": "a"}
"""


@pytest.fixture
def swept(tiny: Path, tiny_text: str) -> Path:
    """A study of two networks with the analysis beside it, one seed."""
    text = tiny_text.split("[analyses]")[0].replace("seeds = 2", "seeds = 1").replace("hidden = [12, 8]", "hidden = [6]")
    text = text.replace("validate_every = 3", "validate_every = 0").replace("validate_every = 2", "validate_every = 0")
    tiny.write_text(f'{text}\n[analyses]\n"own.py:Linears" = {{}}\nlayers = {{}}\n[sweep]\n"model.hidden" = [[6], [5, 4]]\n')
    tiny.with_name("own.py").write_text(OWN)
    return tiny


def _right(cube: Path, seeds: int, named: str = "linears") -> None:
    """Every run has the counts of its masks in the rows of its own network's layers, and NaN in those of the other's."""
    with open_cube(cube) as tree:
        kept, layers = tree["linears/kept"].load(), tree["layers"].to_dataset().load() if named == "both" else None
    assert kept["linear"].values.tolist() == ["layer1", "output", "layer2"]
    assert kept.sizes["seed"] == seeds
    for seed in range(1, seeds + 1):
        for hidden in ("6", "5-4"):
            here = kept.sel({"seed": seed, "model.hidden": hidden})
            for stage in ("control", "add", "mul"):
                bits = masks_from(cube, seed, stage, **{"model.hidden": hidden})
                for name in ("layer1", "output", "layer2"):
                    found = here.sel(stage=stage, linear=name).values
                    if f"{name}.weight" not in bits:
                        assert (hidden, name) == ("6", "layer2")
                        assert np.isnan(found).all()
                        continue
                    mask = bits[f"{name}.weight"]
                    left = int(mask[:, : -(-mask.shape[1] // 2)].sum())
                    assert found.tolist() == [left, int(mask.sum()) - left]
                    if layers is not None:
                        at = {"seed": seed, "model.hidden": hidden, "stage": stage, "layer": name, "part": "(itself)"}
                        own = [bits[n] for n in bits if n.startswith(f"{name}.")]
                        assert float(layers["kept"].sel(at)) == sum(int(m.sum()) for m in own)
                        assert float(layers["density"].sel(at)) == sum(int(m.sum()) for m in own) / sum(m.numel() for m in own)


def test_labels_of_every_network(swept: Path, modhook_run: Modhook, contents: Callable[[Path], dict[Path, str]]) -> None:
    """The cube has the layers of both networks; the same call finds everything done; a second seed is computed beside the first."""
    cube = swept.with_name("tiny.zarr")
    code, _, err = modhook_run("run", swept, "--out", swept.parent)
    assert code == 0, err
    _right(cube, 1, "both")
    before = contents(cube)
    code, out, err = modhook_run("run", swept, "--out", swept.parent)
    assert (code, "0 stages computed" in out) == (0, True), err
    assert contents(cube) == before
    code, _, err = modhook_run("run", swept, "--out", swept.parent, "--set", "study.seeds=2")
    assert code == 0, err
    _right(cube, 2, "both")
    code, _, err = modhook_run("show", cube, "--verify")
    assert code == 0, err


def test_labels_where_the_analysis_comes_later(made: Path, swept: Path, modhook_run: Modhook) -> None:
    """A finished cube gets the dimension by `modhook analyse`."""
    cube = Path(shutil.copytree(made / "tiny.zarr", swept.with_name("tiny.zarr")))
    code, _, err = modhook_run("analyse", cube, f"{swept.with_name('own.py')}:Linears", "--trust")
    assert code == 0, err
    with open_cube(cube) as tree:
        kept = tree["linears/kept"].load()
    assert kept["linear"].values.tolist() == ["layer1", "layer2", "output"]
    for seed in (1, 2):
        bits = masks_from(cube, seed, "add")
        total = kept.sel(seed=seed, stage="add").sum("side").values
        assert total.tolist() == [int(bits[f"{name}.weight"].sum()) for name in ("layer1", "layer2", "output")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Twice", "network_labels of the analysis 'Twice' gives 'linear' one label twice"),
        ("Fails", "network_labels of the analysis 'Fails' fails: AttributeError"),
        ("Wrong", "network_labels of the analysis 'Wrong' must return {dimension: list of labels}"),
    ],
)
def test_wrong_labels_are_one_sentence(swept: Path, name: str, message: str, modhook_run: Modhook) -> None:
    """What an author got wrong is said before anything is computed, and nothing is written."""
    swept.write_text(swept.read_text().replace(":Linears", f":{name}"))
    code, _, err = modhook_run("run", swept, "--out", swept.parent)
    assert code == 2
    assert message in err
    assert not swept.with_name("tiny.zarr").exists()


def test_a_network_without_attention_has_no_heads(swept: Path, modhook_run: Modhook) -> None:
    """The analysis of heads refuses a network without any before anything is computed."""
    swept.write_text(swept.read_text().replace("layers = {}", "heads = {}"))
    code, _, err = modhook_run("run", swept, "--out", swept.parent)
    assert code == 2
    assert "cover no attention whose heads are found" in err
    assert not swept.with_name("tiny.zarr").exists()
