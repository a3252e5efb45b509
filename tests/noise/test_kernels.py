"""The compiled noise and mask kernels against published numbers, a plain generator and the paper's formulas in float64."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import modhook
from modhook.noise.kernels import (
    BLOCK,
    LANES,
    ROUNDS,
    draw_block,
    fill,
    probabilities,
    pull_back,
    pull_back_both,
    pull_back_weights,
    run,
    sample,
)
from modhook.noise.noise import generators, keys, uniform
from modhook.noise.workspace import Workspace, take


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32 as its paper writes it, one number at a time."""
    for _ in range(ROUNDS):
        first, second = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [
            (second >> 32) ^ counter[1] ^ key[0],
            second & 0xFFFFFFFF,
            (first >> 32) ^ counter[3] ^ key[1],
            first & 0xFFFFFFFF,
        ]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return counter


def test_the_generator_gives_the_published_numbers() -> None:
    """Counter 0 under key 0 gives the known answer of seven rounds, in the plain generator and in the compiled one."""
    known = [0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48]
    assert philox([0, 0, 0, 0], [0, 0]) == known
    out = np.empty(BLOCK, np.float32)
    draw_block(np.zeros(2, np.uint32), 0, out)
    assert [out[lane * LANES] * 2**24 for lane in range(4)] == [number >> 8 for number in known]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**40), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, LANES - 1))
def test_every_block_is_the_plain_generator(number: int, k0: int, k1: int, lane: int) -> None:
    """Any block under any key holds the plain generator's numbers, also past 2^32 blocks."""
    out = np.empty(BLOCK, np.float32)
    draw_block(np.array([k0, k1], np.uint32), number, out)
    expected = philox([lane, number & 0xFFFFFFFF, number >> 32, 0], [k0, k1])
    assert [out[i * LANES + lane] for i in range(4)] == [np.float32((x >> 8) * 2.0**-24) for x in expected]


def test_probabilities_are_accurate() -> None:
    """sigmoid(l) and 1 - sigmoid(l) are right to three units in the last place of a float32, from one end to the other."""
    logits = np.linspace(-79, 40, 200_001).astype(np.float32)
    p, q = np.empty((2, logits.size), np.float32)
    probabilities(logits, p, q)
    exponential = np.exp(logits.astype(np.float64))
    assert np.abs(q * (1 + exponential) - 1).max() < 3 * 2.0**-23
    assert np.abs(p * (1 + 1 / exponential) - 1).max() < 3 * 2.0**-23


@pytest.mark.parametrize("samples", [1, 3, 4, 6, 9])
@pytest.mark.parametrize("size", [1, 7, BLOCK, BLOCK + 1, 5 * BLOCK - 3])
def test_masks_and_gradients_equal_the_formula(size: int, samples: int) -> None:
    """Masked weights and both gradients equal the paper's formulas in float64 for the same uniform numbers, in fours or alone."""
    random = np.random.default_rng(size)
    drawn = random.integers(0, 2**32, (samples, 2), dtype=np.uint32)
    w, logits = random.normal(size=(2, size)).astype(np.float32) * [[1], [3]]
    w, logits, grad = w.astype(np.float32), logits.astype(np.float32), random.normal(size=(samples, size)).astype(np.float32)
    blocks = -(-size // BLOCK)
    noise, out = np.empty((2, samples, size), np.float32)
    fill(drawn, 0, blocks, noise)
    sample(drawn, 0, blocks, w, logits, out)
    u, p = noise.astype(np.float64), 1 / (1 + np.exp(-logits.astype(np.float64)))
    with np.errstate(divide="ignore"):  # u can be 0: the logistic number is then minus infinity
        soft = 1 / (1 + np.exp(-(logits + np.log(u) - np.log1p(-u))))  # (K, N)
    np.testing.assert_array_equal(out, np.where(u > 1 - p, w, 0))
    to_logits, to_weights = np.empty((2, size), np.float32)
    pull_back(drawn, 0, blocks, w, logits, grad, to_logits)
    pull_back_weights(drawn, 0, blocks, logits, grad, to_weights)
    both = np.empty((2, size), np.float32)
    pull_back_both(drawn, 0, blocks, w, logits, grad, *both)
    np.testing.assert_array_equal(both, [to_weights, to_logits])
    np.testing.assert_allclose(to_logits, (grad * soft * (1 - soft)).sum(0) * w, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(to_weights, np.where(u > 1 - p, grad, 0).sum(0), rtol=1e-5, atol=1e-6)


def test_noise_is_uniform() -> None:
    """A million numbers of two samples pass Kolmogorov-Smirnov tests and are uncorrelated with each other and their neighbours."""
    u = uniform(torch.empty(500_000), generators(3, "s", 2)).double().numpy()  # (2, N)
    n = u.shape[1]
    for row in u:
        grid = np.arange(1, n + 1) / n
        assert np.abs(np.sort(row) - grid).max() < 1.63 / np.sqrt(n)  # the 1 % critical value
        for lag in (1, LANES, BLOCK):
            assert abs(np.corrcoef(row[:-lag], row[lag:])[0, 1]) < 4 / np.sqrt(n)
    assert abs(np.corrcoef(u)[0, 1]) < 4 / np.sqrt(n)


def test_keys_use_all_bits_and_differ_between_draws() -> None:
    """Two tensors drawn after each other get different streams, and keys fill both words."""
    sources = generators(0, "s", 4)
    drawn = np.concatenate([keys(sources) for _ in range(200)])  # (800, 2)
    assert len(np.unique(drawn, axis=0)) == 800
    ones = (drawn[..., None] >> np.arange(32, dtype=np.uint32) & 1).mean(0)  # (2, 32)
    assert np.abs(ones - 0.5).max() < 5 * 0.5 / np.sqrt(800)


def _without_large_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another system than Linux."""
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)


def _refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on address space."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)


@pytest.mark.parametrize("size", [600, 3000])
@pytest.mark.parametrize("system", [None, _without_large_pages, _refused])
def test_a_buffer_is_used_again_only_when_nothing_refers_to_it(
    size: int, system: Callable[[pytest.MonkeyPatch], None] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A workspace never hands out memory that a tensor, a view or an array still shows, in large pages and where there are none."""
    if system is not None:
        system(monkeypatch)
    workspace = Workspace()
    with workspace.active():
        first = take((size, 500), torch.float32, torch.device("cpu"))
        assert first.shape == (size, 500)
        assert first.fill_(2).sum() == 2 * first.numel()  # every place of it is its own
        address = first.data_ptr()
        view = first[3].view(-1)
        del first
        other = take((size, 500), torch.float32, torch.device("cpu"))
        assert other.data_ptr() != address
        array = other.numpy()
        there = other.data_ptr()
        del other
        third = take((size, 500), torch.float32, torch.device("cpu"))
        assert third.data_ptr() not in (address, there)
        del view, array, third
        assert take((size, 500), torch.float32, torch.device("cpu")).data_ptr() in (address, there)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_do_not_change_a_number(threads: int) -> None:
    """Every kernel gives the same bits on several threads as on one."""
    random = np.random.default_rng(0)
    drawn = random.integers(0, 2**32, (4, 2), dtype=np.uint32)
    w, logits = random.normal(size=(2, 50_001)).astype(np.float32)
    grad = random.normal(size=(4, 50_001)).astype(np.float32)
    for kernel, inputs, rows in [
        (fill, (), 4), (sample, (w, logits), 4), (pull_back, (w, logits, grad), 1), (pull_back_weights, (logits, grad), 1),
    ]:  # fmt: skip
        one, several = (np.empty((rows, 50_001) if rows > 1 else 50_001, np.float32) for _ in range(2))
        run(kernel, drawn, *inputs, one, threads=1)
        run(kernel, drawn, *inputs, several, threads=threads)
        np.testing.assert_array_equal(one, several)
    several, one = np.empty((2, 2, 50_001), np.float32)
    run(pull_back_both, drawn, w, logits, grad, *one, threads=1)
    run(pull_back_both, drawn, w, logits, grad, *several, threads=threads)
    np.testing.assert_array_equal(one, several)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12 warns of fork with threads
def test_a_forked_child_computes_alone() -> None:
    """After fork, where the parent's OpenMP threads are missing, kernels run on one thread instead of stopping the process."""
    drawn, out = np.zeros((4, 2), np.uint32), np.empty((4, 50_000), np.float32)
    run(fill, drawn, out, threads=2)
    child = os.fork()
    if child == 0:
        again = np.empty_like(out)
        run(fill, drawn, again, threads=2)
        os._exit(0 if (again == out).all() else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_stays(threads: int) -> None:
    """In a fresh process, compiled noise and cells leave torch's number of threads as it was set."""
    code = f"""
import torch; torch.set_num_threads({threads})
from modhook.noise.noise import generators, uniform
from modhook.stacked.rules.lstm_cells import cell_steps
uniform(torch.empty(300, 1000), generators(0, "s", 4)); assert torch.get_num_threads() == {threads}
with cell_steps(torch.float32) as (forward, _):
    forward(*(torch.zeros(2, *shape) for shape in ((3, 4, 20), (4, 20), (4, 5), *[(3, 4, 5)] * 3)))(0)
assert torch.get_num_threads() == {threads}
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, in which warnings are errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


_NO_PLACE = """
from numba.core import caching

def refuse(self):
    raise OSError("read-only")

for name, found in vars(caching).items():
    if isinstance(found, type) and hasattr(found, "ensure_cache_path"):
        found.ensure_cache_path = refuse
"""
_NO_SPACE = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))"  # no file may grow: a full disk
_NUMBERS = """
import numpy as np
from modhook.noise.kernels import BLOCK, draw_block
out = np.empty(BLOCK, np.float32)
draw_block(np.zeros(2, np.uint32), 0, out)
print(int(out[0] * 2**24))
"""


@pytest.mark.parametrize("refusing", [_NO_PLACE, _NO_SPACE])
def test_code_that_cannot_be_kept_is_compiled_all_the_same(refusing: str, tmp_path: Path) -> None:
    """Without a folder for compiled code, or without space in it, the numbers are the published ones, and nothing is said."""
    cache = {} if refusing is _NO_PLACE else {"NUMBA_CACHE_DIR": str(tmp_path)}
    done = _python(refusing + _NUMBERS, **cache)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{0x5F6FB709 >> 8}\n", "")


def test_kept_code_is_used_again_and_damage_is_compiled_over(tmp_path: Path) -> None:
    """A second process takes the machine code of the first; cut files are compiled again."""
    hits = _NUMBERS + "print(sum(draw_block.stats.cache_hits.values()))"
    outputs = [_python(hits, NUMBA_CACHE_DIR=str(tmp_path)).stdout.split()[1] for _ in range(2)]
    assert outputs == ["0", "1"]
    for path in tmp_path.rglob("*.nb?"):
        path.write_bytes(path.read_bytes()[:20])
    done = _python(hits, NUMBA_CACHE_DIR=str(tmp_path))
    assert (done.stdout.split(), done.stderr) == ([str(0x5F6FB709 >> 8), "0"], "")
    assert _python(hits, NUMBA_CACHE_DIR=str(tmp_path)).stdout.split()[1] == "1"


def test_code_for_one_thread_and_for_several_is_kept_apart(tmp_path: Path) -> None:
    """A function that is compiled both ways is not found as the other one: cells on one thread ran on all, or all on one."""
    (tmp_path / "twice.py").write_text(
        "import numba\n\ndef double(x):\n    for i in numba.prange(x.size):\n        x[i] *= 2\n"
    )
    code = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
import numpy as np, torch
from twice import double
from modhook.noise.kernels import compiled, spread
for made in (compiled(double), spread(double)):
    x = np.ones(8, np.float32)
    made(x)
    print(sum(made.stats.cache_hits.values()), int(x.sum()))
"""
    found = [_python(code, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2)]
    assert [done.stdout.split() for done in found] == [["0", "16"] * 2, ["1", "16"] * 2], found[0].stderr


def test_a_system_without_fork_can_import() -> None:
    """Where os has no register_at_fork (Windows), kernels are imported and run."""
    code = "import distributed, numba, torch, xarray, os; del os.register_at_fork" + _NUMBERS
    assert _python(code).stdout == f"{0x5F6FB709 >> 8}\n"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("memory", [None, 16])
def test_a_parameter_of_dimension_0_equals_the_formula(dtype: torch.dtype, memory: int | None) -> None:
    """One number under K masks: the step's loss and gradient norm are those of the paper's formula, whole and in parts."""

    class Gain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.tensor(3.0, dtype=dtype))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.gain

    model, x = Gain(), torch.arange(1.0, 5.0, dtype=dtype)
    bytes_ = None if memory is None else memory * x.element_size()
    fit = modhook.fit_masks(
        model,
        [(x,)],
        lambda m, b: m(b[0]).sum(),
        steps=1,
        samples=4,
        init=0.3,
        beta=0,
        clip=None,
        memory=bytes_,
        progress=False,
    )
    u = uniform(torch.zeros((), dtype=dtype), generators(0, "", 4)).double()  # (K,)
    p = torch.sigmoid(torch.tensor(0.3, dtype=torch.float64))
    kept, soft = u > 1 - p, p * u / (p * u + (1 - p) * (1 - u))
    assert fit.history["loss"].item() == pytest.approx(float((3 * x * kept).mean()), rel=1e-6)
    assert fit.history["gradient_norm"].item() == pytest.approx(float((3 * x * soft * (1 - soft)).mean()), rel=1e-5)
    assert fit.masks["gain"].shape == fit.logits["gain"].shape == ()
