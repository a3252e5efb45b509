"""Masks of a study in the size that is asked for: cut by hand from the stored logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modhook
from modhook.cli import main
from modhook.cube import logits_from, masks_from, open_cube, weights_from
from modhook.errors import StudyError
from modhook.plugin.manager import plugins
from modhook.study import load
from modhook.study.sections import Cut

STUDY = """
[study]
name = "cut"
[task]
name = "addmul"
train_size = 2_000
valid_size = 200
[model]
name = "fnn"
hidden = [32, 16]
[train]
steps = 150
batch = 64
lr = 0.01
validate_every = 0
[masks]
steps = 10
samples = 2
lr = 0.3
logits_dtype = "float32"
"""


def run(folder: Path, masks: str, **others: str) -> int:
    """Run the study with more lines in `[masks]`; returns the exit code."""
    (folder / "s.toml").write_text(STUDY.replace('name = "cut"', f'name = "cut"\n{others.get("study", "")}') + masks)
    with pytest.raises(SystemExit) as stop:
        main(["run", str(folder / "s.toml"), "--out", str(folder)])
    return int(stop.value.code or 0)


def largest(logits: dict[str, Any], count: int) -> np.ndarray:
    """Positions of the largest logits, the first of equal ones."""
    flat = np.concatenate([v.numpy().ravel() for v in logits.values()])
    return np.sort(np.argsort(-flat, kind="stable")[:count])


@pytest.mark.parametrize("masks", ["cut = { density = 0.2 }", "density = 0.2"])
def test_masks_have_the_density(masks: str, tmp_path: Path) -> None:
    """Every stage keeps the weights with the largest logits, a fifth of all."""
    assert run(tmp_path, masks) == 0
    cube = open_cube(tmp_path / "cut.zarr")
    for stage in ("control", "add", "mul"):
        logits, found = logits_from(cube, seed=1, stage=stage), masks_from(cube, seed=1, stage=stage)
        size = sum(v.numel() for v in logits.values())
        kept = np.concatenate([found[n].numpy().ravel() for n in logits]).nonzero()[0]
        assert np.array_equal(kept, largest(logits, round(0.2 * size)))


@pytest.mark.parametrize("size", ["cut = { density = 0.2 }", "density = 0.2"])
def test_a_ranking_is_cut(size: str, tmp_path: Path) -> None:
    """A ranking without training, which has no threshold, is cut as the study says: a fifth of all weights, the largest."""
    assert run(tmp_path, f'sampler = "magnitude"\n{size}') == 0
    cube = open_cube(tmp_path / "cut.zarr")
    found, weights = masks_from(cube, seed=1, stage="add"), weights_from(cube, seed=1)
    count = round(0.2 * found.size)
    kept = np.concatenate([found[n].numpy().ravel() for n in found]).nonzero()[0]
    assert np.array_equal(kept, largest({n: weights[n].abs() for n in found}, count))


@pytest.mark.parametrize("split", [', split = "add"', ""])
def test_masks_keep_the_score(split: str, tmp_path: Path) -> None:
    """The masks lose no more than the share of the score on the split that is named, or else on the stage's own."""
    assert run(tmp_path, f"cut = {{ within = 0.3{split} }}\n[analyses]\nsize_curve = {{ points = 3 }}") == 0
    cube = open_cube(tmp_path / "cut.zarr")
    accuracy = cube["scores"]["accuracy"].sel(seed=1)
    for stage, own in (("add", "add"), ("mul", "add" if split else "mul"), ("control", "add" if split else "iid")):
        at = accuracy.sel(split=own)
        assert float(at.sel(stage=stage)) >= 0.7 * float(at.sel(stage="unmasked"))
    logits, found = logits_from(cube, seed=1, stage="add"), masks_from(cube, seed=1, stage="add")
    kept = np.concatenate([found[n].numpy().ravel() for n in logits]).nonzero()[0]
    assert np.array_equal(kept, largest(logits, found.kept())), "they are a cut"


@pytest.mark.parametrize(
    ("masks", "said", "study"),
    [
        ("cut = { density = 0.0 }", "masks.cut", ""),
        ('cut = "treshold"', "masks.cut", ""),
        ("cut = {}", "give either density or within", ""),
        ('cut = { density = 0.1, split = "add" }', "says what within is measured by", ""),
        ("density = 0.1\nbeta = 3e-4", "leave one of the two out", ""),
        ("density = 0.1\nbeta_start = 1e-5", "masks.beta_start: masks.density is given", ""),
        ("beta = 0.1\nbeta_start = 0.2", "masks.beta_start: must be at most masks.beta = 0.1, to which it rises", ""),
        ('beta = 0.1\nbeta_start = 0.01\nstop = "settled"', "masks.stop: with masks.beta_start beta rises until the last step", ""),
        (
            'sampler = "snip"',
            "'snip' ranks weights without training and has no threshold of its own; give masks.density",
            "",
        ),
        ('cut = { within = 0.1, split = "sub" }', 'masks.cut.split: there is no "sub"; the task has iid, add, mul', ""),
    ],
)
def test_a_size_that_cannot_be(
    masks: str, said: str, study: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Mistakes in the size are one sentence and exit code 2."""
    assert run(tmp_path, masks, study=study) == 2
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("file", "variant", "given", "wanted"),
    [
        ("beta = 3e-4", "", "masks.density=0.05", (1e-4, 0.05, "threshold")),
        ("cut = { density = 0.1 }", "", "masks.density=0.05", (1e-4, 0.05, "threshold")),
        ("density = 0.1", "", "masks.beta=3e-4", (3e-4, None, "threshold")),
        ("density = 0.1", "", "masks.cut={ within = 0.02 }", (1e-4, None, Cut(within=0.02))),
        ('cut = { within = 0.1, split = "add" }', "", "masks.cut.density=0.2", (1e-4, None, Cut(density=0.2))),
        ("beta = 3e-4", '"masks.density" = 0.2', "", (1e-4, 0.2, "threshold")),
        ("beta = 3e-4\nbeta_start = 1e-5", "", "masks.density=0.05", (1e-4, 0.05, "threshold")),
        ("beta = 3e-4", '"masks.density" = 0.2', "masks.beta=5e-4", (5e-4, None, "threshold")),
    ],
)
def test_what_is_set_takes_the_place_of_what_says_the_same(
    file: str, variant: str, given: str, wanted: tuple[Any, ...], tmp_path: Path
) -> None:
    """A density on the command line or in a variant replaces the file's beta and cut, and so on: nothing has to be unset first."""
    path = tmp_path / "s.toml"
    path.write_text(f"{STUDY}{file}\n[variants.v]\n{variant}\n")
    masks = load(path, "v" if variant else None, [given] if given else []).masks
    assert (masks.beta, masks.density, masks.cut) == wanted


def test_a_study_gives_the_rise_to_its_fits(tmp_path: Path) -> None:
    """Masks learned with `masks.beta_start` are not those of the same beta throughout, and every stage is told."""
    found = {}
    for name, masks in (("rising", "beta = 20.0\nbeta_start = 0.01"), ("level", "beta = 20.0")):
        (tmp_path / name).mkdir()
        assert run(tmp_path / name, masks) == 0
        cube = open_cube(tmp_path / name / "cut.zarr")
        found[name] = [logits_from(cube, seed=1, stage=stage) for stage in ("control", "add", "mul")]
    for rising, level in zip(found["rising"], found["level"], strict=True):
        assert sum(float(v.sum()) for v in rising.values()) > sum(float(v.sum()) for v in level.values())


def test_rivals_on_one_command_line_are_a_mistake(tmp_path: Path) -> None:
    """Who gives both gets told, in either order."""
    path = tmp_path / "s.toml"
    path.write_text(STUDY)
    both = ["masks.density=0.05", "masks.beta=3e-4"]
    for given in (both, both[::-1]):
        with pytest.raises(StudyError, match="from which beta follows; leave one of the two out"):
            load(path, None, given)


@pytest.mark.parametrize("masks", ["density = 0.2", "within = 0.1"])
def test_a_protocol_that_cuts_no_masks_is_refused(masks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`masks.cut` beside it would be ignored without a word: check and run say so, and nothing is written."""
    (tmp_path / "s.toml").write_text(STUDY.replace('name = "cut"', 'name = "cut"\nprotocol = "transfer"') + f"cut = {{ {masks} }}")
    for command in (["check", str(tmp_path / "s.toml")], ["run", str(tmp_path / "s.toml"), "--out", str(tmp_path / "out")]):
        with pytest.raises(SystemExit) as stop:
            main(command)
        assert stop.value.code == 2
        told = " ".join((lambda seen: seen.out + seen.err)(capsys.readouterr()).split())
        assert "masks.cut: the protocol 'transfer' cuts no masks, it takes those of the sampler; leave it out" in told
    assert not (tmp_path / "out").exists()


def test_protocols_of_others_cut_nothing_unless_they_say_so() -> None:
    """A protocol that knows nothing of cuts does not offer them; one that builds on `posthoc` does."""

    class Own(modhook.Protocol):
        """A protocol of another package."""

    assert not Own.cuts
    assert plugins().load("protocols", "posthoc").cuts
    assert plugins().load("protocols", "given").cuts
