"""Files of the paper's own code: built here in its layout, and read into stock networks that compute the same."""

from __future__ import annotations

import itertools
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import modhook
from modhook.errors import MaskError, WeightsError
from modhook_plugins.networks.cnn import CNN, CNNOptions
from modhook_plugins.networks.fnn import FNN, FNNOptions
from modhook_plugins.networks.lstm import LSTM, LSTMOptions
from modhook_plugins.networks.resnet import ResNet, ResNetOptions

WIDTHS = (6, 5, 7, 5, 6, 5, 5, 4, 5, 6, 5, 3)  # so many layers that 10 and 11 must not come before 2


def draw(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return parameters by the reference's names, sorted as its files have them."""
    generator = torch.Generator().manual_seed(3)
    return OrderedDict(
        (n, torch.randn(shapes[n], generator=generator, dtype=torch.float64) * 0.4) for n in sorted(shapes)
    )


def fnn_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of its feed-forward network."""
    sizes = (9, *WIDTHS)
    pairs = list(itertools.pairwise(sizes))
    return {f"layers_{i}_weight": (b, a) for i, (a, b) in enumerate(pairs)} | {
        f"layers_{i}_bias": (b,) for i, (_, b) in enumerate(pairs)
    }


def fnn(p: dict[str, Tensor], x: Tensor) -> Tensor:
    """Its feed-forward network, written out: a ReLU before every layer but the first."""
    for i in range(len(WIDTHS)):
        x = (x.clamp(min=0) if i else x) @ p[f"layers_{i}_weight"].T + p[f"layers_{i}_bias"]
    return x


def lstm_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of its LSTM: 4 inputs, two layers of 5, 3 outputs."""
    found: dict[str, tuple[int, ...]] = {"output_projection_weight": (3, 5), "output_projection_bias": (3,)}
    for i, inputs in enumerate((4, 5)):
        cell = f"lstm_cells_{i}"
        found |= {f"{cell}_weight_ih": (20, inputs), f"{cell}_weight_hh": (20, 5), f"{cell}_bias": (20,)}
    return found


def lstm(p: dict[str, Tensor], x: Tensor) -> Tensor:
    """Its LSTM (B, T, 4) to (B, T, 3), gate by gate: input, forget, cell, output."""
    outputs = []
    state = [(torch.zeros(len(x), 5, dtype=x.dtype), torch.zeros(len(x), 5, dtype=x.dtype)) for _ in range(2)]
    for t in range(x.shape[1]):
        step = x[:, t]
        for i in range(2):
            h, c = state[i]
            cell = f"lstm_cells_{i}"
            z = step @ p[f"{cell}_weight_ih"].T + h @ p[f"{cell}_weight_hh"].T + p[f"{cell}_bias"]
            i_, f_, g_, o_ = z[:, :5], z[:, 5:10], z[:, 10:15], z[:, 15:]
            c = f_.sigmoid() * c + i_.sigmoid() * g_.tanh()
            step = o_.sigmoid() * c.tanh()
            state[i] = step, c
        outputs.append(step @ p["output_projection_weight"].T + p["output_projection_bias"])
    return torch.stack(outputs, 1)


def cnn_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of its convolutional network, here with 4, 4, 5 and 6 channels: places in a sequence, with gaps."""
    found: dict[str, tuple[int, ...]] = {"out_layer_weight": (10, 6), "out_layer_bias": (10,)}
    for place, a, b in ((0, 3, 4), (3, 4, 4), (6, 4, 5), (10, 5, 6)):
        found |= {f"features_{place}_weight": (b, a, 3, 3), f"features_{place}_bias": (b,)}
    return found


def cnn(p: dict[str, Tensor], x: Tensor) -> Tensor:
    """Its convolutional network in evaluation, written out."""
    for place in (0, 3, 6, 10):
        x = F.conv2d(x, p[f"features_{place}_weight"], p[f"features_{place}_bias"], padding=1).relu()
        x = x if place == 10 else F.max_pool2d(x, 2)
    return x.mean((2, 3)) @ p["out_layer_weight"].T + p["out_layer_bias"]


def resnet_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of its residual network, here with two groups of two blocks of 4 and 4 channels (equal shapes everywhere)."""
    found: dict[str, tuple[int, ...]] = {"out_layer_weight": (10, 4), "out_layer_bias": (10,)}
    convolutions = {"features_0": 3}
    for group in (3, 4):
        for block in (0, 1):
            convolutions |= {f"features_{group}_{block}_layers_{place}": 4 for place in (0, 3)}
    found |= {f"{name}_weight": (4, inputs, 3, 3) for name, inputs in convolutions.items()}
    found["features_4_0_downsample_0_weight"] = (4, 4, 1, 1)
    for norm in norms():
        found |= {f"{norm}_weight": (4,), f"{norm}_bias": (4,)}
    return found


def norms() -> list[str]:
    """Names of the batch norms of the residual network."""
    inner = [f"features_{g}_{b}_layers_{place}" for g in (3, 4) for b in (0, 1) for place in (1, 4)]
    return ["features_1", *inner, "features_4_0_downsample_1"]


def statistics() -> dict[str, Tensor]:
    """Running statistics by the names of the state, with dots."""
    generator = torch.Generator().manual_seed(8)
    state = {}
    for norm in norms():
        name = norm.replace("_", ".")
        state[f"{name}.running_mean"] = torch.randn(4, generator=generator, dtype=torch.float64)
        state[f"{name}.running_var"] = torch.rand(4, generator=generator, dtype=torch.float64) + 0.5
        state[f"{name}.num_batches_tracked"] = torch.tensor(17)
    return OrderedDict(state)


def resnet(p: dict[str, Tensor], x: Tensor) -> Tensor:
    """Its residual network in evaluation, written out."""
    state = statistics()

    def norm(name: str, x: Tensor) -> Tensor:
        mean, var = (state[f"{name.replace('_', '.')}.running_{kind}"] for kind in ("mean", "var"))
        x = (x - mean[:, None, None]) / (var + 1e-5).sqrt()[:, None, None]
        return x * p[f"{name}_weight"][:, None, None] + p[f"{name}_bias"][:, None, None]

    x = norm("features_1", F.conv2d(x, p["features_0_weight"], padding=1)).relu()
    for group in (3, 4):
        for block in (0, 1):
            at, stride = f"features_{group}_{block}", 2 if (group, block) == (4, 0) else 1
            inner = norm(f"{at}_layers_1", F.conv2d(x, p[f"{at}_layers_0_weight"], stride=stride, padding=1)).relu()
            inner = norm(f"{at}_layers_4", F.conv2d(inner, p[f"{at}_layers_3_weight"], padding=1))
            if stride == 2:
                x = norm(f"{at}_downsample_1", F.conv2d(x, p[f"{at}_downsample_0_weight"], stride=2))
            x = (x + inner).relu()
    return x.mean((2, 3)) @ p["out_layer_weight"].T + p["out_layer_bias"]


IMAGES = (2, 3, 16, 16)
NETWORKS: dict[str, tuple[Any, Any, Any, tuple[int, ...]]] = {
    "fnn": (fnn_shapes, fnn, lambda: FNN(FNNOptions(WIDTHS[:-1])).build({"inputs": 9, "outputs": 3}), (7, 9)),
    "lstm": (lstm_shapes, lstm, lambda: LSTM(LSTMOptions(5, 2, 3)).build({"inputs": 4, "outputs": 3}), (6, 3, 4)),
    "cnn": (cnn_shapes, cnn, lambda: CNN(CNNOptions((4, 4, 5, 6))).build({"channels": 3, "outputs": 10}), IMAGES),
    "resnet": (
        resnet_shapes,
        resnet,
        lambda: ResNet(ResNetOptions(2, (4, 4))).build({"channels": 3, "outputs": 10}),
        IMAGES,
    ),
}


def content(parameters: dict[str, Tensor], state: dict[str, Tensor] | None = None) -> dict[str, Any]:
    """Return what `model.pth` holds."""
    return {"VERSION": 1, "parameters": OrderedDict(parameters), "state": state or OrderedDict()}


class DotDict(dict[str, Any]):
    """Pickled under the name of the reference's own dictionary."""


DotDict.__module__, DotDict.__qualname__ = "framework.data_structures.dotdict", "DotDict"


def save_checkpoint(
    path: Path, parameters: dict[str, Tensor], state: dict[str, Tensor], logits: list[dict[str, Tensor]]
) -> None:
    """Write a checkpoint in the reference's layout, its own kind of dictionary included."""
    import sys
    import types

    model = OrderedDict({f"model_parameters.{n}": t for n, t in parameters.items()})
    model |= {f"masks.{i}.{n}": t for i, stage in enumerate(logits) for n, t in stage.items()}
    model |= {f"model.{n}": t for n, t in state.items()}
    fake = types.ModuleType(DotDict.__module__)
    fake.DotDict = DotDict  # type: ignore[attr-defined]
    names = ["framework", "framework.data_structures", DotDict.__module__]
    sys.modules |= dict.fromkeys(names, fake)
    try:
        optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999)}]}
        torch.save({"state": DotDict(iter=7), "model": model, "optimizer": optimizer}, path)
    finally:
        for name in names:
            del sys.modules[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_computes_the_same(name: str, tmp_path: Path) -> None:
    """Weights and masks read from every kind of file give the outputs of the network written out, in float64 to 1e-12."""
    shapes, forward, build, size = NETWORKS[name]
    parameters = draw(shapes())
    state = statistics() if name == "resnet" else OrderedDict()
    generator = torch.Generator().manual_seed(5)
    logits = [{n: torch.randn(t.shape, generator=generator) for n, t in parameters.items()} for _ in range(2)]
    torch.save(content(parameters, state), tmp_path / "model.pth")
    torch.save(content(parameters, state), tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    save_checkpoint(tmp_path / "model-7.pth", parameters, state, logits)
    files = ["model.pth", "legacy.pth", "model-7.pth"]
    if name != "resnet":
        torch.save(OrderedDict(parameters), tmp_path / "version0.pth")
        files.append("version0.pth")
    for stage, masks in enumerate(logits):
        folder = tmp_path / f"export/stage_final_masks/stage_{stage}"
        folder.mkdir(parents=True)
        for n, t in masks.items():
            torch.save(t.numpy(), folder / f"{n}.pth", _use_new_zipfile_serialization=bool(stage))

    x = torch.randn(size, generator=generator, dtype=torch.float64)
    for file in files:
        model = build().double().eval()
        model.load_state_dict(modhook.reference_weights(tmp_path / file, model))
        with torch.no_grad():
            torch.testing.assert_close(model(x), forward(parameters, x), rtol=0, atol=1e-12)
    for source in ("export/stage_final_masks", "", "model-7.pth"):
        masks = modhook.reference_masks(tmp_path / source, model)
        assert list(masks) == [0, 1]
        for stage, found in masks.items():
            kept = {n: t * (logits[stage][n] >= 0) for n, t in parameters.items()}
            with torch.no_grad(), found.applied_to(model):
                torch.testing.assert_close(model(x), forward(kept, x), rtol=0, atol=1e-12)
    one = modhook.reference_masks(tmp_path / "export/stage_final_masks/stage_1", model)
    assert one == {1: masks[1]}


def test_masks_without_biases(tmp_path: Path) -> None:
    """Where biases were not masked there are no files of them; a logit of exactly 0 is kept."""
    parameters = {n: t for n, t in draw(lstm_shapes()).items() if "bias" not in n}
    (tmp_path / "stage_2").mkdir()
    for n, t in parameters.items():
        t[0] = 0
        torch.save(t.float().numpy(), tmp_path / f"stage_2/{n}.pth")
    model = NETWORKS["lstm"][2]()
    masks = modhook.reference_masks(tmp_path, model)[2]
    assert set(masks) == {
        "lstm.weight_ih_l0",
        "lstm.weight_hh_l0",
        "lstm.weight_ih_l1",
        "lstm.weight_hh_l1",
        "output.weight",
    }
    assert masks.kept(per_tensor=True) == {
        ours: int((parameters[theirs] >= 0).sum())
        for ours, theirs in (
            ("lstm.weight_ih_l0", "lstm_cells_0_weight_ih"),
            ("lstm.weight_hh_l0", "lstm_cells_0_weight_hh"),
            ("lstm.weight_ih_l1", "lstm_cells_1_weight_ih"),
            ("lstm.weight_hh_l1", "lstm_cells_1_weight_hh"),
            ("output.weight", "output_projection_weight"),
        )
    }
    assert all(mask.reshape(len(mask), -1)[0].all() for mask in masks.values())


def test_any_stock_network_with_the_same_layers(tmp_path: Path) -> None:
    """Names do not matter: a plain sequence of layers is filled too, and a second bias of an LSTM becomes 0."""
    parameters = draw(
        {"layers_0_weight": (4, 3), "layers_0_bias": (4,), "layers_1_weight": (2, 4), "layers_1_bias": (2,)}
    )
    torch.save(content(parameters), tmp_path / "model.pth")
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    state = modhook.reference_weights(str(tmp_path / "model.pth"), model)
    assert torch.equal(state["2.weight"], parameters["layers_1_weight"])
    torch.save(content(draw(lstm_shapes())), tmp_path / "lstm.pth")
    stock = nn.ModuleDict({"a": nn.LSTM(4, 5, 2), "b": nn.Linear(5, 3)})
    state = modhook.reference_weights(tmp_path / "lstm.pth", stock)
    assert not any(state[f"a.bias_hh_l{i}"].any() for i in (0, 1))
    assert set(state) == set(stock.state_dict())


class Evil:
    """Would make a folder if it were unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.folder),))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["parameters", "state", "version", "whole", "array", "checkpoint"])
def test_code_in_a_file_is_not_run(place: str, zipped: bool, tmp_path: Path) -> None:
    """Wherever a file names Python objects, it is refused in one sentence, and nothing of it runs."""
    evil: Any = Evil(tmp_path / "evil")
    good = content(draw({"layers_0_weight": (2, 3), "layers_0_bias": (2,)}))
    model = nn.Sequential(nn.Linear(3, 2))
    bad: Any = {
        "parameters": good | {"parameters": {"layers_0_weight": evil}},
        "state": good | {"state": {"x": evil}},
        "version": good | {"VERSION": evil},
        "whole": evil,
        "array": np.array([evil], dtype=object),
        "checkpoint": {"state": evil, "model": {"model_parameters.layers_0_weight": torch.zeros(2, 3)}},
    }[place]
    (tmp_path / "stage_0").mkdir()
    for path in (tmp_path / "model.pth", tmp_path / "stage_0" / "layers_0_weight.pth"):
        torch.save(bad, path, _use_new_zipfile_serialization=zipped)
    words = "model.pth holds Python objects besides tensors, which are code that loading would run, so it is refused"
    with pytest.raises(WeightsError, match=words):
        modhook.reference_weights(tmp_path / "model.pth", model)
    with pytest.raises(
        MaskError, match=r"layers_0_weight.pth (holds Python objects|cannot be read as masks).*as the reference wrote"
    ):
        modhook.reference_masks(tmp_path, model)
    (tmp_path / "model.pth").write_bytes(pickle.dumps(bad))  # a plain pickle, not of torch
    with pytest.raises(WeightsError, match=r"holds Python objects|cannot be read as weights"):
        modhook.reference_weights(tmp_path / "model.pth", model)
    assert not (tmp_path / "evil").exists()


FITS = {"layers_0_weight": (2, 3), "layers_0_bias": (2,)}
REFUSED: dict[str, tuple[Any, str]] = {
    "one layer more": (
        FITS | {"layers_1_weight": (2, 2), "layers_1_bias": (2,)},
        r"has 2 layers \(layers_0, layers_1\), but the network has 1 \(0\); is it the same network",
    ),
    "another shape": (
        FITS | {"layers_0_weight": (2, 4)},
        r"layers_0, weight, has shape \(2, 4\) .* 0.weight has \(2, 3\)",
    ),
    "no bias": ({"layers_0_weight": (2, 3)}, "layers_0 in .* has weight, but 0 of the network has weight, bias"),
    "another kind": (
        {"layers_0_weight_ih": (2, 3), "layers_0_bias": (2,)},
        "layers_0 in .* has bias, weight_ih|weight_ih, bias",
    ),
    "tokens": (FITS | {"encoder_embedding_weight": (2, 3)}, "is of a sequence network of the reference"),
    "no name": (
        FITS | {"layers_0_scale": (2,)},
        "holds 'layers_0_scale', which is no name of a parameter in the reference",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_layers_that_do_not_fit(what: str, tmp_path: Path) -> None:
    """Each is one sentence that names the layer, and the network keeps its weights."""
    shapes, words = REFUSED[what]
    torch.save(content(draw(shapes)), tmp_path / "model.pth")
    model = nn.Sequential(nn.Linear(3, 2))
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(WeightsError, match=words):
        modhook.reference_weights(tmp_path / "model.pth", model)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_files_that_are_something_else(tmp_path: Path) -> None:
    """A missing file, a plain state dict, another version, a cut file, logits that are no numbers, an empty folder."""
    model = nn.Sequential(nn.Linear(3, 2))
    path = tmp_path / "model.pth"
    with pytest.raises(WeightsError, match="there is no weights file"):
        modhook.reference_weights(path, model)
    torch.save(model.state_dict(), path)
    with pytest.raises(WeightsError, match=r"has not the layout of the reference's model\.pth"):
        modhook.reference_weights(path, model)
    torch.save(content(draw(FITS)) | {"VERSION": 2}, path)
    with pytest.raises(WeightsError, match="not of version 1"):
        modhook.reference_weights(path, model)
    torch.save(content(draw(FITS)), path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        modhook.reference_weights(path, model)
    with pytest.raises(MaskError, match="holds no masks of the reference; give its folder stage_final_masks"):
        modhook.reference_masks(tmp_path, model)
    (tmp_path / "stage_0").mkdir()
    for array, words in (
        (np.array([["a"]]), "cannot be read as masks|holds no logits|holds Python objects"),
        (np.array([[1]]), "cannot be read as masks|holds no logits|holds Python objects"),
        (np.full((2, 3), np.nan, np.float32), "the logits of 0.weight in stage 0 of .* are not finite"),
        (np.zeros((2, 4), np.float32), r"layers_0, weight, has shape \(2, 4\) in stage 0 of"),
    ):
        torch.save(array, tmp_path / "stage_0/layers_0_weight.pth")
        with pytest.raises(MaskError, match=words):
            modhook.reference_masks(tmp_path, model)
    torch.save(content(draw(FITS)), path)
    with pytest.raises(
        WeightsError, match="is a parameter of a MultiheadAttention, which no network of the reference has"
    ):
        modhook.reference_weights(path, nn.Sequential(nn.MultiheadAttention(4, 2)))
