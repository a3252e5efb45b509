"""One finished add/mul cube with every analysis of its masks, and plain ways to look at it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from modhook_tasks.addmul import AddMul, AddMulOptions

STUDY = """
[study]
name = "addmul"
[task]
name = "addmul"
train_size = 20_000
valid_size = 2_000
[model]
name = "fnn"
hidden = [70, 32, 16]
[train]
steps = 600
batch = 64
lr = 0.01
validate_every = 0
[masks]
steps = 8
samples = 2
lr = 0.5
[analyses]
sharing = {}
half_mask = {}
operation_confusion = {}
mask_images = {}
transfer_sharing = {}
random = { draws = 3 }
magnitude = {}
own_removed = { draws = 2 }
"""


def run(*arguments: str | Path) -> None:
    """Run the command line in this process; it must succeed."""
    from modhook.cli import main

    with pytest.raises(SystemExit) as stop:
        main(["run", *map(str, arguments)])
    assert stop.value.code == 0


@pytest.fixture(scope="session")
def run_study() -> Callable[..., None]:
    """`modhook run`, in this process."""
    return run


@pytest.fixture(scope="session")
def addmul_cube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished cube; its network does something, so that masks make a difference."""
    folder = tmp_path_factory.mktemp("addmul")
    (folder / "s.toml").write_text(STUDY)
    run(folder / "s.toml", "--out", folder)
    return folder / "addmul.zarr"


@pytest.fixture(scope="session")
def written_numbers() -> Callable[[dict[str, Tensor]], list[tuple[int, int, int, int]]]:
    """Return (a, b, operation, number written) of every problem of the split iid, with matrix products alone."""

    def numbers(weights: dict[str, Tensor]) -> list[tuple[int, int, int, int]]:
        data = AddMul(AddMulOptions(20_000, 2_000)).test_set("iid")
        x = torch.zeros(2_000, 42)
        problems = [
            (a, b, op) for (a, b), op in zip(data["operands"].tolist(), data["operation"].tolist(), strict=True)
        ]
        for row, (a, b, op) in enumerate(problems):
            for i, digit in enumerate((a % 10, a // 10, b % 10, b // 10)):
                x[row, 10 * i + digit] = 1
            x[row, 40 + op] = 1
        for layer in ("layer1", "layer2", "layer3"):
            x = (x @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]).relu()
        out = (x @ weights["output.weight"].T + weights["output.bias"]).view(-1, 2, 10).argmax(-1).tolist()
        return [(*p, ones + 10 * tens) for p, (ones, tens) in zip(problems, out, strict=True)]

    return numbers
