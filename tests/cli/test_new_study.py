"""`modhook new-study`: a study and its file of code that work as they are, and nothing is ever overwritten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modhook.errors import UserError
from modhook.plugin.manager import plugins
from modhook.plugin.scaffold import new_study
from modhook.testing import check_model, check_task


def test_the_study_works_as_it_is(tmp_path: Path, modhook_here: Callable[..., tuple[int, str, str]]) -> None:
    """Two files; check says that one is code; the study runs, in both versions the same; task and network keep their promises."""
    code, out, err = modhook_here("new-study", "first_look.toml")
    assert (code, out) == (0, "first_look.toml\nfirst_look.py\nNext: modhook run first_look.toml\n"), err
    code, out, err = modhook_here("check", "first_look.toml")
    assert (code, out.splitlines()[0]) == (0, "first_look.toml: ok (as published, smoke)"), err
    assert "runs with your rights" in out
    assert "first_look.py:MyTask, first_look.py:make_network" in out
    (tmp_path / "controlled.toml").write_text((tmp_path / "first_look.toml").read_text() + "[controls]\nnonsense = true\n")
    code, out, err = modhook_here("check", "controlled.toml")
    assert code == 0, err
    code, out, err = modhook_here("run", "first_look.toml", "--variant", "smoke")
    assert (code, "4 stages computed" in out) == (0, True), err
    task = plugins().beside(tmp_path).load("tasks", "first_look.py:MyTask")
    check_task(task, "first_look.py:make_network", {"examples": 600})
    check_model("first_look.py:make_network", task, {"hidden": 12}, {"examples": 600})


@pytest.mark.parametrize("name", ["my-network", "1net", "my network", "class", "json", "torch", "modhook", ".", "täsk"])
def test_a_bad_name_is_refused(name: str, tmp_path: Path) -> None:
    """What cannot be a module's name, or is taken by one, is refused, and nothing is written."""
    with pytest.raises(UserError, match=r"is no name for a study|is taken") as caught:
        new_study(tmp_path / f"{name}.toml")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["mine_1.toml", "mine_1.py"])
def test_an_existing_file_is_left_alone(there: str, tmp_path: Path) -> None:
    """Neither file is written where one of them exists; without an ending the name is completed."""
    (tmp_path / there).write_text("three years of work")
    with pytest.raises(UserError, match=rf"{there} exists already"):
        new_study(tmp_path / "mine_1")
    assert [p.name for p in tmp_path.iterdir()] == [there]
    assert [p.name for p in new_study(tmp_path / "new" / "mine_2")] == ["mine_2.toml", "mine_2.py"]
