"""The fused kernels of `gumbel` for GPUs, in Triton's interpreter on the CPU: `nox -s triton`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import modhook
from modhook.errors import UserError
from modhook.noise.noise import generators, uniform
from modhook_plugins.samplers.gumbel import Gumbel, GumbelOptions

pytest.importorskip("triton", reason="triton is not installed; `nox -s triton` installs it")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("TRITON_INTERPRET=1 is not set, which `nox -s triton` does", allow_module_level=True)
from modhook.noise import fused

FUSED, USUAL = Gumbel(GumbelOptions(kernel="triton")), Gumbel()


def _both(shape: tuple[int, ...], samples: int) -> list[list[Tensor]]:
    """Return masked weights and both gradients of the fused and of the CPU's kernels, from the same generators."""
    torch.manual_seed(0)
    weight, logits, grad = torch.randn(shape), 3 * torch.randn(shape), torch.randn(samples, *shape)
    found = []
    for sampler in (FUSED, USUAL):
        w, ell = weight.clone().requires_grad_(), logits.clone().requires_grad_()
        out = sampler.apply(w, ell, generators(0, "same", samples))
        out.backward(grad)
        assert w.grad is not None
        assert ell.grad is not None
        found.append([out.detach(), w.grad, ell.grad])
    return found


@pytest.mark.parametrize("shape", [(1,), (3, 5), (1023,), (1024,), (1025,), (4, 3, 11, 23), (0,)])
@pytest.mark.parametrize("samples", [1, 3])
def test_masks_are_those_of_the_cpu(shape: tuple[int, ...], samples: int) -> None:
    """With the CPU's keys the masks are those of the compiled kernels, bit for bit; gradients agree to rounding."""
    one, other = _both(shape, samples)
    assert torch.equal(one[0], other[0])
    torch.testing.assert_close(one[1:], other[1:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tau", [1.0, 0.5, 2.0])
def test_masks_and_gradients_are_their_formulas(tau: float) -> None:
    """Masks and gradients are those of the formulas in float64, also for logits at which p or q is nothing in float32."""
    torch.manual_seed(1)
    weight = torch.randn(2, 700)
    logits = torch.cat([3 * torch.randn(1, 700), torch.linspace(-60, 60, 700)[None]])
    grad = torch.randn(4, 2, 700)
    w, ell = weight.clone().requires_grad_(), logits.clone().requires_grad_()
    found = Gumbel(GumbelOptions(kernel="triton", temperature=tau)).apply(w, ell, generators(2, "formula", 4))
    found.backward(grad)
    u = uniform(logits, generators(2, "formula", 4)).double().clamp(2.0**-23, 1 - 2.0**-23)
    soft = torch.sigmoid((logits.double() + u.log() - torch.log1p(-u)) / tau)
    kept = u > torch.sigmoid(-logits.double())
    assert torch.equal(found.detach() != 0, kept)
    assert ell.grad is not None
    assert w.grad is not None
    torch.testing.assert_close(ell.grad.double(), (grad * soft * (1 - soft) / tau).sum(0) * weight, rtol=2e-4, atol=1e-6)
    torch.testing.assert_close(w.grad, (grad * kept).sum(0))


def test_gradients_of_one_alone() -> None:
    """Where only logits, or only weights, need a gradient, it is the same as where both do."""
    (_, to_weight, to_logits), _ = _both((40, 30), 2)
    torch.manual_seed(0)
    weight, logits, grad = torch.randn(40, 30), 3 * torch.randn(40, 30), torch.randn(2, 40, 30)
    for of in ("weight", "logits"):
        w, ell = weight.clone().requires_grad_(of == "weight"), logits.clone().requires_grad_(of == "logits")
        FUSED.apply(w, ell, generators(0, "same", 2)).backward(grad)
        assert torch.equal(w.grad if of == "weight" else ell.grad, to_weight if of == "weight" else to_logits)  # type: ignore[arg-type]


def test_skipping_draws_as_much() -> None:
    """After `skip` the next masks are those that follow `apply`: weights that are masked layer by layer depend on it."""
    weight, logits = torch.ones(50, 40), torch.zeros(50, 40)
    one, other = generators(3, "skip", 2), generators(3, "skip", 2)
    FUSED.apply(weight, logits, one)
    FUSED.skip(weight, logits, other)
    assert torch.equal(FUSED.apply(weight, logits, one), FUSED.apply(weight, logits, other))


def test_half_precision_weights() -> None:
    """Weights of bfloat16 keep their type, with the masks of float32; transposed weights keep their places."""
    weight = torch.randn(30, 40).bfloat16()
    out = FUSED.apply(weight, torch.zeros(30, 40), generators(0, "half", 2))
    plain = FUSED.apply(torch.ones(30, 40), torch.zeros(30, 40), generators(0, "half", 2))
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, weight * plain.bfloat16())
    turned = FUSED.apply(weight.t(), torch.zeros(40, 30), generators(0, "half", 2))
    again = FUSED.apply(weight.t().contiguous(), torch.zeros(40, 30), generators(0, "half", 2))
    assert torch.equal(turned, again)


def test_draws_of_a_gpu_follow_the_law() -> None:
    """With keys and counters as a GPU's generators give them, P(kept) = sigmoid(l), and samples and draws are independent."""
    grid, rows, big = torch.linspace(-3, 3, 7), 800, 2**40
    ones, logits = torch.ones(rows, 7), grid.repeat(rows, 1)
    draws = [[(seed, draw) for seed in (5, 6, 2**63 - 1)] for draw in (0, 1, big, big + 1)]
    masks = torch.stack([fused.masked(fused.counters(d), ones, logits) for d in draws]).double()  # (draws, K, rows, 7)
    p = torch.sigmoid(grid.double())
    n = masks[..., 0].numel()
    assert ((masks.mean((0, 1, 2)) - p).abs() < 5 * (p * (1 - p) / n).sqrt()).all()
    flat = ((masks - p) / (p * (1 - p)).sqrt()).reshape(12, -1)  # (draws x K, weights)
    together = flat @ flat.T / flat.shape[1] - torch.eye(12, dtype=torch.float64)
    assert float(together.fill_diagonal_(0).abs().max()) < 5 / flat.shape[1] ** 0.5
    assert torch.equal(fused.masked(fused.counters(draws[2]), ones, logits).double(), masks[2])


def test_counters_are_seed_and_draw() -> None:
    """The 64 bits of seed and draw are the four words of a stream, lower halves first."""
    words = fused.counters([(0x1234567890ABCDEF, 0xFEDCBA0987654321)])
    assert [n % 2**32 for n in words[0].tolist()] == [0x90ABCDEF, 0x12345678, 0x87654321, 0xFEDCBA09]


class _Stop(Exception):
    pass


def test_a_stopped_fit_goes_on_exactly(tmp_path: Path) -> None:
    """A fit with the fused kernels that was stopped has the logits of one that was not, bit for bit, and the CPU's masks."""
    torch.manual_seed(0)
    net, batch = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), (torch.randn(16, 4), torch.randn(16, 3))

    def loss(net: Any, batch: Any) -> Tensor:
        return (net(batch[0]) - batch[1]).square().mean()

    def fit(sampler: Any, **more: Any) -> modhook.Fit:
        return modhook.fit_masks(net, [batch], loss, sampler=sampler, samples=2, steps=5, lr=0.1, progress=False, **more)

    def stop(step: int, trainer: Any) -> None:
        if step == 3:
            raise _Stop

    with pytest.warns(modhook.errors.ModhookWarning):
        whole = fit(FUSED)
    with pytest.raises(_Stop):
        fit(FUSED, checkpoint=tmp_path / "f", checkpoint_every=0, callback=stop)
    with pytest.warns(modhook.errors.ModhookWarning):
        again, usual = fit(FUSED, checkpoint=tmp_path / "f"), fit(USUAL)
    assert all(torch.equal(whole.logits[n], again.logits[n]) for n in whole.logits)
    torch.testing.assert_close(dict(whole.logits), dict(usual.logits), rtol=1e-4, atol=1e-5)


def test_what_it_is_not_for() -> None:
    """Weights of float64 and devices without Triton are refused in one sentence."""
    with pytest.raises(UserError, match="draws for float32 logits"):
        FUSED.apply(torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), generators(0, "x", 1))
    with pytest.raises(UserError, match="is for GPUs, and these weights are on meta"):
        FUSED.apply(torch.ones(3, device="meta"), torch.zeros(3, device="meta"), generators(0, "x", 1))


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from modhook.noise import fused
for capability in (80, 90):
    for kind in ("fp32", "bf16"):
        own = {"streams": "*i32", "weights": f"*{kind}", "logits": "*fp32", "samples": "i32", "size": "i64"}
        back = {**own, "grad": f"*{kind}", "to_logits": "*fp32", "to_weights": f"*{kind}", "tau": "fp32"}
        flags = {"LANES": 256, "ONE": True, "LOGITS": True, "WEIGHTS": True}
        for kernel, types, fixed in (
            (fused.sample, {**own, "out": f"*{kind}"}, {"LANES": 256}),
            (fused.pull_back, back, flags),
            (fused.pull_back, back, {**flags, "ONE": False, "WEIGHTS": False}),
        ):
            names = kernel.arg_names
            signature = {n: types.get(n, "constexpr") for n in names}
            made = triton.compile(ASTSource(kernel, signature, constexprs=fixed), target=GPUTarget("cuda", capability, 32))
            assert made.asm["cubin"]
            assert "mul.hi.u32" in made.asm["ptx"]
"""


def test_it_compiles_for_gpus(tmp_path: Path) -> None:
    """Triton makes machine code of all kernels for two generations of GPUs, which needs none."""
    environment = {n: v for n, v in os.environ.items() if n != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    file = tmp_path / "compile.py"
    file.write_text(COMPILE)
    done = subprocess.run([sys.executable, str(file)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
