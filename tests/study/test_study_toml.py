"""A resolved study written as a file means the same study."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from modhook.plugin.manager import plugins
from modhook.study import check, load, resolved
from modhook.study.toml import as_toml

STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.toml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_every_study_survives(path: Path, tmp_path: Path) -> None:
    """Every study of the repository, as published and in each variant: written, read and resolved again it is equal."""
    installed = plugins()
    for folder in (f for f in path.parent.iterdir() if f.is_dir()):  # files that a study names lie beside it
        (tmp_path / folder.name).symlink_to(folder)
    for checked in check(path, plugins=installed):
        assert checked.study is not None
        table, file = resolved(checked.study), tmp_path / "again.toml"
        file.write_text(as_toml(table, checked.variant), encoding="utf-8")
        again = load(file, variant=checked.variant, plugins=installed)
        assert resolved(again) == table
        assert again.cube_name == checked.study.cube_name


def test_clipping_that_is_off_stays_off(tmp_path: Path) -> None:
    """`clip = 0` resolves to None, whose default is 1: leaving it out would switch clipping on."""
    file = tmp_path / "s.toml"
    file.write_text(
        '[study]\nname = "x"\ndescription = "a \\"quoted\\" text\\nof two lines, \\u007f, ü, ]]> \'\'\'"\n[task]\nname = "addmul"\n'
        '[model]\nname = "fnn"\nhidden = [8]\n[train]\nsteps = 5\nclip = 0\n[masks]\nsteps = 5\n'
    )
    table = resolved(load(file))
    assert table["train"]["clip"] is None
    text = as_toml(table)
    assert tomllib.loads(text)["train"]["clip"] == 0
    file.write_text(text, encoding="utf-8")
    assert resolved(load(file)) == table
