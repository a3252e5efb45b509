"""Where a study's logits start: where its sampler starts them, unless the study says another number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modhook.cli import main
from modhook.cube import logits_from

STUDY = """
[study]
name = "start"
[task]
name = "addmul"
train_size = 500
valid_size = 50
[model]
name = "fnn"
hidden = [16]
[train]
steps = 1
batch = 32
validate_every = 0
[masks]
steps = 1
samples = 2
lr = 1e-9
logits_dtype = "float32"
"""


def start(folder: Path, more: str) -> torch.Tensor:
    """Return all logits of the control after one step too small to move them: (N,)."""
    (folder / "s.toml").write_text(STUDY + more)
    with pytest.raises(SystemExit) as stop:
        main(["run", str(folder / "s.toml"), "--out", str(folder)])
    assert stop.value.code == 0
    logits = logits_from(folder / "start.zarr", seed=1, stage="control")
    return torch.cat([values.flatten() for values in logits.values()])


@pytest.mark.parametrize(
    ("masks", "value"),
    [
        ("", 2.0),
        ('sampler = "continuous_sparsification"', 0.0),
        ('sampler = "continuous_sparsification"\ninit = 2.0', 2.0),
        ("init = -1.0", -1.0),
    ],
)
def test_logits_start_at_one_number(masks: str, value: float, tmp_path: Path) -> None:
    """The number is the sampler's own, which a study may replace, also by the number of another sampler."""
    torch.testing.assert_close(start(tmp_path, masks), torch.full((16 * (42 + 20),), value), atol=1e-6, rtol=0)


def test_edge_popup_starts_at_random(tmp_path: Path) -> None:
    """Scores of `top_k` start at random, with deviation 1 / sqrt(inputs of a unit), as in its paper: equal ones are no order."""
    scores = start(tmp_path, 'sampler = "top_k"\ndensity = 0.5')
    first = scores[: 16 * 42]
    assert len(first.unique()) > 600
    assert float(first.abs().max()) <= (3 / 42) ** 0.5 + 1e-6
    assert float(first.std()) == pytest.approx(42**-0.5, rel=0.1)
