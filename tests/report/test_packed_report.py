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


def test_show_plot_report_and_analyse(
    one: Path, one_page: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """`pack` says size and what is left out; the same tables and page, and figures; `analyse` is refused in one sentence."""

    def command(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([*arguments])
        assert isinstance(stop.value.code, int)
        return stop.value.code, *capfd.readouterr()

    packed = (tmp_path / one.name).with_suffix(".zip")
    code, out, err = command("pack", str(one), str(packed))
    assert (code, err) == (0, "")
    assert re.fullmatch(rf"{re.escape(str(packed))}: \d+ kB, without weights and logits\n", out)
    assert command("pack", str(one), str(packed))[0] == 2
    assert command("pack", str(one), str(packed), "--overwrite", "--weights", "--logits")[1].endswith(" kB\n")
    assert command("pack", str(one), str(packed), "--overwrite")[0] == 0
    assert command("show", str(packed), "--format", "csv") == command("show", str(one), "--format", "csv")
    assert command("show", str(packed), "--verify")[0] == 0
    assert command("plot", str(packed), "--format", "png", "--figure", "history")[:2] == (
        0,
        f"{tmp_path / f'{packed.stem}-figures' / 'history.png'}\n",
    )
    page = write_report(packed, None, plugins())
    assert page == tmp_path / f"{packed.stem}-report.html"
    pictures = r"base64,[A-Za-z0-9+/=]+"  # matplotlib's names of clip paths are not the same every time
    said = [re.sub(pictures, "", p.read_text()) for p in (page, one_page)]
    assert said[0].replace(packed.name, one.name) == said[1]
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
