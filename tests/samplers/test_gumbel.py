"""The Gumbel-sigmoid sampler against the paper's formulas in float64."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import modhook
from modhook.cli import main
from modhook.cube import logits_from, open_cube, weights_from
from modhook.errors import UserError
from modhook.noise.noise import generators, uniform
from modhook.plugin.manager import plugins
from modhook.run.build import build_model, build_task
from modhook.run.data import Draw
from modhook.study import load
from modhook_plugins.samplers.gumbel import Gumbel, GumbelOptions

STUDY = """
[study]
name = "warm"
[task]
name = "addmul"
train_size = 200
valid_size = 20
[model]
name = "fnn"
hidden = [8]
[train]
steps = 2
batch = 16
[masks]
steps = 4
lr = 0.8
logits_dtype = "float32"
[sweep]
"sampler.temperature" = [0.25, 1.0]
"""


def two_uniform_path(weight: torch.Tensor, logits: torch.Tensor, noise: torch.Tensor, tau: float) -> torch.Tensor:
    """The textbook way: soft sample by log and sigmoid, hard forward, soft gradient, all through autograd."""
    soft = torch.sigmoid((logits + torch.log(noise) - torch.log1p(-noise)) / tau)
    hard = (soft > 0.5).to(soft)
    return (hard - soft.detach() + soft) * weight


@pytest.mark.parametrize("tau", [1.0, 0.5])
def test_equals_the_textbook_path(tau: float) -> None:
    """Samples and logit gradients equal the textbook path's, given the same uniform numbers."""
    torch.manual_seed(0)
    weight, logits = torch.randn(30, 20, dtype=torch.float64), 3 * torch.randn(30, 20, dtype=torch.float64)
    upstream = torch.randn(4, 30, 20, dtype=torch.float64)
    noise = uniform(logits, generators(7, "s", 4))
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    out = Gumbel(GumbelOptions(temperature=tau)).apply(weight, ours, generators(7, "s", 4))
    expected = two_uniform_path(weight, theirs, noise, tau)
    out.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


def test_weights_learn_too_when_asked() -> None:
    """A weight that requires a gradient gets the sum over samples of the upstream gradient where it was kept."""
    weight = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    logits = torch.zeros(6, 5, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(3, 6, 5, dtype=torch.float64)
    out = Gumbel().apply(weight, logits, generators(1, "s", 3))
    out.backward(upstream)
    kept = out.detach() != 0
    torch.testing.assert_close(weight.grad, (upstream * kept).sum(0))


def test_keep_frequency_is_sigmoid_of_the_logit() -> None:
    """Over many samples a weight is kept with probability sigmoid(l), within five standard errors."""
    logits = torch.linspace(-4, 4, 9, dtype=torch.float64)
    n = 40_000
    kept = (
        (Gumbel().apply(torch.ones(n, 9, dtype=torch.float64), logits.expand(n, 9), generators(3, "s", 1))[0] != 0)
        .double()
        .mean(0)
    )
    p = torch.sigmoid(logits)
    assert ((kept - p).abs() < 5 * (p * (1 - p) / n).sqrt()).all()


def test_soft_samples_have_the_two_gumbel_distribution() -> None:
    """The slope s(1-s) from one uniform has the distribution of a difference of two Gumbels (two-sample Kolmogorov-Smirnov)."""
    n = 20_000
    logits = torch.full((n,), 1.0, dtype=torch.float64, requires_grad=True)
    Gumbel().apply(torch.ones(n, dtype=torch.float64), logits, generators(5, "s", 1)).sum().backward()
    ours = logits.grad.numpy()
    random = np.random.default_rng(0)
    soft = 1 / (1 + np.exp(-(1.0 + random.gumbel(size=n) - random.gumbel(size=n))))
    theirs = soft * (1 - soft)
    grid = np.sort(np.concatenate([ours, theirs]))
    distance = (
        np.abs(np.searchsorted(np.sort(ours), grid, "right") - np.searchsorted(np.sort(theirs), grid, "right")).max()
        / n
    )
    assert distance < 1.63 * np.sqrt(2 / n)  # the 1 % critical value


@pytest.mark.parametrize("extreme", [-200.0, 200.0])
def test_extreme_logits_give_finite_gradients(extreme: float) -> None:
    """Where sigmoid under- or overflows, mask and gradient stay finite and right."""
    logits = torch.full((100,), extreme, requires_grad=True)
    out = Gumbel().apply(torch.ones(100), logits, generators(1, "s", 2))
    out.sum().backward()
    assert (out == float(extreme > 0)).float().mean() > 0.99
    assert torch.isfinite(logits.grad).all()


def test_noise_depends_on_seed_label_and_sample_only() -> None:
    """Sample k's numbers are the same whatever K, the thread count and the other samples are."""
    like = torch.empty(200, 100)
    four = uniform(like, generators(1, "add", 4))
    assert torch.equal(four[2:3], uniform(like, generators(1, "add", 4)[2:3]))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.equal(four, uniform(like, generators(1, "add", 4)))
    finally:
        torch.set_num_threads(before)
    assert not torch.equal(four, uniform(like, generators(2, "add", 4)))
    assert not torch.equal(four, uniform(like, generators(1, "mul", 4)))


def test_deterministic_mask_includes_zero() -> None:
    """Evaluation keeps l >= 0, everywhere."""
    assert Gumbel().deterministic(torch.tensor([-1e-9, 0.0, 1.0])).tolist() == [False, True, True]


def test_a_study_gives_the_temperature(tmp_path: Path) -> None:
    """`[sampler]` reaches the protocol's masks at every point of a sweep: each point equals `fit_masks` with that sampler."""
    file = tmp_path / "warm.toml"
    file.write_text(STUDY)
    with pytest.raises(SystemExit) as stop:
        main(["run", str(file), "--out", str(tmp_path)])
    assert stop.value.code == 0
    cube = open_cube(tmp_path / "warm.zarr")
    assert cube["scores"]["accuracy"].dims == ("seed", "sampler.temperature", "stage", "split")
    study = load(file)
    task = build_task(study, plugins())
    model = build_model(study, task, plugins(), 1)
    for temperature in (0.25, 1.0):
        at = {"seed": 1, "sampler.temperature": temperature}
        model.load_state_dict(weights_from(cube, **at))
        fit = modhook.fit_masks(
            model.eval(),
            Draw(task, "control", 16, 1, torch.device("cpu")),
            task.loss,
            steps=4,
            lr=0.8,
            reg_batch=16,
            sampler=Gumbel(GumbelOptions(temperature)),
            seed=1,
            label="control",
            progress=False,
        )
        stored = logits_from(cube, stage="control", **at)
        assert all(torch.equal(stored[n], logit) for n, logit in fit.logits.items())


def test_fused_kernels_say_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package triton, or without a GPU, the option says in one sentence what is missing."""
    sampler, ones = Gumbel(GumbelOptions(kernel="triton")), torch.ones(3)
    with pytest.raises(UserError, match=r'needs the package triton: pip install "modhook|is for GPUs') as said:
        sampler.apply(ones, ones, generators(0, "s", 1))
    assert "leave kernel away" in str(said.value)
    monkeypatch.delattr("modhook.noise.fused", raising=False)  # imported above, where triton is there
    monkeypatch.setitem(sys.modules, "modhook.noise.fused", None)
    with pytest.raises(UserError, match='needs the package triton: pip install "modhook'):
        sampler.apply(ones, ones, generators(0, "s", 1))
