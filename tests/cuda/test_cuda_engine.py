"""Stacking, fitting and what follows, on another device than the CPU."""

from __future__ import annotations

import collections
import copy
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import modhook
from modhook.errors import CheckpointError, UserError
from modhook.network.recurrent import with_gradients
from modhook.values.moving import moved
from modhook_plugins.samplers.gumbel import Gumbel, GumbelOptions
from modhook_tasks import known

sys.path.insert(0, str(Path(__file__).parent))
import device_zoo as zoo

pytestmark = pytest.mark.filterwarnings("ignore::modhook.errors.ModhookWarning")
There = Callable[[Any], Any]


@pytest.mark.parametrize("executor", ["auto", "loop"])
@pytest.mark.parametrize("name", zoo.MAKERS)
def test_samples_are_those_of_a_plain_loop(name: str, executor: str, there: There) -> None:
    """Outputs and gradients of K stacked parameter sets are those of deep copies, one after the other, on the device."""
    net, (inputs, _) = there(zoo.made(name)[0].eval()), there(zoo.made(name)[1])
    stacked = modhook.stack(net, ((inputs[:4],), {}), samples=3, executor=executor)
    own = {n: p.detach() for n, p in net.named_parameters()}
    params = {n: torch.stack([p, 0.5 * p, -p]).requires_grad_() for n, p in own.items()}  # (3, *shape)
    xs = torch.stack([inputs[:4], inputs[4:8], inputs[8:12]])
    found = stacked(params, xs)
    (found**2).sum().backward()
    assert found.device.type == inputs.device.type
    for k in range(3):
        plain = copy.deepcopy(net)
        with torch.no_grad():
            for n, p in plain.named_parameters():
                p.copy_(params[n][k])
        with with_gradients(plain):  # cuDNN
            expected = plain(xs[k])
        (expected**2).sum().backward()
        torch.testing.assert_close(found[k].cpu(), expected.cpu(), rtol=1e-7, atol=1e-9)
        for n, p in plain.named_parameters():
            assert params[n].grad is not None
            torch.testing.assert_close(params[n].grad[k].cpu(), p.grad.cpu(), rtol=1e-7, atol=1e-9)


FITS: dict[str, tuple[str, dict[str, Any]]] = {
    **{s: ("perceptron", {"sampler": s}) for s in ("gumbel", "hard_concrete", "continuous_sparsification", "top_k")},
    **{s: ("perceptron", {"sampler": s, "density": 0.5}) for s in ("magnitude", "gradient_weight", "snip", "integrated_gradients")},
    **{name: (name, {"samples": 4}) for name in zoo.MAKERS},
    "units": ("perceptron", {"units": "neuron", "samples": 4}),
    "channels": ("images", {"units": "channel", "samples": 4}),
    "heads": ("lstm", {"units": "head", "samples": 4}),
    "density": ("perceptron", {"density": 0.3}),
    "readout": ("channels_last", {"include": "last.*"}),
    "all clipped": ("perceptron", {"clip_over": "all", "scale_regulariser": True}),
    "in chunks": ("perceptron", {"memory": 3000}),
    "among": ("perceptron", {"among": modhook.Masks({"0.weight": torch.arange(24).view(6, 4) % 2 == 0})}),
    "fixed": ("perceptron", {"fixed": modhook.Masks({"2.weight": torch.arange(36).view(6, 6) % 2 == 0})}),
    "weights": ("perceptron", {"train_weights": {"4.weight": torch.ones(3, 6, dtype=torch.bool)}}),
    "off": ("perceptron", {"off": "redrawn"}),
    "sgd": ("perceptron", {"optimizer": "sgd", "warmup": 3}),
}  # fmt: skip
ALIKE = ("top_k", "magnitude", "gradient_weight", "snip", "integrated_gradients")
"""Nothing is drawn on the device, so that a GPU's masks can be compared with the CPU's."""


@pytest.mark.parametrize("case", FITS)
def test_a_fit_is_that_of_the_cpu(case: str, there: There, device: str) -> None:
    """Logits, cuts, scores and masked outputs are those of the CPU; where numbers are drawn, on the device that draws the CPU's."""
    if device == "cuda" and case not in ALIKE:
        pytest.skip("a GPU draws numbers of its own")
    name, options = FITS[case]

    def everything(net: torch.nn.Module, batch: zoo.Batch) -> tuple[list[Tensor], list[Any]]:
        torch.manual_seed(1)
        fit = modhook.fit_masks(net, [batch], zoo.loss, steps=3, lr=0.1, progress=False, **options)
        small = fit.cut(density=0.6)
        with small.applied_to(net):
            masked = net.eval()(batch[0]).detach()
        twin = small.materialize(net)(batch[0]).detach()
        scores = modhook.evaluate(net, fit.masks, [batch, batch], lambda n, b: {"right": zoo.score(n, b)})
        curve = fit.curve([batch], zoo.score, points=2)["score"].values.tolist()
        return [*fit.logits.values(), masked.cpu(), twin.cpu()], [scores, curve, small.density]

    tensors, numbers = everything(*zoo.made(name))
    net, batch = zoo.made(name)
    found, told = everything(there(net), there(batch))
    torch.testing.assert_close(found, tensors, rtol=1e-7, atol=1e-9)
    assert told == numbers


WAITS = {
    **dict.fromkeys(("perceptron", "units", "hard_concrete", "continuous_sparsification", "top_k", "lstm", "images", "encoder"), 1),
    **dict.fromkeys(("heads", "channels", "readout", "among", "fixed", "weights", "off", "sgd"), 1),
    "all clipped": 3,  # the norms of what is scaled, of what is clipped, and the loss
}
"""How often a step reads numbers, by the case of `FITS`."""


@pytest.mark.parametrize("executor", ["auto", "loop"])
@pytest.mark.parametrize("case", WAITS)
def test_a_step_waits_twice(case: str, executor: str, there: There, pretend: Any) -> None:
    """Between records, a step asks the device twice: whether the pass wrote anything, and, at its end, for loss and norm."""
    name, options = FITS[case]
    net, batch = zoo.made(name)
    seen: list[str] = []

    def after(step: int, trainer: Any) -> bool:
        if step == 5:
            pretend.waits.clear()
        if step == 6:
            seen.extend(pretend.waits)
        return step == 6

    own = {**options, "executor": executor, "steps": 1000, "lr": 0.1, "progress": False, "callback": after}
    with pretend.counting():
        modhook.fit_masks(there(net), [there(batch)], zoo.loss, **own)
    counts = collections.Counter(wait.split()[1].rpartition(":")[0] for wait in seen)
    assert counts == {"network/guard.py": 1, "values/moving.py": WAITS[case]}, seen


@pytest.mark.parametrize("case", WAITS)
def test_a_gpu_counts_the_same_waits(case: str, there: There, device: str) -> None:
    """torch itself, asked to warn of waits, counts two in a step on a GPU."""
    if device != "cuda":
        pytest.skip("only a GPU is waited for")
    name, options = FITS[case]
    net, batch = zoo.made(name)
    seen: list[str] = []

    def after(step: int, trainer: Any) -> bool:
        torch.cuda.set_sync_debug_mode("warn" if step == 5 else "default")
        if step == 5:
            heard.clear()
        if step == 6:
            seen.extend(str(one.message) for one in heard)
        return step == 6

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            modhook.fit_masks(there(net), [there(batch)], zoo.loss, steps=1000, lr=0.1, progress=False, callback=after, **options)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    count = sum("synchronizing" in one for one in seen)
    assert count == 1 + WAITS[case], seen


def test_a_training_step_waits_once(there: There, pretend: Any) -> None:
    """Base training asks the device once per step, for loss and norm."""
    net, batch = (there(x) for x in zoo.made("images"))
    counts: list[int] = []

    def after(step: int) -> bool:
        counts.append(len(pretend.waits))
        return step == 8

    with pretend.counting():
        modhook.train(net, [batch], zoo.loss, 1000, callback=after)
    assert counts[5] - counts[4] == counts[7] - counts[6] == 1, pretend.waits


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_recurrent_layers_in_eval_mode_are_differentiated(name: str, there: There) -> None:
    """Where gradients are taken they give eval mode's outputs, and fits, rankings and a report take them."""
    net, batch = (there(x) for x in zoo.made(name))
    net = net.eval()
    with torch.no_grad():
        plain = net(batch[0])
    with with_gradients(net):
        torch.testing.assert_close(net(batch[0]).detach(), plain, rtol=1e-9, atol=1e-12)
    for options in ({"sampler": "gumbel"}, {"executor": "loop"}, {"units": "neuron"}, {"sampler": "snip", "density": 0.5}):
        assert modhook.fit_masks(net, [batch], zoo.loss, steps=2, progress=False, **options).masks is not None
    assert max(modhook.inspect(net, batch[0], samples=2).errors.values()) < 1e-9
    assert not net.training


def test_batches_of_any_strides_go_there(device: str) -> None:
    """What was expanded, cut or laid out for convolutions arrives with its values."""
    if device == "pretend":
        pytest.skip("only a GPU has pinned memory")
    images = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    for one in (torch.arange(3).expand(5, 3), torch.arange(12).view(3, 4)[:, ::2], torch.arange(9).unfold(0, 3, 1), images):
        found = moved(one, torch.device(device))
        assert found.device.type == device
        assert torch.equal(found.cpu(), one)
    assert moved(images, torch.device(device)).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("sampler", ["gumbel", "snip"])
@pytest.mark.parametrize("units", [False, True])
def test_batches_elsewhere_are_told_of(units: bool, sampler: str, there: There, device: str) -> None:
    """A network on the device and batches on the CPU are one sentence with both, in fits, training and scores, wherever torch notices."""
    if device == "cpu":
        pytest.skip("this is the CPU itself")
    net, batch = zoo.made("perceptron")
    net, told = there(net), rf"the network is on {device}:0 and the batches are on cpu; move one of them with .to\(...\)."
    own: dict[str, Any] = {"units": "neuron"} if units else {}
    with pytest.raises(UserError, match=told):
        modhook.fit_masks(net, [batch], zoo.loss, steps=2, density=0.5, sampler=sampler, progress=False, **own)
    with pytest.raises(UserError, match=told):
        modhook.evaluate(net, None, [batch], zoo.score)
    with pytest.raises(UserError, match=told):
        modhook.train(net, [batch], zoo.loss, 2)

    def brings(model: Any, batch: Any) -> Tensor:
        return zoo.loss(model, there(batch))

    assert modhook.fit_masks(net, [batch], brings, steps=1, progress=False).logits

    def two_places(model: Any, batch: Any) -> Tensor:
        return brings(model, batch) + batch[0].sum() * next(model.parameters()).sum() + batch[0] @ next(model.parameters()).T

    def full(model: Any, batch: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory on this device")

    with pytest.raises(torch.OutOfMemoryError):
        modhook.train(net, [batch], full, 2)
    both = there(batch)
    with pytest.raises(RuntimeError, match="device") as raised:  # the batch is where the network is: what torch says is all there is
        modhook.train(net, [both], lambda model, _: two_places(model, batch), 2)
    assert not isinstance(raised.value, UserError)


def test_scores_wait_once(there: There, pretend: Any) -> None:
    """`evaluate` asks the device for its numbers once, not once per batch, and once whether any tensor was written, not once per tensor."""
    net, batch = (there(x) for x in zoo.made("images"))
    with pretend.counting() as waits:
        modhook.evaluate(net, None, [batch] * 5, zoo.score)
        found = sorted(wait.split()[1].rpartition(":")[0] for wait in waits)
    assert found == ["network/guard.py", "values/moving.py"], waits
    mean = net.norm.running_mean.cpu().clone()
    net.norm.train()
    modhook.evaluate(net, None, [batch] * 2, zoo.score)
    assert torch.equal(net.norm.running_mean.cpu(), mean)


@pytest.mark.parametrize("kernel", ["usual", "triton"])
def test_a_stopped_fit_goes_on_exactly(kernel: str, there: There, device: str, tmp_path: Path) -> None:
    """A fit that was stopped and one that was not have the same logits, bit for bit, dropout on the device included."""
    if kernel == "triton" and device != "cuda":
        pytest.skip("how often a generator was drawn from is counted on GPUs alone")
    net, (inputs, labels) = zoo.made("lstm")
    if kernel == "triton":
        net = net.float()
    net, batch = there(net), there((inputs, labels))
    sampler = Gumbel(GumbelOptions(kernel=kernel))

    def fit(**more: Any) -> dict[str, Tensor]:
        fit = modhook.fit_masks(net, [batch], zoo.loss, sampler=sampler, samples=4, steps=6, lr=0.1, progress=False, **more)
        return dict(fit.logits)

    torch.manual_seed(2)
    whole = fit()
    torch.manual_seed(2)
    file, pressed = tmp_path / "fit.ckpt", []

    def press(step: int, trainer: Any) -> None:
        if step == 3 and not pressed:
            pressed.append(step)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(checkpoint=file, checkpoint_every=0, callback=press)
    assert file.exists()
    torch.randn(5, device=batch[1].device)  # somebody else draws
    torch.randn(5)
    again = fit(checkpoint=file)
    assert all(torch.equal(whole[n], again[n]) for n in whole)


def test_a_checkpoint_of_another_device_is_refused(there: There, device: str, tmp_path: Path) -> None:
    """A fit that was stopped on the CPU does not go on elsewhere with other numbers: one sentence says that the device is another."""
    if device == "cpu":
        pytest.skip("this is the CPU itself")
    net, batch = zoo.made("perceptron")
    own: dict[str, Any] = {"steps": 4, "progress": False, "checkpoint": tmp_path / "fit.ckpt", "checkpoint_every": 0}

    def press(step: int, trainer: Any) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        modhook.fit_masks(net, [batch], zoo.loss, sampler="gumbel", callback=press, **own)
    with pytest.raises(CheckpointError, match=f"device was cpu and is {device}:0.*; delete it, or give another file"):
        modhook.fit_masks(there(net), [there(batch)], zoo.loss, sampler="gumbel", **own)


def test_fits_together_are_those_one_by_one(there: There) -> None:
    """Masks of several functions that are learned together on the device are, bit for bit, those of fits of their own there."""
    net, (inputs, labels) = (there(x) for x in zoo.made("perceptron"))
    common: dict[str, Any] = {"model": net, "loss": zoo.loss, "sampler": "gumbel", "steps": 4, "lr": 0.1, "progress": False}
    every = [[(inputs, labels)], [(inputs.flip(0), labels)]]
    found = modhook.fit_masks_together([{"batches": batches} for batches in every], **common)
    for fit, batches in zip(found, every, strict=True):
        alone = modhook.fit_masks(batches=batches, **common)
        assert all(torch.equal(fit.logits[n], alone.logits[n]) for n in alone.logits)


def test_training_and_looking(there: There) -> None:
    """Base training, `inspect` and `units` run on the device; the loss of training falls."""
    net, batch = (there(x) for x in zoo.made("images"))
    history = modhook.train(net, [batch], zoo.loss, 30, lr=0.01)
    assert float(history["loss"][-1]) < float(history["loss"][0])
    assert max(modhook.inspect(net, batch[0], samples=2).errors.values()) < 1e-9
    assert "channel" in str(modhook.units(net))


def test_masks_travel(there: There, tmp_path: Path) -> None:
    """Masks that were saved on the device load on the CPU and the other way round, and give the same outputs."""
    net, batch = zoo.made("perceptron")
    far, inputs = there(net), there(batch[0])
    masks = modhook.fit_masks(far, [there(batch)], zoo.loss, steps=2, progress=False).cut(density=0.5)
    masks.save(tmp_path / "there.safetensors")
    here = modhook.Masks.load(tmp_path / "there.safetensors", net)
    here.save(tmp_path / "here.safetensors")
    back = modhook.Masks.load(tmp_path / "here.safetensors", far)
    with here.applied_to(net), back.applied_to(far):
        torch.testing.assert_close(far(inputs).detach().cpu(), net(batch[0]).detach(), rtol=1e-9, atol=1e-12)
    assert (~back).to(str(inputs.device))["0.weight"].device.type == inputs.device.type


def test_a_known_answer_is_found(there: There) -> None:
    """On the device, too, a few steps with the default sampler take most weights of other functions away and keep those of its own."""
    network = known.build("frac_prevs+hist")
    hist, model = network.functions["hist"], there(network.model)
    batches = [there(batch) for batch in hist.batches(seed=0, size=64, passes=1)]
    fit = modhook.fit_masks(model, batches, hist.loss, steps=60, lr=0.3, seed=0, progress=False)
    tests = [there(batch) for batch in hist.test_batches(128)]
    assert modhook.evaluate(model, fit.masks, tests, hist.score) > 0.9
    necessary = network.truth.necessary["hist"]
    kept = sum(int((fit.masks[n].cpu() & m).sum()) for n, m in necessary.items() if n in fit.masks)
    assert kept >= 0.9 * sum(int(m.sum()) for n, m in necessary.items() if n in fit.masks)
    assert fit.masks.density < 0.6


def test_a_study_runs_there(device: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`modhook run --device` trains, masks and scores on the device; its cube gives masks and scores."""
    from modhook.cli import main

    out = ["--out", str(tmp_path), "--device", device, "--only", "seed=1"]
    with pytest.raises(SystemExit) as stop:
        main(["run", "quickstart", "--variant", "smoke", *out])
    said = capfd.readouterr()
    assert stop.value.code == 0, said.err
    cube = modhook.open_cube(tmp_path / "quickstart-smoke.zarr")
    assert (cube["runs/status"].sel(seed=1) == 1).all()
    assert 0 < modhook.masks_from(cube, seed=1, stage="add").density <= 1


def test_a_question_is_answered_there(there: There, tmp_path: Path) -> None:
    """`ask` runs where the network is, and its masks are those of a fit."""
    net, batch = (there(x) for x in zoo.made("perceptron"))
    other = (batch[0].flip(0), batch[1])
    answer = modhook.ask(
        net, {"a": [batch], "b": [other]}, loss=zoo.loss, score=zoo.score, tests={"a": [batch], "b": [other]}, seeds=1,
        steps=3, controls=False, out=str(tmp_path / "asked.zarr"), progress=False,
    )  # fmt: skip
    assert set(answer.masks) == {("a", 1), ("b", 1)}, answer.failed
