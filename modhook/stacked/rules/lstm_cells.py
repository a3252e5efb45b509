"""What an LSTM does in one time step beside its products: by torch's operations, or compiled for float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

Step = Callable[[int], None]
Bind = Callable[..., Step]


@contextmanager
def cell_steps(dtype: torch.dtype) -> Iterator[tuple[Bind, Bind]]:
    """Give two functions that take the tensors of `forward` and `backward` and return what does time step s with them."""
    if dtype != torch.float32:
        yield _on_tensors(forward), _on_tensors(backward)
        return
    from modhook.noise import kernels

    with kernels.as_many(torch.get_num_threads()) as threads:
        from modhook.stacked.rules import lstm_kernels

        if threads == 1:
            yield _on_arrays(lstm_kernels.forward_alone), _on_arrays(lstm_kernels.backward_alone)
        else:
            yield _on_arrays(lstm_kernels.forward_step), _on_arrays(lstm_kernels.backward_step)


def _on_tensors(function: Callable[..., None]) -> Bind:
    return lambda *tensors: lambda s: function(*tensors, s)


def _on_arrays(kernel: Callable[..., None]) -> Bind:
    def bind(*tensors: Tensor) -> Step:
        arrays = [t.detach().numpy() for t in tensors]
        return lambda s: kernel(*arrays, s)

    return bind


def forward(
    gates: Tensor, recurrent: Tensor, c: Tensor, cells: Tensor, squashed: Tensor, out: Tensor, s: int
) -> None:  # fmt: skip
    """Add `recurrent` (K, B, 4H) to gates[:, s] (K, T, B, 4H), squash, and write step s of cells, tanh(cells) and outputs.

    These are (K, T, B, H). `c` (K, B, H) is the cell before step 0.
    """
    size, now = cells.shape[-1], gates[:, s].add_(recurrent)  # (K, B, 4H)
    now[..., : 2 * size].sigmoid_()
    now[..., 2 * size : 3 * size].tanh_()
    now[..., 3 * size :].sigmoid_()
    i, f, g, o = now.chunk(4, -1)  # (K, B, H) each
    torch.mul(f, cells[:, s - 1] if s else c, out=cells[:, s]).addcmul_(i, g)
    torch.tanh(cells[:, s], out=squashed[:, s])
    torch.mul(o, squashed[:, s], out=out[:, s])


def backward(
    gates: Tensor, c: Tensor, cells: Tensor, squashed: Tensor, d_out: Tensor, d_h: Tensor, d_c: Tensor,
    d_gates: Tensor, s: int,
) -> None:  # fmt: skip
    """Write the gradient of gates[:, s] before squashing into d_gates[:, s].

    `d_out` (K, T, B, H) and `d_h` (K, B, H) add up to the gradient of the step's output; `d_c` (K, B, H), the gradient of
    the step's cell, becomes that of the cell before.
    """
    i, f, g, o = gates[:, s].chunk(4, -1)  # (K, B, H) each
    d_i, d_f, d_g, d_o = d_gates[:, s].chunk(4, -1)
    tanh, d = squashed[:, s], d_out[:, s] + d_h
    torch.mul(d, tanh, out=d_o)
    d_o.addcmul_(d_o, o, value=-1).mul_(o)  # times o (1 - o)
    d_c.addcmul_(d, o).addcmul_(d * o * tanh, tanh, value=-1)  # plus d o (1 - tanh^2 c)
    torch.mul(d_c, cells[:, s - 1] if s else c, out=d_f)
    d_f.addcmul_(d_f, f, value=-1).mul_(f)  # times f (1 - f)
    torch.mul(d_c, g, out=d_i)
    d_i.addcmul_(d_i, i, value=-1).mul_(i)  # times i (1 - i)
    torch.mul(d_c, i, out=d_g)
    d_g.addcmul_(d_g * g, g, value=-1)  # times 1 - g^2
    d_c.mul_(f)
