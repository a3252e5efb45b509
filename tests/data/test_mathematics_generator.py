"""Generated mathematics questions: the same in every run, right by sympy, and a clear word where the package is missing."""

from __future__ import annotations

import hashlib
import re
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from modhook.cli import main
from modhook.errors import DataError
from modhook_tasks.mathematics import data, generator
from modhook_tasks.mathematics.modules import MODULES, Module
from modhook_tasks.mathematics.patched import fixed

STUDIES = Path(__file__).parents[2] / "studies"
needs_package = pytest.mark.skipif(
    not generator.installed(), reason="the package mathematics_dataset is missing, the extra `mathematics`"
)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("MODHOOK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mathematics"


def without_extrapolation(module: Module) -> dict[str, str]:
    """Return the files that are generated quickly."""
    return {found: path for found, path in module.files.items() if found != "extrapolate"}


def written(folder: Path) -> dict[str, str]:
    """Return all texts of a folder by path."""
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*.txt"))}


def asked(text: str) -> list[tuple[str, str]]:
    """Return (question, answer) pairs."""
    lines = text.splitlines()
    return list(zip(lines[::2], lines[1::2], strict=True))


@needs_package
def test_two_generations_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process and two give equal texts, of the sizes asked for: a job leaves nothing behind for the next."""
    monkeypatch.setattr(generator, "CHUNK", 3)
    module = MODULES["differentiate"]
    files = without_extrapolation(module)
    for workers in (1, 2):
        generator.generate(module, files, (4, 5), tmp_path / str(workers), workers)
    first = written(tmp_path / "1")
    assert first == written(tmp_path / "2")
    assert {path: len(asked(text)) for path, text in first.items()} == {
        path: 5 if found == "interpolate" else 4 for found, path in files.items()
    }
    assert len(set(first.values())) == 4, "each set has questions of its own"


@needs_package
def test_questions_are_drawn_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second start takes the texts and the arrays from the cache; nothing but finished folders is left there."""
    module = MODULES["add_or_sub"]
    first = data.generated(module, module.files, (30, 8), 5)
    monkeypatch.setattr(generator, "generate", None)
    again = data.generated(module, module.files, (30, 8), 5)
    assert again.train["source"].tolist() == first.train["source"].tolist()
    assert [p.name for p in cache.iterdir() if "unfinished" in p.name] == []


@needs_package
def test_sums_are_right(tmp_path: Path) -> None:
    """Every answer is the sum or a difference of the two numbers of its question, as exact fractions."""
    module = MODULES["add_or_sub"]
    generator.generate(module, module.files, (40, 40), tmp_path, 1)
    for question, answer in asked("".join(written(tmp_path).values())):
        a, b = (
            Fraction(n) for n in re.findall(r"(?<![\d.])-?\d+(?:\.\d+)?", re.sub(r"(\d)-(\d)", r"\1 - \2", question))
        )
        assert Fraction(answer) in (a + b, a - b, b - a), question


@needs_package
def test_collected_terms_are_right(tmp_path: Path) -> None:
    """Question and answer are equal polynomials by sympy: the fixes of the package compute what they should."""
    import sympy

    module = MODULES["collect"]
    generator.generate(module, without_extrapolation(module), (8, 8), tmp_path, 1)
    names = {letter: sympy.Symbol(letter) for letter in "abcdefghijklmnopqrstuvwxyz"}
    pairs = asked("".join(written(tmp_path).values()))
    assert len(pairs) == 32
    for question, answer in pairs:
        terms = question.removeprefix("Collect the terms in ").removesuffix(".")
        assert sympy.expand(sympy.sympify(f"({terms}) - ({answer})", locals=names)) == 0, question


@needs_package
def test_composed_questions(tmp_path: Path) -> None:
    """A module whose questions are made of those of all areas finds them: every answer is True or False."""
    module = MODULES["is_prime_composed"]
    generator.generate(module, {"train-easy": "easy.txt"}, (12, 1), tmp_path, 1)
    pairs = asked((tmp_path / "easy.txt").read_text())
    assert len(pairs) == 12
    assert {answer for _, answer in pairs} <= {"True", "False"}


@needs_package
@pytest.mark.parametrize(
    ("change", "stages"),
    [
        (
            ["task.module=['conversion', 'is_prime']", "task.splits=['iid', 'hard_is_prime']"],
            ["unmasked", "control", "easy"],
        ),
        (["task.train=['hard']", "task.masks=['medium']"], ["unmasked", "control", "medium"]),
    ],
)
def test_studies_of_other_modules_and_difficulties(
    change: list[str], stages: list[str], tmp_path: Path, cache: Path
) -> None:
    """Smoke variants run: two modules, neither of the paper, in one network; other difficulties to train and to mask on."""
    from modhook.cube import open_cube

    wanted = [part for one in change for part in ("--set", one)]
    with pytest.raises(SystemExit) as stop:
        main(["run", str(STUDIES / "maths_add_or_sub.toml"), "--variant", "smoke", *wanted, "--out", str(tmp_path)])
    assert stop.value.code == 0
    with open_cube(tmp_path / "maths_add_or_sub-smoke.zarr") as cube:
        scores = cube["scores"]["accuracy"]
        assert [str(s) for s in scores["stage"].values] == stages
        assert bool(scores.notnull().all())


@needs_package
def test_the_installed_package_is_not_changed(tmp_path: Path) -> None:
    """The fixes exist in the generating process alone; another source than that of version 1.0.1 is refused."""
    import mathematics_dataset

    source = Path(mathematics_dataset.__file__).parent / "sample" / "polynomials.py"
    before = hashlib.sha256(source.read_bytes()).hexdigest()
    generator.generate(MODULES["sort"], {"train-easy": "easy.txt"}, (2, 2), tmp_path, 1)
    assert hashlib.sha256(source.read_bytes()).hexdigest() == before
    text = source.read_text()
    assert "np.object" not in fixed(text)
    with pytest.raises(DataError, match=r"is not version 1\.0\.1: .* install it with"):
        fixed(text.replace("dtype=np.object)", "dtype=object)", 1))


@needs_package
def test_a_failing_package_is_said(tmp_path: Path) -> None:
    """The last line of its complaint is passed on, and no process is waited for."""
    unknown = Module("comparison", "sortt")
    with pytest.raises(DataError, match="failed to generate questions: KeyError: 'sortt'"):
        generator.generate(unknown, {"train-easy": "easy.txt"}, (300, 1), tmp_path, 2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--variant", "smoke"], ["needs the package mathematics_dataset", 'pip install "modhook[mathematics]"']),
        ([], ["mathematics_dataset-v1.0.tar.gz is missing", 'task.source = "folder"', 'task.source = "generated"']),
        (["--set", 'task.source="folder"', "--set", 'task.folder="/no/such"'], ["/no/such is neither a folder"]),
        (["--set", 'task.module="add_or_subb"'], ["task.module", "add_or_sub"]),
    ],
)
def test_what_is_missing_is_said_before_training(
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """`modhook run` ends with exit code 2 and a sentence, and has written no cube and no half-made data."""
    monkeypatch.setitem(sys.modules, "mathematics_dataset", None)
    with pytest.raises(SystemExit) as stop:
        main(["run", str(STUDIES / "maths_add_or_sub.toml"), *arguments, "--out", str(tmp_path / "out")])
    _, complaint = capfd.readouterr()
    assert stop.value.code == 2
    assert "Traceback" not in complaint
    for word in words:
        assert word in " ".join(complaint.split())
    assert not (tmp_path / "out").exists()
    assert [p.name for p in cache.parent.rglob("*") if p.is_file() and p.suffix != ".lock"] == []
