"""Finding plugins: each on its own, a broken one named and skipped, and fatal only where it is needed."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from modhook.cli.say import say_skipped
from modhook.errors import PluginError
from modhook.plugin.hookspecs import Spec
from modhook.plugin.interfaces import Tracker
from modhook.plugin.manager import KINDS, PROJECT, SINGULAR, Entry, Plugins, plugins

Install = Callable[..., None]

GOOD = """
from modhook.plugin.hookspecs import Spec, hookimpl

@hookimpl
def modhook_trackers():
    return [Spec("{name}", "a tracker", "modhook.plugin.interfaces:Tracker")]
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution of one module, with an entry point to it, as pip would lay it out."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def _install(distribution: str, source: str, module: str | None = None) -> None:
        module = module or distribution.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        info = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[modhook]\n{module} = {module}\n", encoding="utf-8")
        monkeypatch.delitem(sys.modules, module, raising=False)

    return _install


def _found(*distributions: str) -> Plugins:
    """Return what these distributions alone bring."""
    points = entry_points(group=PROJECT)
    return plugins([p for p in points if p.dist is not None and p.dist.name in distributions])


def test_installed_plugin_is_found_by_its_entry_point(install: Install) -> None:
    """A plugin that is pip-installed beside modhook is there without any registration, first-party ones likewise."""
    install("demo-plugin", GOOD.format(name="demo"))
    found = plugins()
    entry = found.find("trackers", "demo")
    assert (entry.distribution, entry.spec.summary) == ("demo-plugin", "a tracker")
    assert found.load("trackers", "demo") is Tracker
    assert {"addmul", "scan"} <= set(found.names("tasks"))
    assert found.broken == ()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_package_at_all", "ModuleNotFoundError: No module named 'no_such_package_at_all'"),
        ("def broken(:", "SyntaxError: "),
        (
            "from modhook.plugin.hookspecs import hookimpl\n@hookimpl\ndef modhook_trakers(): return []",
            "there is no hook 'modhook_trakers' (did you mean 'modhook_trackers'?), which stands in ",
        ),
        (
            "from modhook.plugin.hookspecs import hookimpl\n@hookimpl\ndef modhook_tasks(extra): return []",
            "modhook_tasks in {file} asks for extra, but a hook is called without arguments; leave them away",
        ),
        ("def modhook_tasks(): return []", "modhook_tasks in {file} is not marked as a hook; write @modhook.hookimpl above it"),
        ("from modhook import hookimpl", "there is no hook in {file}; let the entry point name the module whose functions are"),
        (
            "from modhook.plugin.hookspecs import hookimpl\n@hookimpl\ndef modhook_tasks(): raise OSError('disk')",
            "OSError: disk",
        ),
        (
            "from modhook.plugin.hookspecs import hookimpl\n@hookimpl\ndef modhook_tasks(): return ['scan']",
            "modhook_tasks must return modhook.Spec objects, not 'scan'",
        ),
        (
            "from modhook.plugin.hookspecs import Spec, hookimpl\n@hookimpl\ndef modhook_tasks(): [Spec('a', 'x', 'y:z')]",
            "modhook_tasks returned nothing; it must return a list of modhook.Spec objects",
        ),
        (
            "from modhook.plugin.hookspecs import Spec, hookimpl\n@hookimpl\ndef modhook_tasks(): return Spec('a', 'x', 'y:z')",
            "modhook_tasks must return a list of modhook.Spec objects, not Spec(",
        ),
        (
            "from modhook.plugin.hookspecs import Spec, hookimpl\n@hookimpl\ndef modhook_tasks(): return [Spec('a b', 'x', 'y:z')]",
            "ValueError: the name of a Spec must be made of letters a to z, digits, - and _, not 'a b'",
        ),
        (
            "from modhook.plugin.hookspecs import Spec, hookimpl\n@hookimpl\ndef modhook_tasks(): return [Spec(3, 'x', 'y:z')]",
            "ValueError: the name of a Spec must be made of letters a to z, digits, - and _, not 3",
        ),
        (
            "from modhook.plugin.hookspecs import Spec, hookimpl\n@hookimpl\ndef modhook_tasks(): return [Spec('a', None, 'y:z')]",
            "ValueError: the summary of a Spec must be one line of text, not None",
        ),
        (
            "from modhook.plugin.hookspecs import Spec, hookimpl\n@hookimpl\ndef modhook_tasks(): return [Spec('a', 'x', 'y')]",
            "ValueError: target must be 'package.module:Object', not 'y'",
        ),
    ],
)
def test_broken_plugin_is_named_and_skipped(install: Install, tmp_path: Path, source: str, reason: str) -> None:
    """A plugin that cannot be imported, or whose hooks are misspelt or wrong, does not take the others with it."""
    install("bad-plugin", source)
    install("good-plugin", GOOD.format(name="good"))
    found, reason = _found("bad-plugin", "good-plugin"), reason.replace("{file}", str(tmp_path / "bad_plugin.py"))
    (broken,) = found.broken
    assert (broken.name, broken.distribution) == ("bad_plugin", "bad-plugin")
    assert broken.reason.startswith(reason)
    assert str(broken).startswith(f"plugin 'bad_plugin' of bad-plugin was skipped: {reason}")
    assert found.names("trackers") == ["good"]


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("x = 1\ny = undefined\n", 2),
        ("x = 1\ndef f(:\n", 2),
        ("from modhook.plugin.hookspecs import hookimpl\n@hookimpl\ndef modhook_tasks():\n    return [Spek()]\n", 4),
    ],
)
def test_broken_plugin_tells_the_line_of_its_author(install: Install, tmp_path: Path, source: str, line: int) -> None:
    """Whatever keeps a plugin from being found is told with the file and the line to mend."""
    install("bad-plugin", source)
    (broken,) = _found("bad-plugin").broken
    assert broken.reason.endswith(f" ({tmp_path / 'bad_plugin.py'}, line {line})")


def test_object_that_cannot_be_loaded_tells_the_line_of_its_author(install: Install, tmp_path: Path) -> None:
    """A module that fails once it is needed is told with its line, and one that is not there without a line of ours."""
    install("bad-plugin", "import math\n\nmath.sqrt(-1)\n")
    with pytest.raises(PluginError, match="ValueError: math domain error") as caught:
        Entry("trackers", Spec("t", "x", "bad_plugin:T"), "bad-plugin").load()
    assert f"({tmp_path / 'bad_plugin.py'}, line 3); repair" in str(caught.value)
    with pytest.raises(PluginError) as caught:
        Entry("trackers", Spec("t", "x", "no_such_module:T"), "bad-plugin").load()
    assert ", line " not in str(caught.value)


def test_broken_plugin_is_fatal_only_if_needed(install: Install) -> None:
    """What is found can be used; what is not found names the broken plugin, which could have brought it."""
    install("bad-plugin", "raise RuntimeError('out of order')")
    install("good-plugin", GOOD.format(name="good"))
    found = _found("bad-plugin", "good-plugin")
    assert found.load("trackers", "good") is Tracker
    with pytest.raises(PluginError, match=r"bad-plugin was skipped: RuntimeError: out of order"):
        found.find("trackers", "other")


def test_a_reason_that_was_told_is_not_told_again(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    """Once a command has said why a plugin was skipped, an unknown name only says that it was."""
    install("bad-plugin", "raise RuntimeError('out of order')")
    found = _found("bad-plugin")
    say_skipped(found)
    for known in (found, found.beside(Path())):
        with pytest.raises(PluginError) as caught:
            known.find("trackers", "other")
        assert "skipped, see above: " in str(caught.value)
        assert "out of order" not in str(caught.value)
    assert capsys.readouterr().err.count("out of order") == 1


def test_unknown_name_lists_the_valid_ones(install: Install) -> None:
    """An unknown name comes with the nearest one, all valid ones, and how to get others."""
    install("one-plugin", GOOD.format(name="progress"))
    install("two-plugin", GOOD.format(name="board"))
    with pytest.raises(PluginError) as caught:
        _found("one-plugin", "two-plugin").find("trackers", "progres")
    text = str(caught.value)
    assert text.startswith("unknown tracker 'progres' (did you mean 'progress'?); valid trackers: board, progress; ")
    assert "pip install" in text
    with pytest.raises(PluginError, match="unknown analysis 'x'; valid analyses: none; "):
        Plugins([], []).find("analyses", "x")


def test_two_plugins_of_one_name_are_an_error(install: Install) -> None:
    """Two distributions that bring the same name are both named: neither is silently preferred."""
    install("one-plugin", GOOD.format(name="same"))
    install("two-plugin", GOOD.format(name="same"))
    with pytest.raises(PluginError) as caught:
        _found("one-plugin", "two-plugin")
    for words in ("tracker 'same'", "one-plugin", "two-plugin", "uninstall one of them"):
        assert words in str(caught.value)


def test_one_name_may_be_of_several_kinds() -> None:
    """A task and an analysis may share a name; a kind and a name say which is meant."""
    spec = Spec("scan", "x", "modhook.plugin.interfaces:Tracker")
    found = Plugins([Entry("tasks", spec, "a"), Entry("trackers", spec, "b")], [])
    assert (found.find("tasks", "scan").distribution, found.find("trackers", "scan").distribution) == ("a", "b")


def test_entry_point_listed_twice_is_one_plugin() -> None:
    """An editable install can list the same entry point twice, which is no duplicate."""
    point = EntryPoint("modhook_tasks", "modhook_tasks.register", PROJECT)
    assert plugins([point, point]).names("tasks") == plugins([point]).names("tasks") != []


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("no_such_module:X", "cannot be loaded from 'no_such_module:X': ModuleNotFoundError: "),
        (
            "modhook.plugin.interfaces:Trakcer",
            "cannot be loaded from 'modhook.plugin.interfaces:Trakcer': there is no 'Trakcer' in it (did you mean 'Tracker'?); ",
        ),
        ("modhook.plugin.interfaces:Task", "must be a subclass of modhook.Tracker, but "),
        ("modhook.plugin.manager:PROJECT", "must be a subclass of modhook.Tracker, but "),
    ],
)
def test_object_that_is_not_there_or_not_of_its_kind(target: str, text: str) -> None:
    """A spec is taken at its word until it is used; then the object must exist and implement its interface."""
    found = Plugins([Entry("trackers", Spec("t", "x", target), "some-dist")], [])
    assert found.names("trackers") == ["t"]
    with pytest.raises(PluginError) as caught:
        found.load("trackers", "t")
    assert str(caught.value).startswith(f"tracker 't' of some-dist {text}")


def test_every_first_party_plugin_loads() -> None:
    """Everything that modhook itself lists can be imported and is what it says it is."""
    found = plugins()
    loaded = {kind: [entry.load() for entry in found.entries(kind)] for kind in KINDS}
    assert all(issubclass(cls, KINDS[kind]) for kind, classes in loaded.items() for cls in classes)
    assert loaded["tasks"]
    assert set(SINGULAR) == set(KINDS)


def test_finding_plugins_imports_neither_torch_nor_xarray() -> None:
    """`modhook list` is quick because specs are read without the objects behind them."""
    code = (
        "import sys; from modhook.plugin.manager import plugins; found = plugins()\n"
        "assert found.names('tasks') and not found.broken, found.broken\n"
        "print(sorted({'torch', 'xarray', 'zarr', 'matplotlib', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


MANY = """
from modhook import Analysis, Figure, Model, Spec, Tracker, hookimpl

@hookimpl
def modhook_trackers():
    return [Spec("told", "good", "many_plugin:Told"), Spec("told", "twice", "many_plugin:Told")]

@hookimpl
def modhook_models():
    return [
        Spec("gone", "not there", "many_plugin:Net"),
        Spec("half", "no build", "many_plugin:Half"),
        Spec("none", "no module", "many_plugin.networks:Net"),
        Spec("other", "of another kind", "many_plugin:Told"),
        Spec("options", "plain options", "many_plugin:Plain"),
    ]

@hookimpl
def modhook_figures():
    return [Spec("text", "a text", "many_plugin:Text"), Spec("short", "no group", "many_plugin:Short")]

class Told(Tracker): pass
class Half(Model): pass

class Plain(Model):
    Options = {"hidden": 3}
    def build(self, shape): pass

class Text(Figure):
    requires = ("mine/share")
    def draw(self, cubes): pass

class Short(Text):
    requires = ("share",)
"""
WHY = {
    "tracker told": "tracker 'told' is brought twice by many-plugin (many_plugin:Told and many_plugin:Told); rename one of them there",
    "model gone": "there is no 'Net' in it",
    "model half": "model 'half' of many-plugin does not define build, which a Model needs (many_plugin:Half)",
    "model none": "cannot be loaded from 'many_plugin.networks:Net': ModuleNotFoundError: No module named 'many_plugin.networks'",
    "model other": "must be a subclass of modhook.Model, but it is the class Told (many_plugin:Told)",
    "model options": "has {'hidden': 3} as its Options, which must be an attrs class: decorate it with @attrs.frozen",
    "figure text": "has requires = 'mine/share', a text where a tuple is wanted: write ('mine/share',)",
    "figure short": "has requires = ('share',), but variables are named 'group/variable'",
}


def test_everything_that_is_broken_is_listed(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    """`modhook list --broken` loads everything and says of each thing why it cannot be used, one line each; the exit code is 1 then."""
    import json

    from modhook.cli import main

    install("bad-plugin", "import math\nmath.sqrt(-1)\n")
    install("many-plugin", MANY)
    with pytest.raises(SystemExit) as stop:
        main(["list", "--broken", "--json"])
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert (stop.value.code, set(rows)) == (1, {"bad_plugin", *WHY})
    assert rows["bad_plugin"]["reason"].startswith("ValueError: math domain error (")
    for name, why in WHY.items():
        assert rows[name]["package"] == "many-plugin"
        assert why in rows[name]["reason"]
    with pytest.raises(SystemExit) as stop:
        main(["list", "figures", "--broken"])
    assert stop.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" [")[0] for line in lines] == ["broken:", "  bad_plugin", "  figure text", "  figure short"]
    with pytest.raises(SystemExit) as stop:
        main(["list", "studies", "--broken"])
    assert stop.value.code == 2


def test_a_class_that_lacks_something_is_said_so_where_a_study_needs_it(install: Install) -> None:
    """An installed class is looked at as one of a file is: before it is made, and with what it lacks."""
    install("many-plugin", MANY.replace('Spec("told", "twice", "many_plugin:Told")', ""))
    with pytest.raises(PluginError, match=r"model 'half' of many-plugin does not define build, which a Model needs"):
        _found("many-plugin").load("models", "half")
