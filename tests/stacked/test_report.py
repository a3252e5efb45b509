"""`inspect` says what is maskable, how each submodule runs, and what it measured."""

from __future__ import annotations

import json

import pytest
import stacked_loops as loops
import torch
from click.testing import CliRunner
from torch import nn

from modhook.cli.inspect import inspect_command
from modhook.errors import UserError
from modhook.stacked import inspect


class Tagger(nn.Module):
    """Tied embeddings, an LSTM, a submodule that vmap cannot run, and a frozen readout."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 6)
        self.lstm = nn.LSTM(6, 6, batch_first=True)
        self.gate = Gate()
        self.head = nn.Linear(6, 9)
        self.head.weight = self.embedding.weight
        self.head.bias.requires_grad_(False)

    def forward(self, tokens):
        return self.head(self.gate(self.lstm(self.embedding(tokens))[0]))


class Gate(nn.Module):
    """Branches on a value."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        y = x * self.scale
        return y if y.sum() > 0 else -y


def test_report_names_every_part():
    """Parameters with their ties, submodules with their route, times, memory and the canary's error."""
    torch.manual_seed(0)
    model = Tagger()
    before = loops.fingerprint(model)
    report = inspect(model, torch.randint(9, (3, 5)), samples=2)
    assert before == loops.fingerprint(model)
    found = {p.name: p for p in report.parameters}
    assert found["embedding.weight"].tied == ("head.weight",)
    assert "head.weight" not in found
    assert (found["head.bias"].maskable, found["head.bias"].trained) == (True, False)
    assert sum(p.count for p in report.parameters) == sum(p.numel() for p in model.parameters())
    how = {m.name: m.how for m in report.submodules}
    assert how == {"": "vmap", "embedding": "vmap", "lstm": "rule", "gate": "island", "head": "rule"}
    assert report.route == "islands"
    assert 0 <= report.error < 1e-3
    assert set(report.milliseconds) == {"unmasked", "islands", "loop"}
    assert min(report.milliseconds.values()) > 0
    weights = sum(p.count for p in report.parameters)
    assert report.bytes["parameters"] == 2 * 4 * weights
    assert report.bytes["saved"] > 0
    assert report.to_dict() == json.loads(report.to_json())
    assert "gate" in str(report)


def test_report_of_a_looped_model():
    """Where the whole model loops, every submodule says so and the reason stands at the top."""
    report = inspect(Gate(), torch.randn(3, 5))
    assert [m.how for m in report.submodules] == ["loop"]
    assert "vmap was not admitted" in report.submodules[0].detail
    assert set(report.milliseconds) == {"unmasked", "loop"}


def test_command_prints_table_and_json():
    """The command builds the network from its name and prints the report."""
    runner = CliRunner()
    arguments = ["torch.nn:Identity", "--input", "float[3,4]"]
    told = runner.invoke(inspect_command, arguments, standalone_mode=False)
    assert told.exception is None, told.output
    assert "route: vmap" in told.output
    told = runner.invoke(inspect_command, [*arguments, "--json"], standalone_mode=False)
    assert json.loads(told.output)["route"] == "vmap"


@pytest.mark.parametrize(
    ("text", "message"),
    [("float(3)", "must look like"), ("flot[3]", r"unknown type 'flot' \(did you mean 'float'\?\)")],
)
def test_command_refuses_bad_inputs(text, message):
    """A malformed input says what one looks like."""
    result = CliRunner().invoke(inspect_command, ["torch.nn:Identity", "--input", text], standalone_mode=False)
    assert isinstance(result.exception, UserError)
    with pytest.raises(UserError, match=message):
        raise result.exception
