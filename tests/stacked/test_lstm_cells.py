"""The compiled LSTM cells against torch's operations in float64, on one thread and on two."""

from __future__ import annotations

import pytest
import torch

from modhook.stacked.rules import lstm_cells


@pytest.fixture(params=[1, 2])
def threads(request):
    """Run the test on this many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def _tensors(k: int, t: int, b: int, h: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    shapes = {
        "gates": (k, t, b, 4 * h), "recurrent": (k, b, 4 * h), "c": (k, b, h), "cells": (k, t, b, h), "squashed": (k, t, b, h),
        "out": (k, t, b, h),
        "d_out": (k, t, b, h), "d_h": (k, b, h), "d_c": (k, b, h), "d_gates": (k, t, b, 4 * h),
    }  # fmt: skip
    return {name: 2 * torch.randn(shape, dtype=torch.float64).to(dtype) for name, shape in shapes.items()}


@pytest.mark.parametrize("size", [(1, 1, 1, 1), (3, 4, 5, 7), (2, 3, 16, 64)])
def test_compiled_cells_equal_the_plain_ones(size: tuple[int, ...], threads: int) -> None:
    """Cells, outputs and gate gradients of every time step agree with float64 to float32's precision."""
    single, double = _tensors(*size, torch.float32), _tensors(*size, torch.float64)
    names = (
        ("gates", "recurrent", "c", "cells", "squashed", "out"),
        ("gates", "c", "cells", "squashed", "d_out", "d_h", "d_c", "d_gates"),
    )
    for tensors, dtype in ((single, torch.float32), (double, torch.float64)):
        with lstm_cells.cell_steps(dtype) as (forward, backward):
            for s in range(size[1]):
                forward(*(tensors[name] for name in names[0]))(s)
            for s in reversed(range(size[1])):
                backward(*(tensors[name] for name in names[1]))(s)
    for name, found in single.items():
        torch.testing.assert_close(
            found.double(), double[name], rtol=1e-5, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_extreme_gates_stay_finite() -> None:
    """Gates far beyond where exp overflows give 0 and 1, as torch's own squashing does."""
    tensors = _tensors(1, 1, 2, 8, torch.float32)
    tensors["gates"] = torch.full((1, 1, 2, 32), 1e4)
    tensors["gates"][..., 8:16] = -1e4  # forget everything
    with lstm_cells.cell_steps(torch.float32) as (forward, _):
        forward(*(tensors[name] for name in ("gates", "recurrent", "c", "cells", "squashed", "out")))(0)
    torch.testing.assert_close(tensors["out"], torch.full((1, 1, 2, 8), torch.tensor(1.0).tanh().item()))
