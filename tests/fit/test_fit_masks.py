"""fit_masks against a plain loop over K on copies of the network, and its behaviour at the edges."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from one_by_one import Heard
from torch import Tensor, nn
from torch.nn import functional as F

import modhook
from modhook import Masks
from modhook.errors import MaskError, PatternError, RunError, UserError
from modhook.fit.arguments import bytes_of
from modhook.noise.noise import generators, uniform


def loss(net: Any, batch: dict[str, Tensor]) -> Tensor:
    """Cross-entropy of a classifier."""
    return F.cross_entropy(net(batch["x"]), batch["y"])


def batches(
    count: int, size: int = 8, inputs: int = 4, classes: int = 3, dtype: torch.dtype = torch.float32
) -> list[dict[str, Tensor]]:
    """Random classification batches."""
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "x": torch.randn(size, inputs, generator=generator, dtype=torch.float64).to(dtype),
            "y": torch.randint(classes, (size,), generator=generator),
        }
        for _ in range(count)
    ]


def heard(caught: Any) -> list[str]:
    """What was warned of, but for what such short fits are not to be trusted for."""
    return [str(w.message) for w in caught if not issubclass(w.category, modhook.TrustWarning)]


class Recurrent(nn.Module):
    """A stock two-layer LSTM with a readout."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 5, 2, batch_first=True)
        self.out = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 12) as 4 steps of 3 -> (B, 3)."""
        return self.out(self.lstm(x.unflatten(1, (4, 3)))[0][:, -1])


def reference_fit(
    model: nn.Module,
    data: list[dict[str, Tensor]],
    samples: int,
    lr: float,
    beta: float,
    clip: float,
    label: str,
    scaled: bool = False,
    start: float | None = None,
) -> dict[str, Tensor]:
    """The method of the paper written plainly: deepcopies, a loop over K, autograd through log and sigmoid, textbook Adam."""
    names = [n for n, _ in model.named_parameters() if "bias" not in n]
    weights = {n: p.detach() for n, p in model.named_parameters()}
    logits = {n: torch.full_like(weights[n], 2.0) for n in names}
    first = {n: torch.zeros_like(logit) for n, logit in logits.items()}
    second = {n: torch.zeros_like(logit) for n, logit in logits.items()}
    noise_sources = generators(0, label, samples)
    norms: dict[str, list[float]] = {n: [] for n in names}
    for t, batch in enumerate(data, 1):
        leaves = {n: logit.clone().requires_grad_() for n, logit in logits.items()}
        noise = {n: uniform(logit, noise_sources) for n, logit in logits.items()}
        size = len(batch["y"]) // samples
        total = torch.zeros((), dtype=weights[names[0]].dtype)
        for k in range(samples):
            part = {key: value[k * size : (k + 1) * size] for key, value in batch.items()}
            twin = copy.deepcopy(model)
            for n in names:
                u = noise[n][k]
                soft = torch.sigmoid(leaves[n] + torch.log(u) - torch.log1p(-u))
                masked = ((soft > 0.5).to(soft) - soft.detach() + soft) * weights[n]
                owner, _, attribute = n.rpartition(".")
                module = twin.get_submodule(owner)
                delattr(module, attribute)
                setattr(module, attribute, masked)
                if isinstance(module, nn.LSTM):
                    module._flat_weights = [getattr(module, w) for w in module._flat_weights_names]
            total = total + loss(twin, part)
        share = dict.fromkeys(names, 1.0)
        if scaled:
            for n, g in zip(
                names, torch.autograd.grad(total / samples, [*leaves.values()], retain_graph=True), strict=True
            ):
                norms[n].append(float((g**2).sum()) ** 0.5)
            recent = {n: sum(norms[n][-11:]) / len(norms[n][-11:]) for n in names}
            share = {n: max(1e-4, recent[n] * len(names) / sum(recent.values())) for n in names}
        pull = sum(share[n] * leaf.sum() for n, leaf in leaves.items())
        now = beta if start is None else start * (beta / start) ** ((t - 1) / (len(data) - 1))
        total = total / samples + now / len(batch["y"]) * pull
        gradients = dict(zip(names, torch.autograd.grad(total, list(leaves.values())), strict=True))
        norm = torch.sqrt(sum((g**2).sum() for g in gradients.values()))
        scale = min(1.0, clip / (float(norm) + 1e-6))
        for n, g in gradients.items():
            g = g * scale
            first[n] = 0.9 * first[n] + 0.1 * g
            second[n] = 0.999 * second[n] + 0.001 * g**2
            logits[n] = logits[n] - lr * (first[n] / (1 - 0.9**t)) / ((second[n] / (1 - 0.999**t)).sqrt() + 1e-8)
    return logits


@pytest.mark.parametrize("executor", ["vmap", "loop"])
@pytest.mark.parametrize("kind", ["fnn", "lstm"])
def test_equals_the_plain_method_in_float64(kind: str, executor: str) -> None:
    """Logits after five steps equal a plain implementation's to 1e-9, for a linear network and a stock LSTM, by both routes."""
    torch.manual_seed(1)
    model = (nn.Sequential(nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 3)) if kind == "fnn" else Recurrent()).double()
    data = batches(5, inputs=12, dtype=torch.float64)
    fit = modhook.fit_masks(
        model, data, loss, steps=5, samples=4, lr=0.05, beta=0.1, clip=0.5, label="s", progress=False, executor=executor
    )
    expected = reference_fit(model, data, 4, 0.05, 0.1, 0.5, "s")
    assert fit.route["route"] == executor
    assert set(fit.logits) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(fit.logits[name], value, rtol=1e-9, atol=1e-9)


def test_scaled_regulariser_equals_the_plain_method_in_float64() -> None:
    """With the pull scaled by each tensor's running gradient norm, logits equal the plain method's, past the window of 11."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    data = batches(14, inputs=12, dtype=torch.float64)
    options: dict[str, Any] = {"lr": 0.05, "beta": 0.1, "clip": 0.5, "label": "s"}
    fit = modhook.fit_masks(model, data, loss, steps=14, progress=False, scale_regulariser=True, **options)
    unscaled = reference_fit(model, data, 4, **options)
    for name, value in reference_fit(model, data, 4, **options, scaled=True).items():
        torch.testing.assert_close(fit.logits[name], value, rtol=1e-9, atol=1e-9)
        assert (unscaled[name] - value).abs().max() > 1e-3


def test_a_rising_pull_equals_the_plain_method_in_float64() -> None:
    """With `beta_start` the pull is multiplied by the same factor from step to step, and is `beta` in the last one."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    data = batches(6, inputs=12, dtype=torch.float64)
    options: dict[str, Any] = {"lr": 0.05, "beta": 2.0, "clip": 0.5, "label": "s"}
    fit = modhook.fit_masks(model, data, loss, sampler="gumbel", steps=6, progress=False, beta_start=0.01, **options)
    level = reference_fit(model, data, 4, **options)
    for name, value in reference_fit(model, data, 4, **options, start=0.01).items():
        torch.testing.assert_close(fit.logits[name], value, rtol=1e-9, atol=1e-9)
        assert (level[name] - value).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta": 1.0, "beta_start": 2.0}, "beta_start=2 is above beta=1"),
        ({"beta_start": 1e-5}, "give beta=, where it ends, too"),
        ({"density": 0.5, "beta_start": 1e-5}, "density= or beta_start=, not both"),
        ({"beta": 1.0, "beta_start": 0.1, "stop": "settled"}, "leave stop= away"),
        ({"beta": 1.0, "beta_start": 0.0}, "beta_start must be a finite number greater than 0"),
        ({"beta": 1.0, "beta_start": float("nan")}, "beta_start must be"),
    ],
)
def test_a_start_of_beta_that_does_not_fit_is_one_sentence(net: nn.Module, arguments: dict[str, Any], message: str) -> None:
    """A rise that goes down, from nowhere or to nowhere, or that stands against another argument, is refused before anything is learned."""
    with pytest.raises(UserError, match=message):
        modhook.fit_masks(net, batches(1), loss, steps=1, samples=1, progress=False, **arguments)


def test_memory_limit_gives_the_same_result(net: nn.Module) -> None:
    """K processed in parts learns the same logits."""
    data = batches(4)
    whole = modhook.fit_masks(net, data, loss, sampler="gumbel", steps=6, progress=False)
    each = 3 * 4 * sum(p.numel() for n, p in net.named_parameters() if "bias" not in n)
    least = 3 * 4 * max(p.numel() for p in net.parameters())
    for memory in (least, each, 3 * each):
        parts = modhook.fit_masks(net, data, loss, sampler="gumbel", steps=6, progress=False, memory=memory)
        for name in whole.logits:
            torch.testing.assert_close(parts.logits[name], whole.logits[name])
    with pytest.raises(UserError, match=f"less than the {least} bytes .*; give memory={least} or more, or leave it away"):
        modhook.fit_masks(net, data, loss, sampler="gumbel", steps=1, progress=False, memory=least - 1)


def test_finds_the_weights_that_matter() -> None:
    """On a network in which only some weights are needed, exactly the needed ones are kept."""
    model = nn.Linear(8, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, -2.0, 0, 0, 0, 0, 1.0, 1.0]]))
    generator = torch.Generator().manual_seed(0)

    def source() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            x = torch.randn(64, 8, generator=generator)
            yield x, 3 * x[:, :1] - 2 * x[:, 1:2]  # the function needs weights 0 and 1 only

    fit = modhook.fit_masks(
        model, source(), lambda f, b: F.mse_loss(f(b[0]), b[1]), steps=300, lr=0.05, beta=0.5, clip=None, progress=False
    )
    assert fit.masks["weight"].tolist() == [[True, True] + [False] * 6]
    assert fit.history["density"][-1] == 2 / 8


def test_model_is_not_changed(net: nn.Module, digest: Callable[[nn.Module], str]) -> None:
    """Fitting, also one that fails midway, leaves parameters, buffers, flags and gradients as they were."""
    before = digest(net)
    modhook.fit_masks(net, batches(2), loss, steps=3, progress=False)
    bad = batches(2)
    bad[1]["x"][:] = float("nan")
    with pytest.raises(RunError, match="loss is nan at step 2"):
        modhook.fit_masks(net, bad, loss, steps=3, progress=False)
    assert digest(net) == before
    assert all(p.grad is None for p in net.parameters())


def test_same_seed_same_masks(net: nn.Module) -> None:
    """Equal seed and label repeat bit for bit; another label does not."""
    one, two, other = (
        modhook.fit_masks(net, batches(3), loss, steps=8, lr=0.1, label=label, progress=False)
        for label in ("a", "a", "b")
    )
    assert all(torch.equal(one.logits[n], two.logits[n]) for n in one.logits)
    assert not all(torch.equal(one.logits[n], other.logits[n]) for n in one.logits)


def test_fixed_masks_are_applied_and_not_learned(net: nn.Module) -> None:
    """A fixed mask has no logits, is in the result, and changes what the network computes."""
    fixed = Masks({"0.weight": torch.zeros(6, 4, dtype=torch.bool)})
    fit = modhook.fit_masks(net, batches(2), loss, steps=2, fixed=fixed, progress=False)
    assert set(fit.logits) == {"1.weight", "3.weight"}
    assert torch.equal(fit.masks["0.weight"], fixed["0.weight"])
    free = modhook.fit_masks(net, batches(2), loss, steps=2, progress=False)
    assert fit.history["loss"][0] != free.history["loss"][0]


def test_train_weights_moves_only_what_is_marked(net: nn.Module) -> None:
    """Weights marked True learn together with the logits; the others, and the user's model, do not move."""
    chosen = torch.zeros(6, 4, dtype=torch.bool)
    chosen[0] = True
    fit = modhook.fit_masks(
        net,
        batches(2),
        loss,
        steps=3,
        train_weights={"0.weight": chosen, "0.bias": torch.ones(6, dtype=torch.bool)},
        progress=False,
    )
    moved = fit.weights["0.weight"] != net[0].weight
    assert torch.equal(moved, chosen)
    assert (fit.weights["0.bias"] != net[0].bias).all()
    both = modhook.fit_masks(
        net,
        batches(2),
        loss,
        steps=3,
        train_weights={"0.weight": chosen},
        fixed=Masks({"0.weight": torch.ones(6, 4, dtype=torch.bool)}),
        progress=False,
    )
    assert torch.equal(both.weights["0.weight"] != net[0].weight, chosen)


def test_initial_logits(net: nn.Module) -> None:
    """`init` as a number or per parameter is where the logits start."""
    start = torch.full((6, 4), -1.0)
    fit = modhook.fit_masks(net, batches(1), loss, steps=1, lr=1e-9, init={"0.weight": start}, progress=False)
    torch.testing.assert_close(fit.logits["0.weight"], start)
    torch.testing.assert_close(fit.logits["3.weight"], torch.full((3, 6), 2.0))
    with pytest.raises(UserError, match=r"init names parameters that are not masked: 0\.bias"):
        modhook.fit_masks(net, batches(1), loss, steps=1, init={"0.bias": torch.zeros(6)}, progress=False)


def test_batches_restart_or_end() -> None:
    """A list starts again at its end; nothing at all is an error."""
    model, told = nn.Linear(4, 3), Heard()
    fit = modhook.fit_masks(model, batches(2), loss, steps=5, progress=told)
    assert told.steps == [1, 2, 3, 4, 5]
    assert fit.steps == 5
    for nothing in ([], iter([])):
        with pytest.raises(UserError, match="there is no batch"):
            modhook.fit_masks(model, nothing, loss, steps=1, progress=False)


@pytest.mark.parametrize("count", [1, 7, 15])
def test_an_iterator_that_ends_early_is_a_warning(count: int) -> None:
    """Without a bar, too: one warning, `steps` says how many were done, and the history has all of them."""
    model, data = nn.Linear(4, 3), batches(15)
    told = Heard()
    for progress in (False, told):
        with pytest.warns(modhook.ModhookWarning, match=f"the batches ended after {count} of 1200 steps") as caught:
            fit = modhook.fit_masks(model, iter(data[:count]), loss, sampler="gumbel", steps=1200, lr=0.1, progress=progress)
        assert len(heard(caught)) == 1
        assert caught[0].filename == __file__
    assert [m.split(" steps")[0] for m in told.said] == [f"the batches ended after {count} of 1200"]
    assert fit.steps == fit.history["step"].values[-1] == count
    whole = modhook.fit_masks(model, data[:count], loss, sampler="gumbel", steps=count, lr=0.1, progress=False)
    assert torch.equal(fit.logits["weight"], whole.logits["weight"])
    every = [float(v) for v in whole.history["loss"]]
    windows = [every[i : i + 6] for i in range(0, count, 6)]
    assert fit.history["loss"].values == pytest.approx([sum(w) / len(w) for w in windows])
    assert float(fit.history["density"][-1]) == float(whole.history["density"][-1])
    with pytest.warns(modhook.ModhookWarning, match=f"the batches ended after {count} of 20 steps") as caught:
        history = modhook.train(nn.Linear(4, 3), iter(data[:count]), loss, 20)
    assert history["step"].values[-1] == count
    assert caught[0].filename == __file__


def test_a_last_batch_loses_fewer_than_k_items() -> None:
    """Of a batch that K does not divide the first items are used, as in a plain loop; the others are counted in a warning."""
    model = nn.Linear(4, 3).double()
    data = [*batches(1, dtype=torch.float64), *batches(1, size=7, dtype=torch.float64)]
    keep: dict[str, Any] = {"samples": 3, "init": 40.0, "beta": 0.0, "lr": 1e-12, "progress": False}
    with pytest.raises(UserError, match="batch of 8 items cannot be cut into 3 equal groups"):
        modhook.fit_masks(model, data, loss, steps=2, **keep)
    data[0] = {n: t[:6] for n, t in data[0].items()}
    with pytest.warns(modhook.ModhookWarning, match="the last 1 items of the batch of step 2 are left out") as caught:
        fit = modhook.fit_masks(model, data, loss, steps=2, **keep)
    assert len(heard(caught)) == 1
    groups = [{n: t[i : i + 2] for n, t in data[1].items()} for i in (0, 2, 4)]
    assert float(fit.history["loss"][1]) == pytest.approx(sum(loss(model, g).item() for g in groups) / 3, abs=1e-12)
    with pytest.warns(modhook.ModhookWarning) as caught:
        fit = modhook.fit_masks(model, data, loss, steps=7, **keep)
    assert [str(w.message).partition(":")[0] for w in caught][1] == "in all, 3 items of 3 batches were left out"
    assert fit.steps == 7


def test_a_batch_of_fewer_than_k_items_is_counted() -> None:
    """A later batch that has no item for every sample is left out, and counted; the steps are done all the same."""
    told = Heard()
    data = [*batches(1), *batches(1, size=3)]
    with pytest.warns(modhook.ModhookWarning) as caught:
        fit = modhook.fit_masks(nn.Linear(4, 3), data, loss, sampler="gumbel", steps=4, progress=told)
    assert heard(caught) == told.said
    assert "a batch of 3 items is left out before step 2: it has fewer" in told.said[0]
    assert "in all, 9 items of 3 batches" in told.said[1]
    assert (fit.steps, told.steps) == (4, [1, 2, 3, 4])


def test_what_is_no_tensor_reaches_every_group() -> None:
    """Python values, 0-d tensors and shared tensors in a batch are the same for every group."""
    seen = []

    def spying(net: Any, batch: tuple[Any, ...]) -> Tensor:
        x, flag, scale, table = batch
        seen.append((flag, x.shape, table.shape))
        return (net(x) * scale * table).mean()

    data = [(torch.randn(8, 4), "on", torch.tensor(2.0), modhook.shared(torch.randn(5, 3)[:2]))]
    modhook.fit_masks(nn.Linear(4, 3), data, spying, sampler="gumbel", steps=1, progress=False)
    assert set(seen) == {("on", (2, 4), (2, 3))}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda f, b: f(b["x"]), "one scalar tensor per call, but returned a tensor of shape"),
        (lambda f, b: 1.0, "one scalar tensor per call, but returned float"),
        (lambda f, b: b["x"].mean(), "does not depend on any masked parameter"),
    ],
)
def test_a_wrong_loss_is_explained(bad: Any, message: str) -> None:
    """A loss that is no scalar, no tensor, or does not use the network gets a clear sentence."""
    with pytest.raises(UserError, match=message):
        modhook.fit_masks(nn.Linear(4, 3), batches(1), bad, steps=1, progress=False)


def test_wrong_arguments_are_explained(net: nn.Module) -> None:
    """Each wrong argument is named."""
    with pytest.raises(PatternError, match="matches no parameter"):
        modhook.fit_masks(net, batches(1), loss, exclude="*embedding*", progress=False)
    with pytest.raises(UserError, match="samples must be a whole number of at least 1, not 0"):
        modhook.fit_masks(net, batches(1), loss, samples=0, progress=False)
    with pytest.raises(UserError, match=r"unknown sampler 'gumble' .did you mean 'gumbel'"):
        modhook.fit_masks(net, batches(1), loss, sampler="gumble", progress=False)
    with pytest.raises(UserError, match="unknown optimizer 'adm'"):
        modhook.fit_masks(net, batches(1), loss, optimizer="adm", progress=False)
    with pytest.raises(MaskError, match="train_weights names 'x'"):
        modhook.fit_masks(net, batches(1), loss, train_weights={"x": torch.ones(1, dtype=torch.bool)}, progress=False)
    with pytest.raises(UserError, match="'2 PB'"):
        modhook.fit_masks(net, batches(1), loss, memory="2 PB", progress=False)
    assert bytes_of("1.5 KiB") == 1536
    assert bytes_of("2GB") == 2 * 10**9


def test_evaluate_matches_a_masked_copy(net: nn.Module) -> None:
    """evaluate weighs batches by their items and leaves the model alone."""
    data = [*batches(2), *batches(1, size=3)]
    masks = Masks({"0.weight": torch.rand(6, 4) > 0.5})

    def right(f: Any, b: dict[str, Tensor]) -> Tensor:
        return (f(b["x"]).argmax(-1) == b["y"]).double()

    x, y = torch.cat([b["x"] for b in data]), torch.cat([b["y"] for b in data])
    expected = (masks.materialize(net)(x).argmax(-1) == y).double().mean()
    assert modhook.evaluate(net, masks, data, right) == pytest.approx(float(expected))
    assert modhook.evaluate(net, None, data, lambda f, b: {"a": right(f, b)}) == {
        "a": pytest.approx(float((net(x).argmax(-1) == y).double().mean()))
    }
    with pytest.raises(UserError, match="one number per item"):
        modhook.evaluate(net, masks, data, lambda f, b: right(f, b).mean())
    with pytest.raises(UserError, match="nothing to evaluate"):
        modhook.evaluate(net, masks, [], right)
