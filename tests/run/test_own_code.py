"""Code beside a study, `my_task.py:MyTask`: runs without a plugin, is known by its digest, and is never taken from a cube."""

from __future__ import annotations

import hashlib
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
import torch
from torch import nn
from warm import Warm

from modhook.cube import masks_from, open_cube, weights_from
from modhook.errors import UserError
from modhook.launch.job import Job, Refused, compute
from modhook.plugin.interfaces import Tracker
from modhook.plugin.manager import plugins
from modhook.run import run_study
from modhook.run.layout import versions
from modhook.run.one import Run
from modhook.study import load, resolved
from modhook.testing import check_analysis, check_model, check_task

Modhook = Callable[..., tuple[int, str, str]]
TASK = """
import attrs
import torch
from torch.nn import functional as F

from modhook import Stage, Task
from own_helper import WIDTH, points


@attrs.frozen
class Options:
    size: int = 40


class MyTask(Task):
    Options = Options
    splits = ("all",)
    stages = (Stage("control", "all"), Stage("far", "the same, far away"))

    def shape(self):
        return {"inputs": WIDTH}

    def train_set(self, stage):
        return points(self.options.size, 1 if stage == "far" else 0)

    def test_set(self, split):
        return points(self.options.size, 2)

    def loss(self, net, batch):
        return F.cross_entropy(net(batch["x"]), batch["y"])

    def score(self, net, batch):
        return {"accuracy": (net(batch["x"]).argmax(-1) == batch["y"]).double()}
"""
HELPER = """
import torch

WIDTH = 3


def points(size, seed):
    x = torch.randn(size, WIDTH, generator=torch.Generator().manual_seed(seed))
    return {"x": x, "y": (x[:, 0] > 0).long()}
"""
NETWORK = """
import attrs
from torch import nn
from modhook import Model


def make(hidden):
    return nn.Sequential(nn.Linear(3, hidden), nn.Tanh(), nn.Linear(hidden, 2))


@attrs.frozen
class Options:
    hidden: int = 4


class Net(Model):
    Options = Options

    def build(self, shape):
        return make(self.options.hidden)


made = make(4)
"""
ANALYSIS = '''
import attrs
import numpy as np
from modhook import Analysis, Figure, Variable


@attrs.frozen
class Options:
    factor: float = 1.0


class Kept(Analysis):
    Options = Options

    def variables(self, task):
        return (Variable("own/kept", ("stage",), "float64", "kept", attrs={"table": "number"}),)

    def compute(self, run):
        return {"own/kept": self.options.factor * np.array([run.masks[s].density for s in run.stages])}


class Bars(Figure):
    """Bars of what is kept."""

    requires = ("own/kept",)

    def draw(self, cubes):
        from matplotlib.figure import Figure as Drawing

        drawing = Drawing(figsize=(2, 2))
        drawing.subplots().bar([0, 1], cubes[0]["own"]["kept"].mean("seed"))
        return drawing
'''
STUDY = """
[study]
name = "own"
[task]
name = "own_task.py:MyTask"
size = 50
[model]
name = "own_network.py:make"
hidden = 5
[train]
steps = 4
batch = 8
validate_every = 0
[masks]
steps = 4
samples = 2
lr = 0.8
[analyses]
"own_analysis.py:Kept" = { factor = 2.0 }
[run]
threads = 1
"""
FILES = {
    "own_task.py": TASK,
    "own_helper.py": HELPER,
    "own_network.py": NETWORK,
    "own_analysis.py": ANALYSIS,
    "own.toml": STUDY,
}


@pytest.fixture(autouse=True)
def _path() -> Iterator[None]:
    """Folders that were put on Python's path are taken off it, and modules forgotten."""
    before = list(sys.path)
    yield
    sys.path[:] = before
    for name in [n for n in sys.modules if n.startswith("own_")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study, its files and its finished cube."""
    folder = tmp_path_factory.mktemp("own")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    installed = plugins()
    outcome = run_study(load(folder / "own.toml", plugins=installed), folder, installed, Tracker())
    assert not outcome.failed
    assert not [p for p in folder.rglob("*.pyc") if "own_task" in p.name]
    return folder


@pytest.fixture
def place(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the current folder."""
    copy = Path(shutil.copytree(home, tmp_path / "place"))
    monkeypatch.chdir(copy)
    return copy


def test_the_numbers_are_those_of_the_files(home: Path) -> None:
    """Scores are those of the named network on the named task's data, and the analysis is computed, with the study's options."""
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(2))
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    with open_cube(home / "own.zarr") as cube:
        net.load_state_dict(weights_from(cube, seed=1))
        with torch.no_grad():
            right = (net(x).argmax(-1) == (x[:, 0] > 0).long()).double().mean()
        score = cube["scores"]["accuracy"].sel(seed=1, stage="unmasked", split="all")
        assert float(score) == pytest.approx(float(right))
        for stage in ("control", "far"):
            kept = masks_from(cube, 1, stage)
            share = sum(int(m.sum()) for m in kept.values()) / sum(m.numel() for m in kept.values())
            assert float(cube["own"]["kept"].sel(seed=1, stage=stage)) == pytest.approx(2 * share)
        assert int(cube["runs"]["Kept"].sel(seed=1)) == 1


@pytest.mark.parametrize(
    ("file", "old", "new", "text"),
    [
        ("own_task.py", 'Stage("far"', 'Stage("unmasked"', "a stage of task 'own_task.py:MyTask' is called 'unmasked'"),
        ("own_analysis.py", '("stage",)', '("where",)', "'where'"),
        ("own.toml", "threads = 1", "threads = 1\ndevice = 'coda'", "run.device: 'coda' is no device"),
    ],
    ids=["stage", "variable", "device"],
)
def test_check_finds_what_run_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modhook_run: Modhook, file: str, old: str, new: str, text: str
) -> None:
    """Stages, variables of analyses and the device are looked at by `modhook check`: it said ok, and `run` refused them."""
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        (tmp_path / name).write_text(content.replace(old, new) if name == file else content)
    found = [modhook_run(*command) for command in (("check", "own.toml"), ("run", "own.toml", "--out", "."))]
    assert [code for code, _, _ in found] == [2, 2]
    assert text in found[0][2]
    assert "Traceback" not in found[0][2] + found[1][2]


def test_the_cube_knows_every_file(home: Path) -> None:
    """Names are kept as the study has them, with the BLAKE2b of the file and of the file that it imports."""

    def digest(*names: str) -> dict[str, str]:
        return {n: hashlib.blake2b(FILES[n].encode(), digest_size=16).hexdigest() for n in sorted(names)}

    with open_cube(home / "own.zarr") as cube:
        assert cube.attrs["study"]["task"] == {"name": "own_task.py:MyTask", "size": 50}
        assert cube.attrs["code"] == {
            "own_task.py:MyTask": digest("own_task.py", "own_helper.py"),
            "own_network.py:make": digest("own_network.py"),
            "own_analysis.py:Kept": digest("own_analysis.py"),
        }


@pytest.mark.parametrize("file", ["own_task.py", "own_helper.py", "own_network.py", "own_analysis.py"])
def test_a_changed_file_is_refused(place: Path, modhook_run: Modhook, file: str) -> None:
    """A cube is continued with the files that it was computed with, and no others; one sentence names the file."""
    (place / file).write_text(FILES[file] + "\n# a word more\n")
    code, _, err = modhook_run("run", "own.toml", "--out", ".", "--set", "study.seeds=2")
    assert (code, err.count("\n")) == (2, 1)
    assert f"was computed with another {file} than the one found now" in err
    (place / file).write_text(FILES[file])
    code, out, err = modhook_run("run", "own.toml", "--out", ".", "--set", "study.seeds=2")
    assert code == 0, err
    assert "3 stages computed, 3 were there already" in out


def test_an_analysis_may_be_mended_until_a_run_has_it(place: Path, modhook_run: Modhook) -> None:
    """A new analysis that fails is mended in its file and computed; what has been computed with a file binds it."""
    late = place / "late.py"
    late.write_text(
        ANALYSIS.replace("own/kept", "late/kept")
        .replace("Kept", "Late")
        .replace("compute(self, run):", "compute(self, run):\n        1 / 0")
    )
    with (place / "own.toml").open("a") as file:
        file.write('[analyses."late.py:Late"]\n')
    code, _, err = modhook_run("run", "own.toml", "--out", ".")
    assert (code, "ZeroDivisionError" in err) == (1, True)
    assert "late.py, line 19" in err
    late.write_text(late.read_text().replace("1 / 0", "pass"))
    code, _, err = modhook_run(
        "run", "own.toml", "--out", ".", "--retry-failed", "--set", 'analyses."late.py:Late".factor=3'
    )
    assert (code, "is 1.0 there and 3.0 here" in err) == (2, True)
    code, _, err = modhook_run("run", "own.toml", "--out", ".", "--retry-failed")
    assert code == 0, err
    late.write_text(late.read_text() + "\n")
    code, _, err = modhook_run("run", "own.toml", "--out", ".")
    assert (code, "another late.py than" in err) == (2, True)


def test_analyses_and_figures_of_the_command_line(place: Path, modhook_run: Modhook) -> None:
    """`analyse`, `plot` and `report` take code that their user names; what the cube names is not theirs to run."""
    (place / "more.py").write_text(ANALYSIS.replace("own/kept", "more/kept").replace("Kept", "More"))
    code, _, err = modhook_run("analyse", "own.zarr", "more.py:More")
    assert (code, err.count("\n")) == (2, 1)
    assert "names the task 'own_task.py:MyTask'" in err
    assert "--trust" in err
    code, out, err = modhook_run("analyse", "own.zarr", "more.py:More", "--set", "factor=3", "--trust")
    assert (code, "more.py:More computed for 1 run" in out) == (0, True), err
    with open_cube("own.zarr") as cube:
        assert cube.attrs["study"]["analyses"]["more.py:More"] == {"factor": 3.0}
        assert torch.allclose(
            torch.tensor(cube["more"]["kept"].values) / 3, torch.tensor(cube["own"]["kept"].values) / 2
        )
    code, out, err = modhook_run("plot", "own.zarr", "--figure", "own_analysis.py:Bars", "--format", "svg")
    assert (code, out) == (0, f"{Path('own-figures/Bars.svg')}\n"), err
    code, _, err = modhook_run("plot", "own.zarr", "--figure", "own_analysis.py:Bras")
    assert (code, "own_analysis.py has no 'Bras' (did you mean 'Bars'?)" in err) == (2, True)
    code, _, err = modhook_run("report", "own.zarr", "--figure", "own_analysis.py:Bars")
    assert code == 0, err
    page = (place / "own-report.html").read_text()
    assert "Bars of what is kept." in page
    (place / "broken.py").write_text(
        "from modhook import Figure\nclass Bad(Figure):\n    def draw(self, cubes):\n        raise ValueError('cannot draw')\n"
    )
    code, _, err = modhook_run("report", "own.zarr", "--figure", "broken.py:Bad")
    assert (code, "Warning: the figure 'Bad' could not be drawn: " in err, "cannot draw" in err) == (0, True, True), err
    assert "own_task.py, own_helper.py" in page or "own_helper.py, own_task.py" in page
    (place / "own_network.py").write_text(NETWORK + "\n")
    code, _, err = modhook_run("analyse", "own.zarr", "inverse", "--trust")
    assert (code, "another own_network.py than" in err) == (2, True)


def _job(place: Path) -> Job:
    """Return what a worker is sent."""
    study = load(place / "own.toml")
    file, cube = str(place / "own.toml"), str(place / "own.zarr")
    return Job(resolved(study), file, None, cube, versions(), "cpu", (), 1, False, False, "token" + place.parent.name)


def test_a_worker_loads_the_same_files(place: Path, warm: Warm) -> None:
    """A process that has never seen the files takes the study from what it is sent, and has the same study."""
    (place / "job").write_bytes(pickle.dumps(_job(place)))
    code = (
        "import pickle, pathlib; from modhook.launch.job import _installed, _study; from modhook.study import resolved\n"
        f"job = pickle.loads(pathlib.Path({str(place / 'job')!r}).read_bytes())\n"
        "study = _study(job, _installed(job)); assert resolved(study) == job.table; print(study.path, type(study.task.options))"
    )
    done = warm.run("-c", code, cwd="/")
    assert (done.returncode, done.stdout) == (0, f"{place / 'own.toml'} <class 'own_task.Options'>\n"), done.stderr


def test_a_worker_with_another_file_refuses(place: Path) -> None:
    """What a worker finds is compared with what the cube was laid out for."""
    job = _job(place)
    (place / "own_network.py").write_text(NETWORK + "\n")
    answer = compute(job, Run(0, {"seed": 1}), lambda kind, text: None)
    assert (
        getattr(answer, "text", "")
        == "a worker found another own_network.py than this machine; give every worker the same files."
    )


def test_a_worker_without_the_device_refuses(place: Path) -> None:
    """It is a mistake of who asked for the device, as on a single machine, and says what to give."""
    job = attrs.evolve(_job(place), device="cuda:99", token="another device")
    answer = compute(job, Run(0, {"seed": 1}), lambda kind, text: None)
    assert isinstance(answer, Refused)
    assert answer.kind is UserError
    assert answer.text.startswith("a worker cannot use device 'cuda:99' (")
    assert answer.text.endswith("); give --device cpu or another one, or workers that have it.")


def test_namesakes_beside_two_studies(place: Path, tmp_path: Path) -> None:
    """Two studies in one process each have the files beside them, also those that their files import, as they are now."""
    other = Path(shutil.copytree(place, tmp_path / "other"))
    (other / "own_helper.py").write_text(HELPER.replace("WIDTH = 3", "WIDTH = 77"))
    for folder, width in ((place, 3), (other, 77), (place, 3)):
        task = plugins().beside(folder).load("tasks", "own_task.py:MyTask")
        assert task(task.Options()).shape() == {"inputs": width}


def test_one_class_beside_another_of_its_name(place: Path) -> None:
    """Two analyses whose names in the cube would be the same are refused, and so is a stranger's name of an installed one."""
    (place / "b.py").write_text(ANALYSIS.replace("class Kept", "class sharing(Analysis): pass\nclass Kept"))
    with (place / "own.toml").open("a") as file:
        file.write('[analyses."b.py:Kept"]\n')
    with pytest.raises(UserError, match=r"the analysis 'own_analysis.py:Kept' has that name already; rename the class"):
        load(place / "own.toml")
    (place / "own.toml").write_text(
        STUDY.replace("own_analysis.py:Kept", "b.py:sharing").replace("{ factor = 2.0 }", "{}")
    )
    with pytest.raises(UserError, match=r"the analysis 'sharing' has that name already|does not define"):
        load(place / "own.toml")


def test_the_checks_of_plugins(place: Path) -> None:
    """`modhook.testing` takes classes of such files, their names, and what makes a network."""
    check_task("own_task.py:MyTask", "own_network.py:make", {"size": 30}, {"hidden": 6})
    task = plugins().beside(place).load("tasks", "own_task.py:MyTask")
    check_task(task, "own_network.py:Net", model_options={"hidden": 6})
    check_model(lambda: nn.Linear(3, 2), task)
    check_analysis("own_analysis.py:Kept", task, "own_network.py:make", model_options={"hidden": 3})
    with pytest.raises(AssertionError, match="must be a subclass of modhook"):
        check_task("own_network.py:Net", "own_network.py:make")
    with pytest.raises(AssertionError, match="the random state does not matter"):
        check_model(lambda: plugins().beside(place).code("own_network.py:made").thing, task)


def test_a_network_plugin_in_a_file(place: Path) -> None:
    """A `modhook.Model` in a file is built for the task's shape, with its options checked."""
    (place / "own.toml").write_text(
        STUDY.replace("own_network.py:make", "own_network.py:Net").replace('"own"', '"net"')
    )
    study = load(place / "own.toml")
    assert study.model.options.hidden == 5
    assert not run_study(study, place, plugins(), Tracker()).failed
    with open_cube(place / "net.zarr") as cube:
        assert weights_from(cube, seed=1)["0.weight"].shape == (5, 3)


def test_restored_without_permission(place: Path) -> None:
    """What is restored from a cube names a task that is not imported, whatever else is asked for."""
    from modhook.study import restore

    with open_cube("own.zarr") as cube, pytest.raises(UserError, match="what a cube names is not imported"):
        restore(cube.attrs["study"])
    assert not [n for n in sys.modules if n.startswith("own_")]
