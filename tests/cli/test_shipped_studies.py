"""Studies that come with modhook are found by their names, unless a file has that name."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

from modhook.study import shipped_studies, study_file

ROOT = Path(__file__).parents[2]
Command = Callable[..., tuple[int, str, str]]


def test_every_study_is_listed(modhook_here: Command) -> None:
    """The list has every file of `studies`, with its own description and variants."""
    files = sorted((ROOT / "studies").glob("*.toml"))
    tables = {f.stem: tomllib.loads(f.read_text(encoding="utf-8")) for f in files}
    assert {s.name: (s.description, list(s.variants)) for s in shipped_studies()} == {
        name: (t["study"]["description"], list(t.get("variants", {}))) for name, t in tables.items()
    }
    code, out, err = modhook_here("list", "studies", "--json")
    assert (code, [row["name"] for row in json.loads(out)]) == (0, sorted(tables)), err
    code, out, err = modhook_here("list", "studies")
    assert code == 0, err
    assert "  quickstart " in out
    assert "[--variant smoke]" in out


def test_a_name_finds_the_shipped_study(tmp_path: Path, modhook_here: Command) -> None:
    """`check` and `run` take the name; a folder of that name is no file; what is neither says where names come from."""
    (tmp_path / "quickstart").mkdir()
    code, out, err = modhook_here("check", "quickstart", "scan")
    named = [line.partition(":")[0] for line in out.splitlines() if not line.startswith(" ")]  # below a name stands what was not looked at
    assert (code, named) == (0, ["quickstart", "scan"]), err
    code, out, err = modhook_here("run", "quickstart", "--variant", "smoke", "--only", "seed=7")
    assert (code, "the seeds of this study are 1 to 1" in err) == (2, True), err
    for command in ("check", "run"):
        code, out, err = modhook_here(command, "quikstart")
        assert (code, "there is no such file (did you mean 'quickstart'?)" in err) == (2, True), err
        code, out, err = modhook_here(command, "zebra")
        assert (code, "there is no such file; modhook list studies shows" in err) == (2, True), err


def test_a_file_of_that_name_comes_first(tmp_path: Path, modhook_here: Command) -> None:
    """A file called `scan` in the current folder is the study that is meant, whatever stands in it."""
    (tmp_path / "scan").write_text("[study]\n")
    assert study_file(Path("scan")) == Path("scan")
    assert study_file(Path("studies/scan")) == Path("studies/scan")
    code, _, err = modhook_here("check", "scan")
    assert (code, "study.name: missing" in err) == (2, True), err
    # So does the file that most people would write.
    (tmp_path / "quickstart.toml").write_text("[study]\n")
    assert study_file(Path("quickstart")) == Path("quickstart.toml")
    code, _, err = modhook_here("check", "quickstart")
    assert (code, "study.name: missing" in err) == (2, True), err
    (tmp_path / "addmul_fnn.toml").mkdir()
    assert study_file(Path("addmul_fnn")).is_file()


def test_one_variant_is_checked(modhook_here: Command) -> None:
    """`check --variant` looks at the study as published and at that variant, and names one that is not there."""
    code, out, err = modhook_here("check", "scan", "--variant", "quick")
    assert (code, out.splitlines()[0]) == (0, "scan: ok (as published, quick)"), err
    code, _, err = modhook_here("check", "scan", "--variant", "quik")
    assert (code, "did you mean 'quick'?" in err) == (2, True), err


def test_what_is_no_path() -> None:
    """A name that no file can have is left to whoever reads it."""
    assert study_file(Path("a\0b")) == Path("a\0b")


def test_check_takes_what_run_takes(modhook_here: Command) -> None:
    """`check --set` checks the study as `run --set` would run it: a right setting passes, a wrong one is said with its key."""
    code, out, err = modhook_here("check", "quickstart", "--variant", "smoke", "--set", "masks.samples=2", "--set", "masks.beta=1e-3")
    assert (code, "quickstart: ok (as published, smoke)" in out) == (0, True), err
    for setting in ("masks.samples=0", "masks.smples=2"):
        code, _, err = modhook_here("check", "quickstart", "--set", setting)
        assert (code, setting.partition("=")[0] in err, "Traceback" in err) == (2, True, False), err
