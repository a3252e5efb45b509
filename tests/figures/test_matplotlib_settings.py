"""A user's matplotlib settings, backends and broken installations: figures stay the same, or one sentence names matplotlib."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure as MatplotlibFigure
from warm import Warm

from modhook.cube import Plan, create, open_cube
from modhook.errors import UserError
from modhook.plugin.variables import Variable
from modhook.report.drawing import draw
from modhook_plugins.figures.scan_accuracy import ScanAccuracy

SETTINGS: dict[str, dict[str, Any]] = {
    "latex": {"text.usetex": True},
    "dark": {
        "axes.facecolor": "black",
        "text.color": "white",
        "figure.facecolor": "black",
        "savefig.facecolor": "black",
    },
    "large": {
        "figure.dpi": 40,
        "font.size": 30,
        "font.family": "monospace",
        "savefig.dpi": 20,
        "figure.figsize": (1, 1),
    },
    "files": {"savefig.bbox": None, "savefig.transparent": True, "savefig.format": "pdf", "svg.fonttype": "path"},
    "numbers": {"axes.unicode_minus": False, "axes.formatter.useoffset": False, "axes.xmargin": 0.4},
    "layout": {"figure.constrained_layout.use": False, "figure.autolayout": True, "path.sketch": (9, 9, 9)},
}


class Plain:
    """A figure of somebody's that sets nothing itself."""

    def draw(self, cubes: Any) -> MatplotlibFigure:
        """A line from -1 to 1, with a name that LaTeX would refuse."""
        figure = MatplotlibFigure()
        figure.subplots().plot([-1, 1], [0, 1e4], label="accuracy_add (%)")
        figure.axes[0].set_title("accuracy_add (%)")
        return figure


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished cube of SCAN's accuracies."""
    stages, splits = ["unmasked", "control", "jump"], ["simple", "jump"]
    variables = (Variable("scores/accuracy", ("stage", "split"), "float64", "accuracy", attrs={"table": "percent"}),)
    path = tmp_path_factory.mktemp("cubes") / "scan.zarr"
    attrs = {"study": {"study": {"name": "scan"}, "task": {"name": "scan"}}}
    made = create(path, Plan(attrs, {"seed": [1]}, variables, {"scores": {"stage": stages, "split": splits}}))
    made.write("scores/accuracy", np.full((3, 2), 0.25), {"seed": 1})
    return path


@pytest.fixture
def cube(path: Path) -> xr.DataTree:
    """The cube, open."""
    return open_cube(path)


KINDS = ("png", "svg", "pdf")


@pytest.fixture(scope="module", params=[ScanAccuracy, Plain])
def figure(request: pytest.FixtureRequest, path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[bytes]]:
    """A figure, and its files where nothing is set."""
    made: Any = request.param()
    files = draw(made, [open_cube(path)], tmp_path_factory.mktemp("unset"), "a", KINDS)
    return made, [f.read_bytes() for f in files]


@pytest.mark.parametrize("settings", SETTINGS)
def test_settings_change_no_figure(
    figure: tuple[Any, list[bytes]], settings: str, cube: xr.DataTree, tmp_path: Path
) -> None:
    """Whatever stands in the user's matplotlibrc, the files are those of a machine without one; the settings stay as they are."""
    drawn, right = figure
    with mpl.rc_context(SETTINGS[settings]):
        before = {k: v for k, v in mpl.rcParams.items() if k != "backend"}
        found = [f.read_bytes() for f in draw(drawn, [cube], tmp_path, "a", KINDS)]
        assert {k: v for k, v in mpl.rcParams.items() if k != "backend"} == before
    assert found == right


def test_the_backend_is_given_back(cube: xr.DataTree, tmp_path: Path) -> None:
    """Figures that somebody draws afterwards in the same process are drawn where they wanted them."""
    with mpl.rc_context():
        mpl.rcParams["backend"] = "svg"
        draw(Plain(), [cube], tmp_path, "a", ("png",))  # type: ignore[arg-type]
        assert mpl.get_backend() == "svg"
        mpl.use("agg")


@pytest.fixture(scope="module")
def plot(path: Path, warm: Warm) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `modhook plot` in a folder, in an environment of its own; what the process is forked from has not imported matplotlib."""

    def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        rest = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"}
        told = ("--figure", "scan_accuracy", "--format", "png", "--out", ".")
        return warm.run("-m", "modhook", "plot", path, *told, cwd=folder, env=rest | environment)

    return run


@pytest.fixture(scope="module")
def right(plot: Callable[..., subprocess.CompletedProcess[str]], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file that the command draws where nothing is set."""
    folder = tmp_path_factory.mktemp("right")
    assert plot(folder).returncode == 0
    return (folder / "scan_accuracy.png").read_bytes()


@pytest.mark.parametrize("backend", ["nonsense", "gtk4agg", "module://no_such_module"])
def test_command_with_a_hostile_machine(
    backend: str, plot: Callable[..., subprocess.CompletedProcess[str]], right: bytes, tmp_path: Path
) -> None:
    """A settings file with LaTeX in it, and a backend that is not there: the command draws the same file and says nothing else."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.size: 22\nsavefig.facecolor: red\n")
    done = plot(tmp_path, MPLBACKEND=backend)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "scan_accuracy.png").read_bytes() == right


def test_a_notebook_shows_figures_afterwards(tmp_path: Path, warm: Warm) -> None:
    """A backend that asks for its name when it is imported, as a notebook's does, hears it, also where a report was drawn first."""
    (tmp_path / "inline.py").write_text(
        "import matplotlib\nfrom matplotlib.backends.backend_agg import *\nheard = matplotlib.get_backend()\n"
    )
    (tmp_path / "script.py").write_text(
        "import matplotlib.pyplot as plt\n"
        "from modhook.plotting.settings import defaults\n"
        "with defaults('x'):\n    plt.close(plt.figure())\n"
        "plt.figure()\nimport inline\nprint(inline.heard, plt.get_backend())\n"
    )
    told = os.environ | {"MPLBACKEND": "module://inline", "PYTHONPATH": str(tmp_path)}
    done = warm.run("script.py", cwd=tmp_path, env=told)
    assert (done.stdout.split(), done.stderr) == (["module://inline"] * 2, "")


def test_broken_installation_is_named(plot: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """A matplotlib that cannot be imported is no defect of modhook: one sentence names it; the report is written without figures."""
    broken = tmp_path / "broken" / "matplotlib"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text('raise ImportError("DLL load failed while importing ft2font")\n')
    done = plot(tmp_path, PYTHONPATH=str(broken.parent))
    assert done.returncode == 2
    assert done.stderr.startswith(
        "Error: matplotlib, which draws the figures, cannot be imported (ImportError: DLL load failed"
    )
    assert "pip install" in done.stderr
    assert "defect" not in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(shutil.which("latex") is not None, reason="needs a machine without LaTeX")
def test_what_matplotlib_lacks_is_named(cube: xr.DataTree, tmp_path: Path) -> None:
    """A figure that asks for LaTeX itself, on a machine without it: matplotlib's words, not a defect in modhook."""

    class Tex(Plain):
        def draw(self, cubes: Any) -> MatplotlibFigure:
            figure = super().draw(cubes)
            figure.axes[0].title.set_usetex(True)
            return figure

    with pytest.raises(UserError, match=r"matplotlib cannot draw the figure 'tex' here .*latex"):
        draw(Tex(), [cube], tmp_path, "tex", ("png",))  # type: ignore[arg-type]


def test_a_figures_own_mistake_stays_its_own(cube: xr.DataTree, tmp_path: Path) -> None:
    """What a figure does wrong is not put on matplotlib's installation, even where matplotlib notices it."""

    class Wrong(Plain):
        def draw(self, cubes: Any) -> MatplotlibFigure:
            figure = super().draw(cubes)
            figure.axes[0].plot([1, 2], [1, 2, 3])
            return figure

    with pytest.raises(ValueError, match="same first dimension"):
        draw(Wrong(), [cube], tmp_path, "wrong", ("png",))  # type: ignore[arg-type]
