"""`modhook check` looks whether what chooses the masks of a study chooses something, where the network needs no data."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from modhook.cli.check import check_command

STUDY = """
[study]
name = "x"
[task]
name = "{task}"
[model]
name = "{model}"
[train]
steps = 5
[masks]
steps = 5
{masks}
"""


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        ('include = ["layr1.*"]', "masks: include pattern 'layr1.*' matches no parameter (did you mean"),
        ('exclude = ["*embedding*"]', "masks: exclude pattern '*embedding*' matches no parameter"),
        ('include = ["layer1.*"]\n[sweep]\n"masks.include" = [["layer1.*"], ["nothing"]]', "'nothing' matches no parameter"),
        ('include = ["layer1.*"]\n[variants.b]\n"masks.include" = ["nothing"]', "'nothing' matches no parameter"),
        ('units = "head"', "head"),
        ('include = ["layer1.*"]', ""),
        ("lr = 0.5", ""),
    ],
)
def test_patterns_that_choose_nothing(tmp_path: Path, masks: str, said: str) -> None:
    """As it stands, in a variant, at a point of a sweep: one sentence and exit code 2; what chooses something passes."""
    file = tmp_path / "s.toml"
    file.write_text(STUDY.format(task="addmul", model="fnn", masks=masks))
    result = CliRunner().invoke(check_command, [str(file)], standalone_mode=False)
    assert result.exception is None, result.output
    assert (result.return_value, said in result.output) == (2 if said else 0, True), result.output
    assert "not looked at" not in result.output


def test_what_was_not_looked_at_is_said(tmp_path: Path) -> None:
    """A task that reads data first is not read: it is said that nobody has looked."""
    file = tmp_path / "s.toml"
    file.write_text(STUDY.format(task="cifar10", model="cnn", masks='include = ["nothing"]'))
    result = CliRunner().invoke(check_command, [str(file)], standalone_mode=False)
    assert (result.return_value, "was not looked at: the task reads its data" in result.output) == (0, True), result.output
