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


@pytest.mark.parametrize("tau", [1.0, 0.5])
def test_edges_of_the_logits(tau: float) -> None:
    """Logits beyond every number and of no size keep or drop their weights for certain and have a slope of 0; no number stays none."""
    inf, nan = float("inf"), float("nan")
    logits = torch.tensor([inf, -inf, nan, 3e37, -3e37, 90.0, -90.0, 0.0, -0.0, 1e-40])
    ell, w, grad = logits.clone().requires_grad_(), torch.full((10,), 2.0, requires_grad=True), torch.ones(3, 10)
    out = Gumbel(GumbelOptions(kernel="triton", temperature=tau)).apply(w, ell, generators(0, "edges", 3))
    out.backward(grad)
    assert out[:, [0, 3, 5]].unique().tolist() == [2.0]
    assert out[:, [1, 2, 4, 6]].unique().tolist() == [0.0]
    assert w.grad is not None
    assert ell.grad is not None
    assert torch.equal(w.grad, (out != 0).sum(0).float())
    assert ell.grad.isnan().nonzero().tolist() == [[2]]
    assert float(ell.grad[[0, 1, 3, 4, 5, 6]].abs().max()) < 1e-10
    u = uniform(logits, generators(0, "edges", 3))[:, 7:].double()  # (3, 3)
    soft = torch.sigmoid((u.log() - torch.log1p(-u)) / tau)
    torch.testing.assert_close(ell.grad[7:].double(), 2 * (soft * (1 - soft) / tau).sum(0), rtol=1e-5, atol=0)


@pytest.mark.parametrize("kernel", [{}, {"temperature": 0.5}])
def test_weights_that_are_off_leave_nothing(kernel: dict[str, float]) -> None:
    """A weight that is off is 0, and not -0 or what 0 times infinity would be, as on the CPU."""
    weight = torch.tensor([float("inf"), float("-inf"), float("nan"), -1.0, 1.0])
    out = Gumbel(GumbelOptions(kernel="triton", **kernel)).apply(weight, torch.full((5,), -50.0), generators(0, "off", 2))
    assert (out == 0).all()
    assert not out.signbit().any()


@pytest.mark.parametrize("tau", [0.1, 0.5, 2.0])
def test_slopes_keep_their_digits(tau: float) -> None:
    """Where a soft sample is 1 to float32's last bit its slope is still that of the formula: s (1 - s) has no digits left there."""
    logits = torch.linspace(-30, 30, 2048)
    ell = logits.clone().requires_grad_()
    Gumbel(GumbelOptions(kernel="triton", temperature=tau)).apply(torch.ones(2048), ell, generators(1, "slopes", 1)).sum().backward()
    u = uniform(logits, generators(1, "slopes", 1))[0].double().clamp(2.0**-23, 1 - 2.0**-23)
    e = torch.exp(-(logits.double() + u.log() - torch.log1p(-u)).abs() / tau)
    assert ell.grad is not None
    torch.testing.assert_close(ell.grad.double(), e / (1 + e) ** 2 / tau, rtol=1e-5, atol=1e-30)


def test_only_what_is_wanted_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen network's weights get no place for a gradient that nobody reads, nor a copy: memory is what this is for."""
    made: list[tuple[int, ...]] = []
    empty = torch.empty
    weight, logits, grad = torch.randn(30, 40).t(), torch.randn(40, 30), torch.randn(2, 40, 30)
    drawn = fused.streams(generators(0, "x", 2), weight.device)
    both = fused.gradients(drawn, weight, logits, grad, 1.0, of_weight=True, of_logits=True)
    monkeypatch.setattr(torch, "empty", lambda *shape, **more: made.append(tuple(shape[0])) or empty(*shape, **more))  # type: ignore[func-returns-value]
    alone = [
        fused.gradients(drawn, weight, logits, grad, 1.0, of_weight=w, of_logits=not w)[0 if w else 1] for w in (True, False)
    ]
    assert made == [(40, 30)] * 2
    assert all(torch.equal(one, other) for one, other in zip(alone, both, strict=True))
    assert fused.gradients(drawn, weight, logits, grad, 1.0, of_weight=False, of_logits=False) == (None, None)


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
cases = [(c, k, "i64", "i32") for c in (80, 90) for k in ("fp32", "bf16")]
# Triton makes kernels of their own for numbers of 1; sizes below 2^31 are of 32 bits.
cases += [(90, "fp16", "i32", "i32"), (90, "fp32", 1, "i32"), (90, "fp32", "i64", 1), (90, "bf16", 1, 1)]
for capability, kind, size, samples in cases:
    numbers = {n: v for n, v in (("size", size), ("samples", samples)) if v == 1}
    own = {"streams": "*i32", "weights": f"*{kind}", "logits": "*fp32", "samples": samples, "size": size}
    back = {**own, "grad": f"*{kind}", "to_logits": "*fp32", "to_weights": f"*{kind}", "tau": "fp32"}
    flags = {"LANES": 256, "ONE": True, "LOGITS": True, "WEIGHTS": True}
    for kernel, types, fixed in (
        (fused.sample, {**own, "out": f"*{kind}"}, {"LANES": 256}),
        (fused.pull_back, back, flags),
        (fused.pull_back, back, {**flags, "ONE": False, "WEIGHTS": False}),
    ):
        signature = {n: types.get(n, "constexpr") for n in kernel.arg_names} | dict.fromkeys(numbers, "constexpr")
        source = ASTSource(kernel, signature, constexprs={**fixed, **numbers})
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32))
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
