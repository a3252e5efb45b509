"""Controls of an answer: the same question of networks and labels in which there is nothing to find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ask_setting import Setting, batches, items, loss, score
from torch import Tensor, nn

import modhook
from modhook import ModhookWarning, UserError
from modhook.asking.nonsense import classes, relabelled
from modhook.findings import measured

BOTH = {"small": batches(0), "large": batches(1)}


@pytest.fixture(scope="module")
def answer(setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> modhook.Answer:
    """An answer with all controls."""
    out = tmp_path_factory.mktemp("controls") / "all.zarr"
    return modhook.ask(setting.model, BOTH, out=out, controls=True, **setting.arguments(steps=40))


def test_every_control_is_in_the_cube(answer: modhook.Answer) -> None:
    """Three learned controls per function, scored ones as analyses; masks are cut by what they may lose."""
    kinds, of = answer.cube["controls/kind"], answer.cube["controls/of"]
    expected = {(kind, name) for kind in ("shuffled", "untrained", "nonsense") for name in BOTH}
    assert {(str(k), str(o)) for k, o in zip(kinds.values, of.values, strict=True)} == expected
    assert {"random", "magnitude", "inverse", "own_removed"} <= set(answer.cube.children)
    shares = answer.scores.sel(stage="small", split="small") / answer.scores.sel(stage="unmasked", split="small")
    assert float(shares.min()) >= 0.95
    assert {v["real"] for v in answer.verdicts.values()} <= {"yes", "no", "cannot tell"}


def test_nonsense_is_scored_by_permuted_labels(answer: modhook.Answer, setting: Setting) -> None:
    """The unmasked network on nonsense labels: of two classes that change places, what was right is wrong."""
    unmasked = answer.cube["controls/unmasked/accuracy"]
    for name in BOTH:
        value = unmasked.sel(stage=f"{name} (nonsense)", split=name).values
        right = float(torch.cat([score(setting.model, batch) for batch in setting.tests[name]]).mean())
        # Each of the two classes is answered wrongly where it was answered rightly; two classes of four outputs.
        x, y = (torch.cat(parts) for parts in zip(*setting.tests[name], strict=True))
        swapped = torch.where(y % 2 == 0, y + 1, y - 1)
        np.testing.assert_allclose(value, float(score(setting.model, (x, swapped)).mean()))
        assert float(value.max()) <= 1 - right + 1e-9


def test_findings_read_the_controls(answer: modhook.Answer) -> None:
    """Numbers of a control are those of its stage on the function's own split; sizes are shares of the real mask's."""
    (small, _), group = measured(answer.cube), answer.cube["controls"]
    for kind in ("shuffled", "untrained", "nonsense"):
        at = f"small ({kind})"
        np.testing.assert_array_equal(
            small.controls[kind].unmasked, group["unmasked/accuracy"].sel(stage=at, split="small").values
        )
        np.testing.assert_array_equal(
            small.controls[kind].equal_size, group["equal_size/accuracy"].sel(stage=at, split="small").values
        )
        for i, seed in enumerate(answer.seeds):
            own = answer.masks["small", seed].density
            needed = float(group["equal_score"].sel(stage=at, seed=seed))
            assert small.controls[kind].size[i] == pytest.approx((1.0 if np.isnan(needed) else needed) / own)
    np.testing.assert_array_equal(
        small.removed, answer.cube["own_removed/accuracy"].sel(stage="small", split="small").values
    )
    np.testing.assert_allclose(
        small.random, answer.cube["own_removed/rest_draws/accuracy"].sel(stage="small", split="small").mean("draw").values
    )


def test_the_report_opens_with_the_verdicts(answer: modhook.Answer, tmp_path: Path) -> None:
    """A table of verdicts before everything else, with every sentence."""
    page = answer.report(tmp_path / "r.html").read_text(encoding="utf-8")
    opening = page[page.index('id="verdicts"') : page.index("What was asked")]
    for words in answer.findings["words"]:
        assert words.replace("'", "&#39;") in opening


def test_nonsense_needs_labels_or_a_function(setting: Setting) -> None:
    """Batches without integer labels: said by a warning where all controls are wanted, refused where it is; one's own is used."""

    def floats(part: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
        return [(x, y.float()) for x, y in batches(part, 96, seed)]

    def own_loss(net: Any, batch: Any) -> Tensor:
        return loss(net, (batch[0], batch[1].long()))

    def own_score(net: Any, batch: Any) -> Tensor:
        return score(net, (batch[0], batch[1].long()))

    def nonsense(batch: Any, seed: int) -> Any:
        return batch[0], 3 - batch[1]

    given, held = {"small": floats(0)}, {"small": floats(0, 1)}
    arguments = setting.arguments(tests=held, loss=own_loss, score=own_score, seeds=1, steps=2, analyses=())
    with pytest.raises(UserError, match=r"controls\['nonsense'\]: the batches of 'small' are neither pairs"):
        modhook.ask(setting.model, given, controls={"nonsense": True}, **arguments)
    with pytest.warns(ModhookWarning, match="there is no control 'nonsense'"):
        answer = modhook.ask(setting.model, given, controls=True, **arguments)
    assert {str(k) for k in answer.cube["controls/kind"].values} == {"shuffled", "untrained"}
    answer = modhook.ask(setting.model, given, controls={"nonsense": True}, nonsense=nonsense, **arguments)
    x, y = (torch.cat(parts) for parts in zip(*held["small"], strict=True))
    expected = float(score(setting.model, (x, 3 - y.long())).mean())
    found = answer.cube["controls/unmasked/accuracy"].sel(stage="small (nonsense)", split="small")
    assert found.item() == pytest.approx(expected)
    with pytest.raises(UserError, match="controls must be True, False or"):
        modhook.ask(setting.model, given, controls="all", **arguments)
    two = {**given, "labels": batches(0)}
    arguments["tests"] = {**held, "labels": batches(0, 96, 1)}
    with pytest.warns(ModhookWarning, match=r"no control 'nonsense' of 'small', so that \*real\* cannot be \*yes\* of it: the batches of"):
        answer = modhook.ask(setting.model, two, controls=True, **arguments)
    kinds = zip(answer.cube["controls/kind"].values, answer.cube["controls/of"].values, strict=True)
    assert [whose for kind, whose in kinds if kind == "nonsense"] == ["labels"]
    modhook.ask(setting.model, two, controls={"nonsense": {"stages": ["labels"]}}, **arguments)
    with pytest.raises(UserError, match="the batches of 'small' are neither pairs"):
        modhook.ask(setting.model, two, controls={"nonsense": {"stages": ["small"]}}, **arguments)


def test_controls_join_an_answer(setting: Setting, tmp_path: Path) -> None:
    """Controls that are asked for later have the numbers of a cube that had them at once, and no size is made up for its masks."""

    def nonsense(batch: Any, seed: int) -> Any:
        return batch[0], (batch[1] + seed % 3 + 1) % 4

    def others(batch: Any, seed: int) -> Any:
        return batch[0], 3 - batch[1]

    arguments = setting.arguments(seeds=1, steps=4, analyses=())
    later, whole = tmp_path / "later.zarr", tmp_path / "whole.zarr"
    sized: dict[str, Any] = {**arguments, "density": 0.4}
    modhook.ask(setting.model, BOTH, out=later, **sized)
    modhook.ask(setting.model, BOTH, out=later, controls={"random": {"draws": 2}, "untrained": True}, nonsense=others, **sized)
    found = modhook.ask(setting.model, BOTH, out=later, controls={"nonsense": True}, nonsense=nonsense, **sized)
    with pytest.raises(UserError, match="another question: the nonsense is another one"):
        modhook.ask(setting.model, BOTH, out=later, controls={"nonsense": True}, nonsense=others, **sized)
    again = modhook.ask(setting.model, BOTH, out=later, **sized)
    assert again.cube.attrs["study"]["controls"].keys() == {"untrained", "nonsense"}
    assert again.cube.attrs["study"]["task"]["nonsense"] == found.cube.attrs["study"]["task"]["nonsense"]
    both = {"untrained": True, "nonsense": True}
    expected = modhook.ask(setting.model, BOTH, out=whole, controls=both, nonsense=nonsense, **sized)
    stages = expected.cube["controls/stage"].values
    for name in ("scores/accuracy", "unmasked/accuracy", "equal_size/accuracy", "equal_score", "density", "kind", "of"):
        one, other = (answer.cube[f"controls/{name}"].sel(stage=stages).values for answer in (found, expected))
        np.testing.assert_array_equal(one, other)
    bare = tmp_path / "bare.zarr"
    modhook.ask(setting.model, BOTH, out=bare, **arguments)
    answer = modhook.ask(setting.model, BOTH, out=bare, controls={"shuffled": True, "magnitude": True}, **arguments)
    assert answer.cube.attrs["study"]["masks"]["cut"]["within"] == 0.05
    assert answer.cube["controls/equal_size/accuracy"].notnull().all()


def test_a_network_that_cannot_be_initialised_anew(setting: Setting) -> None:
    """Its control `untrained` is left out with a warning where all controls are wanted, and refused where it is asked for by name."""
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 4)).eval()
    arguments = setting.arguments(seeds=1, steps=2, analyses=())
    with pytest.warns(ModhookWarning, match=r"there is no control 'untrained': 0\.parametrizations\.weight\.original0"):
        answer = modhook.ask(model, BOTH, controls=True, **arguments)
    assert {str(k) for k in answer.cube["controls/kind"].values} == {"shuffled", "nonsense"}
    with pytest.raises(UserError, match=r"controls\.untrained: .* cannot be initialised anew"):
        modhook.ask(model, BOTH, controls={"untrained": True}, **arguments)


def test_every_class_gets_the_name_of_another() -> None:
    """A permutation without fixed points of the classes that there are; labels that are no class stay, and so does the rest."""
    from modhook.asking.batches import gather

    labels = torch.tensor([3, 7, 7, 9, 3, -100, 9, 20])
    for batch in ((torch.randn(8, 2), labels), {"x": torch.randn(8, 2), "labels": labels}):
        known = classes(gather("batches", [batch], 0, 1))
        assert known is not None
        assert known.tolist() == [3, 7, 9, 20]
        seen = set()
        for seed in range(20):
            changed = relabelled(batch, known, seed)
            new = changed["labels"] if isinstance(changed, dict) else changed[1]
            table = dict(zip(labels.tolist(), new.tolist(), strict=True))
            assert table.pop(-100) == -100
            assert sorted(table.values()) == [3, 7, 9, 20]
            assert all(a != b for a, b in table.items())
            seen.add(tuple(table.items()))
            first = changed["x"] if isinstance(changed, dict) else changed[0]
            assert first is (batch["x"] if isinstance(batch, dict) else batch[0])
        assert len(seen) > 3
    assert classes(gather("batches", [(torch.randn(3, 2), torch.randn(3))], 0, 1)) is None
    assert items(0, 3, 0)[1].dtype == torch.int64
