"""torch's default device is the user's: no tensor of ours may follow it."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import modhook
from modhook.noise.noise import uniform

ROOT = Path(__file__).parents[2]
_MAKERS = {
    *(
        "arange",
        "as_tensor",
        "asarray",
        "empty",
        "eye",
        "full",
        "hann_window",
        "linspace",
        "logspace",
        "normal",
        "ones",
    ),
    *(
        "rand",
        "randint",
        "randn",
        "randperm",
        "range",
        "tensor",
        "zeros",
        "scalar_tensor",
        "tril_indices",
        "triu_indices",
    ),
}


@contextlib.contextmanager
def meta_by_default() -> Iterator[None]:
    """Within it a tensor that is made without a device holds no numbers."""
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


def _makes_tensor(node: ast.AST) -> bool:
    """Whether a call makes a tensor on the default device unless told otherwise: torch.zeros(...), torch.rand(...)."""
    made = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _MAKERS
    return made and isinstance(node.func.value, ast.Name) and node.func.value.id == "torch"  # type: ignore[attr-defined]


def _undecided(code: str) -> Iterator[int]:
    for node in ast.walk(ast.parse(code)):
        if _makes_tensor(node) and not any(k.arg == "device" for k in node.keywords):  # type: ignore[attr-defined]
            yield node.lineno  # type: ignore[attr-defined]


def test_every_new_tensor_says_its_device() -> None:
    """Every call that makes a tensor in the three packages names a device; the search itself finds one that does not."""
    assert list(_undecided("import torch\na = torch.zeros(3)\nb = torch.rand(2, device='cpu')")) == [2]
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for folder in ("modhook", "plugins", "tasks_plugins")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line in _undecided(path.read_text(encoding="utf-8"))
    ]
    assert found == []


class Gated(nn.Module):
    """A linear layer, a gain of dimension 0 and a recurrent layer over three steps."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gain = nn.Linear(4, 6), nn.Parameter(torch.tensor(1.5))
        self.cells, self.last = nn.LSTM(2, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 4) -> (B, 3)."""
        return self.last(self.cells((self.first(x) * self.gain).unflatten(1, (3, 2)))[0][:, -1])


def _loss(net: object, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(net(batch[0]), batch[1])  # type: ignore[operator]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_another_default_device_changes_nothing(dtype: torch.dtype, tmp_path: Path) -> None:
    """Masks, scores, files, reports and base training are the same under any default device, bit for bit."""
    torch.manual_seed(0)
    net, x, y = Gated().to(dtype), torch.randn(16, 4, dtype=dtype), torch.arange(16) % 3

    def everything() -> tuple[object, ...]:
        fit = modhook.fit_masks(net, [(x, y)], _loss, steps=3, lr=0.1, scale_regulariser=True, progress=False)
        fit.masks.save(tmp_path / "m.safetensors")
        back = modhook.Masks.load(tmp_path / "m.safetensors", net)
        scores = modhook.evaluate(net, back, [(x, y)], lambda m, b: (m(b[0]).argmax(-1) == b[1]).double())
        routes = modhook.inspect(net, x).errors
        stacked = modhook.stack(net, ((x,), {}), samples=2)({}, torch.stack([x, x]))
        twin = fit.masks.materialize(net)
        history = modhook.train(twin, [(x, y)], _loss, 2)
        return (
            {n: v.tolist() for n, v in fit.logits.items()},
            {n: v.tolist() for n, v in back.items()},
            scores,
            routes,
            stacked.tolist(),
            history["loss"].values.tolist(),
        )

    expected = everything()
    with meta_by_default():
        found = everything()
    assert found == expected


def test_large_noise_under_another_default_device() -> None:
    """Buffers large enough for a stage's workspace, and their keys, are on the CPU as well."""
    from modhook.noise.workspace import Workspace, take

    sources = [torch.Generator().manual_seed(k) for k in range(2)]
    like = torch.zeros(3)
    expected = uniform(like, sources)
    with meta_by_default():
        with Workspace().active():
            buffer = take((1 << 19,), torch.float32, torch.device("cpu"))
        found = uniform(like, [torch.Generator().manual_seed(k) for k in range(2)])
    assert buffer.device.type == "cpu"
    assert torch.equal(found, expected)


def _right(net: object, batch: tuple[Tensor, Tensor]) -> Tensor:
    return (net(batch[0]).argmax(-1) == batch[1]).double()  # type: ignore[operator]


WAYS: dict[str, dict[str, object]] = {
    **{name: {"sampler": name} for name in ("hard_concrete", "continuous_sparsification", "top_k")},
    **{name: {"sampler": name, "density": 0.5} for name in ("magnitude", "snip", "gradient_weight", "integrated_gradients")},
    "loop": {"executor": "loop", "density": 0.5},
    "units": {"units": "neuron"},
    "off": {"off": "redrawn", "clip_over": "all"},
    "among": {"among": modhook.Masks({"first.weight": torch.arange(24).view(6, 4) % 2 == 0})},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::modhook.errors.ModhookWarning")
@pytest.mark.parametrize("way", WAYS)
def test_another_default_device_changes_no_way_of_fitting(way: str) -> None:
    """Nor does it change samplers, rankings, routes, units, cuts and curves: each logit is the same number."""
    torch.manual_seed(0)
    net = nn.Sequential()
    for name, layer in (("first", nn.Linear(4, 6)), ("mid", nn.ReLU()), ("last", nn.Linear(6, 3))):
        net.add_module(name, layer)
    batch = torch.randn(16, 4), torch.arange(16) % 3

    def everything() -> list[object]:
        fit = modhook.fit_masks(net, [batch], _loss, steps=3, lr=0.1, samples=4, progress=False, **WAYS[way])  # type: ignore[arg-type]
        cut, smallest = fit.cut(density=0.5), fit.smallest([batch], _right, within=0.9)
        curve = fit.curve([batch], _right, points=2)["score"].values.tolist()
        shared = modhook.iou(cut, cut | smallest)
        return [{n: v.tolist() for n, v in fit.logits.items()}, cut.density, smallest.density, curve, shared]

    expected = everything()
    with meta_by_default():
        found = everything()
    assert found == expected


@pytest.mark.filterwarnings("ignore::modhook.errors.ModhookWarning")
def test_another_default_device_changes_no_answer(tmp_path: Path) -> None:
    """`ask` gives the same masks under any default device."""
    torch.manual_seed(0)
    net, batch = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), (torch.randn(16, 4), torch.arange(16) % 3)

    def everything(out: str) -> list[object]:
        answer = modhook.ask(
            net, {"a": [batch]}, loss=_loss, score=_right, tests={"a": [batch]}, seeds=1, steps=3, controls=False,
            out=str(tmp_path / out), progress=False,
        )  # fmt: skip
        return [{n: v.tolist() for n, v in masks.items()} for masks in answer.masks.values()]

    expected = everything("one.zarr")
    with meta_by_default():
        found = everything("two.zarr")
    assert found == expected
