"""`[controls]` in a study file: what it becomes, and the sentence for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from modhook.errors import StudyError
from modhook.study import control_stages, difference, load, resolved, restore

BASE = """
[study]
name = "s"
protocol = "{protocol}"
[task]
name = "{task}"
[model]
name = "fnn"
[train]
steps = {steps}
[masks]
steps = 5
"""


def written(folder: Path, controls: str, task: str = "addmul", protocol: str = "posthoc") -> Path:
    """Write a study with these controls."""
    path = folder / "s.toml"
    path.write_text(BASE.format(task=task, protocol=protocol, steps=0 if protocol == "transfer" else 5) + controls)
    return path


def mistakes(path: Path) -> list[str]:
    """Return what is wrong with a study."""
    with pytest.raises(StudyError) as caught:
        load(path)
    return list(caught.value.problems)


def test_what_scores_becomes_analyses_and_what_learns_becomes_stages(tmp_path: Path) -> None:
    """true, false and tables; the stages in their order; and the table in a cube means the same study."""
    text = """
    [analyses]
    magnitude = {}
    [controls]
    random = { draws = 2 }
    magnitude = true
    own_removed = false
    shuffled = { stages = ["mul"] }
    untrained = false
    nonsense = true
    seed_ceiling = { seeds = 3, stages = ["add"] }
    """
    study = load(written(tmp_path, text))
    assert list(study.analyses) == ["magnitude", "random", "seed_ceiling"]
    assert study.analyses["random"].draws == 2
    labels = [stage.label for stage in control_stages(study.controls, study.masked_stages)]
    nonsense = [f"{s} (nonsense)" for s in ("control", "add", "mul")]
    assert labels == ["mul (shuffled)", *nonsense, "add (mask seed 2)", "add (mask seed 3)"]
    again = restore(resolved(study))
    assert (again.controls, again.analyses) == (study.controls, study.analyses)
    plain = load(written(tmp_path, ""))
    assert "controls" not in resolved(plain)
    assert not difference(resolved(plain), resolved(study))  # controls may join a cube
    assert difference(resolved(load(written(tmp_path, text.replace("seeds = 3", "seeds = 4")))), resolved(study))
    assert not difference(resolved(study), resolved(again))


@pytest.mark.parametrize(
    ("controls", "problem"),
    [
        ("shufled = true", "controls.shufled: unknown key (did you mean 'shuffled'?)"),
        ("random = 3", "controls.random: 3 is no options; write random = true, or random = { ... }"),
        ("random = { draw = 3 }", "controls.random.draw: unknown key (did you mean 'draws'?)"),
        ("random = { draws = 0 }", "controls.random.draws: must be at least 1, not 0"),
        ("seed_ceiling = { seeds = 1 }", "controls.seed_ceiling.seeds: must be at least 2, not 1"),
        ("shuffled = { seeds = 2 }", "controls.shuffled.seeds: unknown key; valid here: stages"),
        ("shuffled = { stages = [] }", "controls.shuffled.stages: must not be empty, not []"),
        ('nonsense = { stages = ["ad"] }', "controls.nonsense.stages[0]: there is no \"ad\" (did you mean 'add'?)"),
        ('untrained = { stages = ["add", "add"] }', 'controls.untrained.stages[1]: "add" is there already'),
    ],
)
def test_mistakes(controls: str, problem: str, tmp_path: Path) -> None:
    """Each is one sentence with its place."""
    assert mistakes(written(tmp_path, f"[controls]\n{controls}\n")) == [problem]


def test_controls_that_do_not_fit(tmp_path: Path) -> None:
    """Options given twice, a ceiling without seeds, a protocol that changes weights or learns no masks: all are told at once."""
    text = "[analyses]\nrandom = {}\nseed_ceiling = {}\n[controls]\nrandom = { draws = 2 }\n"
    assert mistakes(written(tmp_path, text)) == [
        "controls.random: [analyses] has random with other options; leave one of the two out",
        "analyses.seed_ceiling: there are no masks of further seeds; write [controls] seed_ceiling = { seeds = 3 }",
    ]
    both = "[controls]\nshuffled = true\nnonsense = true\n"
    frozen = "has no frozen network on which masks could be learned again; leave it out"
    assert mistakes(written(tmp_path, both, protocol="transfer")) == [
        f"controls.{kind}: the protocol 'transfer' {frozen}" for kind in ("shuffled", "nonsense")
    ]
    assert mistakes(written(tmp_path, "[controls]\nshuffled = true\n", protocol="baseline")) == [
        "controls.shuffled: the protocol 'baseline' learns no masks that it could be compared with; leave it out"
    ]
    assert mistakes(written(tmp_path, "controls = 3\n").rename(tmp_path / "t.toml"))[0].startswith("masks.controls: unknown key")
