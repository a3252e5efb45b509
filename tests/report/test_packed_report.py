"""The commands that read a cube say the same of its pack."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from modhook.cli import main
from modhook.cube import pack
from modhook.plugin.manager import plugins
from modhook.report import write_report


def test_show_plot_report_and_analyse(one: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`pack` says size and what is left out; the same tables, figures and page; `analyse` is refused in one sentence."""

    def command(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([*arguments])
        assert isinstance(stop.value.code, int)
        return stop.value.code, *capfd.readouterr()

    copy, packed = tmp_path / one.name, (tmp_path / one.name).with_suffix(".zip")
    shutil.copytree(one, copy)
    code, out, err = command("pack", str(copy))
    assert (code, err) == (0, "")
    assert re.fullmatch(rf"{re.escape(str(packed))}: \d+ kB, without weights and logits\n", out)
    assert command("pack", str(copy))[0] == 2
    assert command("pack", str(copy), "--overwrite", "--weights", "--logits")[1].endswith(" kB\n")
    assert command("pack", str(copy), "--overwrite")[0] == 0
    for arguments in (["--format", "csv"], ["--verify"]):
        assert command("show", str(packed), *arguments) == command("show", str(copy), *arguments)
    figures = [tmp_path / "figures" / c.suffix[1:] for c in (copy, packed)]
    for cube, folder in zip((copy, packed), figures, strict=True):
        assert command("plot", str(cube), "--format", "png", "--figure", "history", "--out", str(folder))[0] == 0
    names = [sorted(f.name for f in folder.iterdir()) for folder in figures]
    assert names[0] == names[1]
    assert all((figures[0] / n).read_bytes() == (figures[1] / n).read_bytes() for n in names[0])
    pages = [write_report(c, tmp_path / f"{c.suffix[1:]}.html", plugins()).read_text() for c in (copy, packed)]
    assert pages[0].replace(copy.name, packed.name) == pages[1].replace(copy.name, packed.name)
    code, _, err = command("analyse", str(packed), "random")
    assert code == 2
    assert err == (
        f"Error: {packed} is a packed cube, which is only read; give the cube that it was packed from, or unzip it into a folder first.\n"
    )


def test_a_half_finished_cube_says_how_far_it_is(one: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The note counts the stages of every run."""
    from modhook.cube import open_for_writing

    copy = tmp_path / "a.zarr"
    shutil.copytree(one, copy)
    cube = open_for_writing(copy)
    cube.forget(cube.runs()[0], ["mul"])
    with pytest.raises(SystemExit):
        main(["pack", str(copy), str(tmp_path / "b.zip")])
    assert "Note: 3 of 4 stages are done" in capfd.readouterr().err
    assert pack(copy).done == 3
