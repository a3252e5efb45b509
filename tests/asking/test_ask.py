"""`modhook.ask`: the cube of a hand-written task, scores as a plain loop has them, resumed by the same call."""

from __future__ import annotations

import copy
import gc
import hashlib
import os
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ask_setting import Setting, batches, items, loss, score
from torch import Tensor, nn
from warm import Warm

import modhook
from modhook import Stage, Task
from modhook.asking import Answer
from modhook.plugin.hookspecs import Spec
from modhook.plugin.interfaces import Model
from modhook.plugin.manager import plugins
from modhook.plugin.offered import Offer, offering
from modhook.run import run_study
from modhook.study import restore
from modhook.tables import tables


class ByHand(Task):
    """What a plugin's author writes for the two functions."""

    control = False

    @property
    def splits(self) -> tuple[str, ...]:
        """The functions."""
        return ("small", "large")

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The functions."""
        return tuple(Stage(name, name) for name in self.splits)

    def shape(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def _items(self, name: str, count: int, seed: int) -> dict[str, Tensor]:
        x, y = items(self.splits.index(name), count, seed)
        return {"x": x, "y": y}

    def train_set(self, stage: str | None) -> dict[str, Tensor]:
        """The items of `conftest.batches`."""
        return self._items(stage or "small", 96, 0)

    def test_set(self, split: str) -> dict[str, Tensor]:
        """Other items."""
        return self._items(split, 60, 1)

    def loss(self, net: Any, batch: dict[str, Any]) -> Tensor:
        """Cross-entropy."""
        return loss(net, (batch["x"], batch["y"]))

    def score(self, net: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Accuracy."""
        return {"accuracy": score(net, (batch["x"], batch["y"]))}


def network_of(model: nn.Module) -> type[Model]:
    """Return a network plugin that hands out copies of this network."""

    class Network(Model):
        def build(self, shape: Mapping[str, Any]) -> nn.Module:
            return copy.deepcopy(model)

    return Network


def files(cube: Path) -> dict[str, str]:
    """Hash every file of a cube, the timing group aside."""
    found = (p for p in sorted(cube.rglob("*")) if p.is_file() and p.relative_to(cube).parts[0] != "timing")
    return {str(p.relative_to(cube)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the answer is."""
    return tmp_path_factory.mktemp("answers") / "two.zarr"


@pytest.fixture(scope="module")
def answer(setting: Setting, cube: Path) -> Answer:
    """The answer."""
    return modhook.ask(setting.model, setting.functions, out=cube, **setting.arguments())


def test_the_cube_is_that_of_a_task_written_by_hand(answer: Answer, setting: Setting, tmp_path: Path) -> None:
    """Masks, logits, scores, history and overlap of a plugin with the same data, loss and score, bit for bit."""
    offers = [
        Offer("tasks", Spec("by_hand", "by hand", "a:b"), ByHand),
        Offer("models", Spec("by_hand", "by hand", "a:b"), network_of(setting.model)),
    ]
    with offering(offers):
        installed = plugins()
        table = {
            "study": {"name": "hand", "protocol": "given", "seeds": 2},
            "task": {"name": "by_hand"},
            "model": {"name": "by_hand"},
            "masks": {"steps": 6, "lr": 0.5, "batch": 24, "reg_batch": 24, "cut": {"within": 0.05}},
            "analyses": {"sharing": {}, "inverse": {}},
            "run": {"threads": 1, "trackers": []},
        }
        run_study(restore(table, plugins=installed), tmp_path, installed, modhook.Tracker())
    ours, theirs = answer.cube, modhook.open_cube(tmp_path / "hand.zarr")
    compared = 0
    for group in ("scores", "masks/layout0", "history", "overlap", "inverse"):
        for name, value in theirs[group].data_vars.items():
            np.testing.assert_array_equal(ours[group][name].values, value.values, err_msg=f"{group}/{name}")
            compared += 1
    assert compared > 15


def test_scores_are_those_of_a_plain_copy(answer: Answer, setting: Setting) -> None:
    """Every score of every mask, and of the whole network: the share of right items of a deepcopy with its weights multiplied."""
    table = answer.scores.to_dataframe().reset_index()
    assert list(table.columns) == ["seed", "stage", "split", "metric", "value"]
    assert len(table) == 2 * 3 * 2
    for row in table.itertuples():
        net = copy.deepcopy(setting.model)
        if row.stage != "unmasked":
            for name, mask in answer.masks[row.stage, row.seed].items():
                net.get_parameter(name).data *= mask
        right = [float(s) for batch in setting.tests[row.split] for s in score(net, batch)]
        assert row.value == pytest.approx(sum(right) / 60, abs=1e-12)
    assert float(answer.scores.sel(stage="unmasked").min()) > 0.9
    assert answer.masks.keys() == {(name, seed) for name in ("small", "large") for seed in (1, 2)}


def test_tables_and_the_report_work_on_it(answer: Answer, tmp_path: Path) -> None:
    """The tables of `show` and the HTML report, with the functions' names."""
    assert any(table.title.startswith("scores/accuracy") for table in tables(answer.cube))
    page = answer.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "the weights that &#39;small&#39; needs" in page or "the weights that 'small' needs" in page


def test_the_same_call_computes_nothing_and_more_seeds_extend(answer: Answer, setting: Setting, cube: Path) -> None:
    """A second call leaves every file as it is; with three seeds the first two stay."""
    before = files(cube)
    modhook.ask(setting.model, setting.functions, out=cube, **setting.arguments())
    assert files(cube) == before
    first = {key: dict(mask.items()) for key, mask in answer.masks.items()}
    more = modhook.ask(setting.model, setting.functions, out=cube, **setting.arguments(seeds=3))
    assert more.seeds == (1, 2, 3)
    for key, masks in first.items():
        assert all(torch.equal(mask, more.masks[key][name]) for name, mask in masks.items())


def test_parts_count_subsets_in_every_seed(answer: Answer) -> None:
    """Exclusive and shared weights of both functions, counted from the masks."""
    for seed in (1, 2):
        small, large = (torch.cat([m.flatten() for m in answer.masks[n, seed].values()]) for n in ("small", "large"))
        found = answer.parts.sel(seed=seed)
        assert found["exclusive"].sel(subset="small").item() == int((small & ~large).sum())
        assert found["shared"].sel(subset="small & large").item() == int((small & large).sum())


class Stops(modhook.Tracker):
    """Stops in the middle of the second mask stage, as Ctrl-C does."""

    def __init__(self) -> None:
        self.stage = 0

    def stage_started(self, stage: str, steps: int) -> None:
        """Count the stages."""
        self.stage += 1

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Stop."""
        if (self.stage, step) == (3, 3):
            raise KeyboardInterrupt


def test_a_stopped_call_continues_to_the_same_cube(setting: Setting, tmp_path: Path) -> None:
    """Stopped within a stage and asked again: masks and scores of a call that was never stopped."""
    arguments = setting.arguments(seeds=1, analyses=())
    whole = modhook.ask(setting.model, setting.functions, out=tmp_path / "whole.zarr", **arguments)
    with pytest.raises(KeyboardInterrupt):
        modhook.ask(
            setting.model, setting.functions, out=tmp_path / "stopped.zarr", **{**arguments, "progress": Stops()}
        )
    again = modhook.ask(setting.model, setting.functions, out=tmp_path / "stopped.zarr", **arguments)
    for name in ("scores/accuracy", "masks/layout0/bits", "masks/layout0/logits"):
        np.testing.assert_array_equal(again.cube[name].values, whole.cube[name].values)


def test_batches_made_from_a_seed_are_those_of_each_run(setting: Setting) -> None:
    """A callable is asked for every seed, which the masks show: those of a list of that seed's batches."""

    def make(seed: int) -> list[tuple[Tensor, Tensor]]:
        return batches(0, 48, seed)

    arguments = setting.arguments(tests={"small": batches(0, 60, 7)}, analyses=())
    made = modhook.ask(setting.model, {"small": make}, **arguments)
    for seed in (1, 2):
        listed = modhook.ask(setting.model, {"small": batches(0, 48, seed)}, **arguments)
        assert dict(made.masks["small", seed].items()).keys() == dict(listed.masks["small", seed].items()).keys()
        assert all(torch.equal(m, listed.masks["small", seed][n]) for n, m in made.masks["small", seed].items())
    assert any(not torch.equal(m, listed.masks["small", 1][n]) for n, m in made.masks["small", 1].items())


def test_a_loader_gives_the_same_items_again(setting: Setting, tmp_path: Path) -> None:
    """A shuffled DataLoader, with and without a generator of its own, continues its cube and is left as it was."""
    data = torch.utils.data.TensorDataset(*items(0, 48, 0))
    loaders = {
        "plain": torch.utils.data.DataLoader(data, 16, shuffle=True),
        "own": torch.utils.data.DataLoader(data, 16, shuffle=True, generator=torch.Generator().manual_seed(3)),
    }
    arguments = setting.arguments(tests={"small": setting.tests["small"]}, analyses=(), seeds=1)
    for name, loader in loaders.items():
        before = torch.get_rng_state()
        for _ in range(2):
            modhook.ask(setting.model, {"small": loader}, out=tmp_path / f"{name}.zarr", **arguments)
        assert torch.equal(before, torch.get_rng_state())
        hashes = files(tmp_path / f"{name}.zarr")
        modhook.ask(setting.model, {"small": loader}, out=tmp_path / f"{name}.zarr", **arguments)
        assert files(tmp_path / f"{name}.zarr") == hashes


class Sums(nn.Module):
    """Reads sequences of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(5, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, T) to (B, 2)."""
        return self.out(self.embed(x).mean(1))


def test_batches_of_several_lengths_stay_whole(setting: Setting) -> None:
    """Sequences padded batch by batch, the last batch smaller: learned on, and measured as a plain loop does, item by item."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = Sums()
        learned, found = (
            [(torch.randint(5, (n, length)), torch.randint(2, (n,))) for n, length in ((8, 3), (8, 5), (5, 4))] for _ in range(2)
        )
    answer = modhook.ask(
        net,
        {"f": learned},
        **setting.arguments(tests={"f": found}, seeds=1, include=[net.embed, nn.Linear], exclude="*bias*", analyses=()),
    )
    assert answer.cube.attrs["study"]["masks"]["include"] == ["embed.weight", "out.weight", "out.bias"]
    with torch.no_grad():
        whole = torch.cat([score(net, batch) for batch in found])
        for name, mask in answer.masks["f", 1].items():
            net.get_parameter(name).data *= mask
        masked = torch.cat([score(net, batch) for batch in found])
    assert len(whole) == 21
    got = answer.scores.squeeze().to_series()
    assert got["unmasked"] == pytest.approx(float(whole.mean()), abs=1e-12)
    assert got["f"] == pytest.approx(float(masked.mean()), abs=1e-12)


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_it_asks_alike_where_gradients_are_switched_off(setting: Setting, answer: Answer, without: Any) -> None:
    """Called where the caller has switched gradients off, it learns the same masks, and the switch is as it was."""
    with without():
        found = modhook.ask(setting.model, setting.functions, **setting.arguments(seeds=1))
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == (False, without is torch.inference_mode)
    for name in setting.functions:
        assert found.masks[name, 1] == answer.masks[name, 1]


def test_loss_score_and_structure_of_each_function(setting: Setting) -> None:
    """Functions may have their own loss and score, and then batches of another structure; scores may be several."""
    dicts, held = ([{"x": x, "y": y} for x, y in batches(1, 96, seed)] for seed in (0, 1))

    def of_dicts(net: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"right": score(net, (batch["x"], batch["y"])), "large": net(batch["x"]).amax(-1)}

    def of_pairs(net: Any, batch: Any) -> dict[str, Tensor]:
        return of_dicts(net, {"x": batch[0], "y": batch[1]})

    answer = modhook.ask(
        setting.model,
        {"small": batches(0), "large": dicts},
        **setting.arguments(
            loss={"small": loss, "large": lambda net, batch: loss(net, (batch["x"], batch["y"]))},
            score={"small": of_pairs, "large": of_dicts},
            tests={"small": batches(0, 96, 1), "large": held},
            seeds=1,
            analyses=(),
        ),
    )
    assert list(answer.scores["metric"].values) == ["right", "large"]
    x, _ = items(1, 96, 1)
    expected = float(setting.model(x).detach().amax(-1).double().mean())
    assert answer.scores.sel(stage="unmasked", split="large", metric="large").item() == pytest.approx(
        expected, rel=1e-6
    )


def test_a_script_asks_workers(setting: Setting, answer: Answer, tmp_path: Path, warm: Warm) -> None:
    """A script without `if __name__ == "__main__"`, its loss a lambda: two processes compute the masks that one would.

    dask, told that two kilobytes are much, says nothing of how much is sent.
    """
    torch.save(setting.model, tmp_path / "model.pt")
    (tmp_path / "ask_setting.py").write_text((Path(__file__).parent / "ask_setting.py").read_text())
    (tmp_path / "script.py").write_text(
        textwrap.dedent(
            """
            import torch
            import modhook
            from ask_setting import batches, loss
            print("once")
            answer = modhook.ask(
                torch.load("model.pt", weights_only=False), {"small": batches(0), "large": batches(1)},
                loss=lambda net, batch: loss(net, batch),
                score=lambda net, batch: (net(batch[0]).argmax(-1) == batch[1]).double(),
                tests={"small": batches(0, 60, 1), "large": batches(1, 60, 1)}, out="workers.zarr",
                seeds=2, steps=6, lr=0.5, sampler="gumbel", samples=4, threads=1, workers=2, progress=False, analyses=(),
            )
            print(len(answer.masks))
            """
        )
    )
    told = os.environ | {"DASK_DISTRIBUTED__ADMIN__LARGE_GRAPH_WARNING_THRESHOLD": "2kB"}
    done = warm.run("script.py", cwd=tmp_path, env=told)
    assert (done.returncode, done.stdout.split()) == (0, ["once", "4"]), done.stderr
    assert "large graph" not in done.stderr
    theirs = modhook.open_cube(tmp_path / "workers.zarr")["masks/layout0/bits"]
    np.testing.assert_array_equal(
        theirs.sel(seed=[1, 2]).values, answer.cube["masks/layout0/bits"].sel(seed=[1, 2]).values
    )


def test_a_page_says_nothing_of_tests_that_are_there(answer: Answer) -> None:
    """Functions with held-out tests are not said to lack them, neither as text nor in a notebook."""
    assert answer.untested == ()
    assert "held-out" not in repr(answer)
    assert "held-out" not in answer._repr_html_()


def test_by_default_it_asks_with_what_finds_known_modules(setting: Setting) -> None:
    """The recorded study has the setting that docs/ask.md gives; another sampler has its own start and beta, a density has no beta."""
    plain: dict[str, Any] = {"loss": loss, "score": score, "tests": {"small": setting.tests["small"]}, "seeds": 1, "steps": 1}

    def masks(asked: Any = None, **given: Any) -> dict[str, Any]:
        functions = {"small": asked or batches(0)}
        answer = modhook.ask(setting.model, functions, analyses=(), threads=1, progress=False, **plain, **given)
        found: dict[str, Any] = answer.cube.attrs["study"]["masks"]
        return found

    usual = masks()
    assert [usual[k] for k in ("sampler", "samples", "lr", "init", "batch")] == ["hard_concrete", 16, 0.1, 3.0, 16]
    rising = ("among", "relative_beta", "beta_start", "beta")
    assert [usual[k] for k in rising] == ["integrated_gradients", True, 0.01, 50.0]
    assert usual["cut"]["within"] == 0.05
    level = masks(beta=2.0, within="threshold")
    assert (level["cut"], [level[k] for k in rising]) == ("threshold", [None, False, None, 2.0])
    assert masks(batch=24)["samples"] == 12  # the most that divides it
    x, y = items(0, 11, 0)
    tagged = [(x[:5], y[:5], "a"), (x[5:], y[5:], "b")]  # batches that stay whole
    assert masks(tagged)["samples"] == 5
    other = masks(sampler="gumbel", samples=4)
    assert (other["beta"], other["init"]) == (1e-4, None)
    sized = masks(density=0.2)
    assert (sized["density"], sized["init"], sized["cut"], sized["among"]) == (0.2, 3.0, "threshold", None)


def test_a_temporary_cube_goes_with_its_answer(setting: Setting) -> None:
    """Without `out` the cube is there as long as the answer, and no longer; its folder's name, which says nothing, is not shown."""
    answer = modhook.ask(
        setting.model,
        {"small": batches(0)},
        **setting.arguments(tests={"small": batches(0, 60, 1)}, seeds=1, analyses=()),
    )
    path = Path(answer.path)
    assert path.is_dir()
    text = str(answer)
    assert "in a temporary folder" in text
    assert str(path) not in text
    answer._repr_html_()  # as in a notebook
    masks = answer.masks
    gc.disable()
    try:
        del answer
        assert path.is_dir()  # who holds the masks reads them from it
        assert masks["small", 1].size > 0
        del masks
        assert not path.parent.exists()  # at once: nothing waits for the collector of garbage
    finally:
        gc.enable()


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of docs/ask.md, as it stands there, but silent."""
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "ask.md").read_text(encoding="utf-8")
    example = next(part.partition("```")[0] for part in page.split("```python\n")[1:])
    names: dict[str, Any] = {}
    exec(compile(example.replace("seeds=2,", "seeds=1, progress=False,"), "example", "exec"), names)
    assert len(names["answer"].masks) == 2
