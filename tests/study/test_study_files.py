"""Study files that cannot be read, all mistakes at once, variants, `--set` and `modhook check`'s results."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modhook.errors import StudyError
from modhook.plugin.manager import KINDS, Broken, Plugins
from modhook.study import Study, check, load

Problems = Callable[..., tuple[str, ...]]
Loaded = Callable[..., Study]
Make = Callable[..., Path]


def _refused(path: str | Path, toys: Plugins) -> str:
    with pytest.raises(StudyError) as caught:
        load(path, plugins=toys)
    assert caught.value.where == str(path)
    (problem,) = caught.value.problems
    return problem


def test_file_that_cannot_be_read(tmp_path: Path, toys: Plugins) -> None:
    """A missing file, a folder, a file that is not UTF-8 and an impossible name are each said in one sentence."""
    assert _refused(tmp_path / "no.toml", toys).startswith("there is no such file")
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "scan.toml").touch()
    assert _refused(tmp_path / "near" / "scna.toml", toys).endswith(f"(did you mean '{tmp_path / 'near' / 'scan.toml'}'?)")
    assert _refused(tmp_path, toys) == "this is a folder; name the study file in it"
    assert _refused("a\0b", toys).startswith("cannot be read: ")
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'[study]\nname = "caf\xe9"\n')
    assert _refused(latin, toys) == "not UTF-8 text (at line 2); save the file as UTF-8"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[study]\nname = "x"\nseeds = = 3\n', "not valid TOML: Invalid value (at line 3, column 9)"),
        ("[study]\nseeds = 1\nseeds = 2\n", "not valid TOML: Cannot overwrite a value (at line 3, column 10)"),
        ("x = " + "[" * 5000, "tables and lists are nested too deeply; at most 50 levels are allowed"),
        ("[" + "a." * 5000 + "a]", "tables and lists are nested too deeply; at most 50 levels are allowed"),
    ],
)
def test_malformed_toml(write: Callable[[str], Path], toys: Plugins, text: str, problem: str) -> None:
    """Malformed TOML is refused with the file and the line, however it is malformed."""
    assert _refused(write(text), toys) == problem


def test_number_of_thousands_of_digits(write: Callable[[str], Path], toys: Plugins) -> None:
    """A number that Python itself refuses to read is a mistake of the file, not a crash."""
    assert _refused(write("x = " + "9" * 10_000), toys).startswith("not valid TOML: ")


def test_byte_order_mark_is_read(make: Make, toys: Plugins) -> None:
    """A file saved by an editor that writes a byte order mark is a study like any other."""
    path = make()
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load(path, plugins=toys).study.name == "toy"


def test_all_mistakes_at_once(problems: Problems) -> None:
    """Mistakes of all sections are reported together, each once, so that a file is repaired in one go."""
    found = problems(
        {
            ("study", "name"): '"../x"',
            ("task", "moed"): '"apart"',
            ("task", "size"): "true",
            ("model", "name"): '"mpl"',
            ("train", "lr"): "inf",
            ("masks", "steps"): "3.7",
            ("masks", "sampler"): '"gumbol"',
            ("analyses", "shraing"): "{}",
            ("sweep", '"masks.beta"'): "[]",
            ("trian", "steps"): "1",
            ("rubbish", "x"): "1",
        }
    )
    assert [line.partition(":")[0] for line in found] == [
        "trian",
        "rubbish",
        'sweep."masks.beta"',
        "study.name",
        "task.size",
        "task.moed",
        "model.name",
        "train.lr",
        "masks.steps",
        "analyses.shraing",
        "masks.sampler",
    ]
    assert found[0] == "trian: unknown key (did you mean 'train'?)"
    assert (
        found[1]
        == "rubbish: unknown key; valid: study, task, model, train, masks, analyses, controls, protocol, sampler, run, sweep, variants"
    )


def test_message_names_file_and_count(make: Make, toys: Plugins) -> None:
    """The error as a whole reads as a list under the file's name."""
    path = make({("masks", "steps"): "0", ("train", "lr"): "0"})
    with pytest.raises(StudyError) as caught:
        load(path, plugins=toys)
    assert str(caught.value) == (
        f"{path}: 2 mistakes\n  - train.lr: must be greater than 0, not 0.0\n  - masks.steps: must be at least 1, not 0"
    )


@pytest.mark.parametrize(
    "section", ["study", "task", "model", "train", "masks", "run", "analyses", "sweep", "variants"]
)
def test_section_that_is_no_table(write: Callable[[str], Path], toys: Plugins, section: str) -> None:
    """A section written as a value is refused by name."""
    with pytest.raises(StudyError) as caught:
        load(write(f"{section} = 3\n"), plugins=toys)
    assert any(p.startswith(f"{section}: 3 is not a table; write [") for p in caught.value.problems)


def test_key_outside_its_section(write: Callable[[str], Path], toys: Plugins) -> None:
    """A key that stands above every section is told where it belongs."""
    with pytest.raises(StudyError) as caught:
        load(write("samples = 8\n"), plugins=toys)
    assert "samples: unknown key; it belongs in [masks]" in caught.value.problems


VARIANTS = """
[variants.quick]
"train.steps" = 2_000
masks.steps = 3
[variants.quick.task]
size = 7
[variants.smoke]
"train.steps" = 20
[variants.smoke.analyses]
sharing = {}
[variants.broken]
"train.stesp" = 1
"""


def test_variant_replaces_values(loaded: Loaded) -> None:
    """Dotted keys, quoted or not, and tables of a variant replace the file's values, and nothing else."""
    quick = loaded(after=VARIANTS, variant="quick")
    assert (quick.train.steps, quick.masks.steps, quick.task.options.size) == (2000, 3, 7)
    assert (quick.variant, quick.cube_name) == ("quick", "toy-quick")
    base = loaded(after=VARIANTS)
    assert (base.train.steps, base.masks.steps, base.task.options.size) == (10, 5, 100)
    assert (base.variant, base.cube_name) == (None, "toy")
    assert "sharing" in loaded(after=VARIANTS, variant="smoke").analyses


def test_unknown_variant(problems: Problems) -> None:
    """An unknown variant lists the valid ones and the nearest."""
    assert problems(after=VARIANTS, variant="quik") == (
        "variants: unknown variant 'quik' (did you mean 'quick'?); valid variants: quick, smoke, broken",
    )
    assert problems(variant="quick") == ("variants: unknown variant 'quick'; this study has no variants",)


def test_mistake_of_a_variant_is_said_to_be_its(problems: Problems) -> None:
    """A wrong key or value that a variant brought names the variant."""
    assert problems(after=VARIANTS, variant="broken") == (
        "train.stesp: unknown key (did you mean 'steps'?) (from [variants.broken])",
    )


@pytest.mark.parametrize(
    ("after", "problem"),
    [
        ("[variants]\nquick = 3\n", "variants.quick: 3 is not a table; write [variants.quick]"),
        (
            '[variants."a/b"]\n',
            'variants."a/b": a variant\'s name must be made of letters, digits, - and _ (1 to 100 of them), not "a/b"',
        ),
    ],
)
def test_variant_in_disorder(problems: Problems, after: str, problem: str) -> None:
    """Variants that are no tables, or whose name is no file name, are refused even if they are not asked for."""
    assert problems(after=after) == (problem,)


def test_check_covers_every_variant(make: Make, toys: Plugins, tmp_path: Path) -> None:
    """`check` looks at the file as it stands and at all variants, or at those asked for."""
    path = make(after=VARIANTS)
    found = check(path, plugins=toys)
    assert [(r.variant, bool(r.problems), r.study is None) for r in found] == [
        (None, False, False),
        ("quick", False, False),
        ("smoke", False, False),
        ("broken", True, True),
    ]
    assert [r.variant for r in check(path, ["smoke"], plugins=toys)] == [None, "smoke"]
    (unread,) = check(tmp_path / "no.toml", plugins=toys)
    assert unread.study is None
    assert [p.partition(" (did you mean")[0] for p in unread.problems] == ["there is no such file"]


@pytest.mark.parametrize(
    ("override", "path", "expected"),
    [
        ("masks.steps=100", ("masks", "steps"), 100),
        ("masks.steps = 100", ("masks", "steps"), 100),
        ("masks.beta=3e-5", ("masks", "beta"), 3e-5),
        ("study.description=two words", ("study", "description"), "two words"),
        ('study.description="quoted"', ("study", "description"), "quoted"),
        ("study.description=a=b", ("study", "description"), "a=b"),
        ('masks.include=["a*"]', ("masks", "include"), ("a*",)),
        ("masks={steps=7}", ("masks", "steps"), 7),
        ("run.device=cuda", ("run", "device"), "cuda"),
    ],
)
def test_set_gives_a_value(loaded: Loaded, override: str, path: tuple[str, str], expected: object) -> None:
    """`--set` reads a TOML value, or else a plain text, and leaves the rest of the section alone."""
    study = loaded(overrides=[override])
    assert getattr(getattr(study, path[0]), path[1]) == expected
    assert study.masks.samples == 4


def test_set_comes_after_the_variant(loaded: Loaded) -> None:
    """The command line has the last word, and of two settings the later one."""
    study = loaded(after=VARIANTS, variant="quick", overrides=["train.steps=8", "train.steps=9"])
    assert (study.train.steps, study.masks.steps) == (9, 3)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("masks.stpes=1", "masks.stpes: unknown key (did you mean 'steps'?) (from --set)"),
        ("maks.steps=1", "maks: unknown key (did you mean 'masks'?) (from --set)"),
        ("masks.steps=abc", 'masks.steps: "abc" is not a whole number (from --set)'),
        ("masks.steps=", 'masks.steps: "" is not a whole number (from --set)'),
        ("masks.steps=1\nlr=3", 'masks.steps: "1\\nlr=3" is not a whole number (from --set)'),
        ("masks=3", "masks: 3 is not a table; write [masks] (from --set)"),
        ("masks.steps.x=3", "masks.steps.x: cannot be set, because masks.steps is 5 and no table (from --set)"),
        ("masks.steps", "--set masks.steps: write --set key=value, such as --set masks.steps=100"),
        ("=3", "--set =3: write --set key=value, such as --set masks.steps=100"),
        ("masks..steps=3", "--set masks..steps=3: write --set key=value, such as --set masks.steps=100"),
        ("variants.quick={}", "variants.quick: variants cannot be set (from --set)"),
        ("sweep=3", "sweep: 3 is not a table (from --set)"),
    ],
)
def test_set_that_is_wrong(problems: Problems, override: str, problem: str) -> None:
    """A wrong `--set` is reported as such, never ignored."""
    assert problems(overrides=[override]) == (problem,)


def test_unknown_plugins_list_valid_names_and_broken_ones(make: Make, toys: Plugins) -> None:
    """Unknown names carry the manager's text: valid names, the nearest, where others come from, what is broken."""
    path = make({("task", "name"): '"tow"', ("study", "protocol"): '"transfer"', ("masks", "sampler"): '"gumbol"'})
    entries = [entry for kind in KINDS for entry in toys.entries(kind)]
    plugins = Plugins(entries, [Broken("x", "bad-dist", "ImportError: no")])
    with pytest.raises(StudyError) as caught:
        load(path, plugins=plugins)
    task, protocol, sampler = caught.value.problems
    assert task.startswith(
        "task.name: unknown task 'tow' (did you mean 'toy'?); valid tasks: toy; others come with the package"
    )
    assert "plugin 'x' of bad-dist was skipped: ImportError: no" in task
    assert protocol.startswith("study.protocol: unknown protocol 'transfer'; valid protocols: posthoc")
    assert sampler.startswith("masks.sampler: unknown sampler 'gumbol' (did you mean 'gumbel'?)")


def test_plugin_that_fails(problems: Problems) -> None:
    """A plugin's own refusal, a plugin's crash, and a plugin that cannot be loaded are problems with a path."""
    assert problems({("task", "size"): "13"}) == ("task: a toy of size 13 is unlucky; choose another size",)
    (fragile,) = problems({("task", "fragile"): "true"})
    assert fragile.startswith("task: Toy fails on these options: RuntimeError: broken toy (")
    assert re.search(r"[\\/]conftest\.py, line \d+\); a mistake of its plugin$", fragile)
    (absent,) = problems({("model", "name"): '"absent"'})
    assert absent.startswith("model.name: model 'absent' of toybox cannot be loaded from ")
    (wordless,) = problems({("model", "name"): '"wordless"'})
    assert "model 'wordless' of toybox has <class 'dict'> as its Options, which must be an attrs class" in wordless


def test_crash_of_a_plugin_is_the_cause(make: Make, toys: Plugins) -> None:
    """The traceback of a plugin's author is kept, for `--debug`."""
    with pytest.raises(StudyError) as caught:
        load(make({("task", "fragile"): "true"}), plugins=toys)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_model_by_import(loaded: Loaded, problems: Problems, here: str) -> None:
    """Any importable callable can be the network; its table is its keyword arguments, checked against its signature."""
    name = f'"{here}:network"'
    study = loaded({("model", "name"): name, ("model", "width"): "3"})
    assert (study.model.name, study.model.options, study.model.is_callable) == (f"{here}:network", {"width": 3}, True)
    assert problems({("model", "name"): name, ("model", "width"): "3", ("model", "dpeth"): "1"}) == (
        "model.dpeth: unknown key (did you mean 'depth'?)",
    )
    assert problems({("model", "name"): name}) == (
        f"model: {here}:network cannot be called with these keys: missing a required argument: 'width'",
    )
    assert problems({("model", "name"): name, ("model", "width"): "inf"}) == ("model.width: inf is not finite",)


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("no_such_package.x:make", "model.name: module 'no_such_package.x' cannot be imported: ModuleNotFoundError: "),
        ("math:sine", "model.name: module 'math' has no 'sine'"),
        ("math:pi", "model.name: 'math:pi' is float and cannot be called"),
        ("math:", "model.name: 'math:' must be 'package.module:callable'"),
        ("a b:c", "model.name: 'a b:c' must be 'package.module:callable'"),
    ],
)
def test_model_by_import_that_is_not_there(problems: Problems, target: str, problem: str) -> None:
    """A module or attribute that cannot be had is a mistake of the study, found before anything runs."""
    (line,) = problems({("model", "name"): f'"{target}"'})
    assert line.startswith(problem)


def test_model_is_imported_from_the_current_directory(tmp_path: Path) -> None:
    """A network in a file of the current directory is found, as with `python -m`; a file there hides no installed package."""
    (tmp_path / "my_net.py").write_text("def make(width):\n    return width\n", encoding="utf-8")
    (tmp_path / "annotated_types.py").write_text("raise SystemExit('shadowed')\n", encoding="utf-8")
    code = (
        "import sys\nsys.path[:] = [p for p in sys.path if p]  # as in the console script, which does not add the directory"
        "\nfrom modhook.study import find_callable\nprint(find_callable('my_net:make')(3))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("3\n", "")


@pytest.mark.parametrize(
    ("what", "value", "said"),
    [
        ("splits", "iid", "splits of 'toy' must be a tuple of names, not 'iid'; write ('iid',)"),
        ("splits", None, "splits of 'toy' must be a tuple of names, not None"),
        ("splits", ("iid", 3), "splits of 'toy' must be a tuple of names, not ('iid', 3)"),
        ("metrics", "accuracy", "metrics of 'toy' must be a tuple of names, not 'accuracy'; write ('accuracy',)"),
        ("stages", None, "stages of 'toy' must be a tuple of modhook.Stage objects, not None"),
        ("stages", ("control",), "stages of 'toy' must be a tuple of modhook.Stage objects, not ('control',)"),
    ],
)
def test_labels_of_a_task_that_are_no_tuple(
    problems: Problems, toys: Plugins, monkeypatch: pytest.MonkeyPatch, what: str, value: Any, said: str
) -> None:
    """A text in the place of a tuple of texts is a mistake of the task, and not one label per letter."""
    monkeypatch.setattr(toys.load("tasks", "toy"), what, value)
    assert problems({}) == (f"task: {said}",)
