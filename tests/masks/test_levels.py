"""Masks summed up by layers, parts, depths, types and heads: against counts by plain loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

import modhook
from modhook import Masks
from modhook.errors import UserError
from modhook.masks.levels import layers


class Encoder(nn.Module):
    """Embeddings, three layers of attention and a feed-forward part, a pooler; the attention of the first has keys of another width."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict({"words": nn.Embedding(5, 6), "norm": nn.LayerNorm(6)})
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(self._layer(i) for i in range(3))})
        self.pooler = nn.Linear(6, 2)

    @staticmethod
    def _layer(i: int) -> nn.ModuleDict:
        attention = nn.MultiheadAttention(6, 3, kdim=4 if i == 0 else None, add_bias_kv=i == 1)
        return nn.ModuleDict({"attention": attention, "mlp": nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6))})


def drawn(model: nn.Module, seed: int, **changes: float) -> Masks:
    """Random masks over all parameters."""
    g = torch.Generator().manual_seed(seed)
    return Masks({n: torch.rand(p.shape, generator=g) < 0.5 for n, p in model.named_parameters()}, model)


@pytest.fixture(scope="module")
def model() -> Encoder:
    """The network; nothing here changes it."""
    return Encoder()


def counted(masks: Masks, label: Any) -> dict[Any, tuple[int, int]]:
    """Kept and total by label, by a loop over all tensors."""
    found: dict[Any, tuple[int, int]] = {}
    for name in masks:
        kept, total = found.get(label(name), (0, 0))
        found[label(name)] = kept + int(masks[name].sum()), total + masks[name].numel()
    return found


def by_layer(name: str) -> str:
    """The layer that a parameter lies in, by hand."""
    parts = name.split(".")
    return ".".join(parts[:3]) if parts[0] == "encoder" else parts[0]


@pytest.mark.parametrize(
    ("level", "name", "label"),
    [
        ("layer", "layer", by_layer),
        ("part", "part", lambda n: n.rpartition(".")[0].removeprefix(by_layer(n) + ".") if "encoder" in n else ""),
        ("module", "module", lambda n: n.rpartition(".")[0]),
        ("parameter", "parameter", lambda n: n),
        (1, "module", lambda n: n.split(".")[0]),
        (4, "module", lambda n: ".".join(n.rpartition(".")[0].split(".")[:4])),
        (lambda n: "mlp" in n, "level", lambda n: "mlp" in n),
    ],
)  # fmt: skip
def test_sums_are_those_of_a_loop(model: Encoder, level: Any, name: str, label: Any) -> None:
    """Every level counts each weight once, in the network's order."""
    masks = drawn(model, 0)
    table = masks.by(level)
    assert list(table.columns) == [name, "kept", "total", "density"]
    found = {row[0]: (row[1], row[2]) for row in table.itertuples(index=False)}
    assert found == counted(masks, label)
    assert list(found) == list(counted(masks, label))
    assert table["density"].tolist() == (table["kept"] / table["total"]).tolist()


def test_types_need_the_network(model: Encoder) -> None:
    """By type of module, from the network that masks remember or that is given; without any, one sentence says how."""
    masks = drawn(model, 0)
    table = masks.by("type").set_index("type")
    assert list(table.index) == ["Embedding", "LayerNorm", "MultiheadAttention", "NonDynamicallyQuantizableLinear", "Linear"]
    linear = [n for n in masks if "mlp" in n or "pooler" in n]
    assert table.loc["Linear", "kept"] == sum(int(masks[n].sum()) for n in linear)
    alone = Masks(dict(masks))
    with pytest.raises(UserError, match=r"their network only: give it, masks.by\('type', model=model\)"):
        alone.by("type")
    assert alone.by("type", model=model).equals(masks.by("type"))
    with pytest.raises(UserError, match=r"unknown level 'layers' \(did you mean 'layer'\?\); valid are layer, part, module, "):
        masks.by("layers")
    for wrong in (0, 1.5, None, True):
        with pytest.raises(UserError, match="level must be one of layer, "):
            masks.by(wrong)  # type: ignore[arg-type]


def test_layers_of_the_usual_trees() -> None:
    """Numbered modules are layers; what lies beside their lists is one as a whole; without lists every module is one."""
    bert = ["bert.embeddings.word", "bert.embeddings.norm", "bert.encoder.layer.11.attention.self.query", "bert.pooler.dense", "classifier"]
    assert list(layers(bert).values()) == ["bert.embeddings", "bert.embeddings", "bert.encoder.layer.11", "bert.pooler", "classifier"]
    t5 = ["shared", "encoder.block.0.layer.0.SelfAttention.q", "encoder.final_layer_norm", "decoder.block.3.layer.2.DenseReluDense.wi"]
    assert list(layers(t5).values()) == ["shared", "encoder.block.0", "encoder.final_layer_norm", "decoder.block.3"]
    assert list(layers(["conv1", "layer1.0.conv1", "layer4.1.downsample.0", "fc"]).values()) == ["conv1", "layer1.0", "layer4.1", "fc"]
    assert list(layers(["0", "2", "fc.in", ""]).values()) == ["0", "2", "fc", ""]
    assert list(layers(["encoder.in", "encoder.out", ""]).values()) == ["encoder.in", "encoder.out", ""]


def test_several_levels_at_once(model: Encoder) -> None:
    """A row per layer and part; together they are the sums by layer."""
    masks = drawn(model, 0)
    table = masks.by(["layer", "part"])
    assert list(table.columns) == ["layer", "part", "kept", "total", "density"]
    assert table["part"].unique().tolist() == ["", "attention", "attention.out_proj", "mlp.0", "mlp.2"]
    assert table.groupby("layer", sort=False)["kept"].sum().tolist() == masks.by("layer")["kept"].tolist()
    assert list(masks.by((1, 2)).columns)[:2] == ["module", "module_"]
    with pytest.raises(UserError, match="level is empty"):
        masks.by([])


def test_overlap_by_level(model: Encoder) -> None:
    """IoU per level is that of the selected masks, chance included; without a level it is one number, as ever."""
    a, b = drawn(model, 0), drawn(model, 1)
    table = modhook.iou(a, b, by="layer").set_index("layer")
    assert list(table.index) == ["embeddings", *(f"encoder.layer.{i}" for i in range(3)), "pooler"]
    for layer, row in table.iterrows():
        one, two = a.select(str(layer)), b.select(str(layer))
        assert row["iou"] == modhook.iou(one, two)
        assert (row["intersection"], row["union"]) == ((one & two).kept(), (one | two).kept())
        chance = modhook.overlaps({"a": one, "b": two})["iou_chance"].sel(function="a", other="b")
        assert row["iou_chance"] == pytest.approx(float(chance), abs=1e-12)
    assert table["intersection"].sum() / table["union"].sum() == modhook.iou(a, b)
    nothing = Masks({"0.w": torch.zeros(2, dtype=torch.bool), "1.w": torch.zeros(0, dtype=torch.bool)})
    empty = modhook.iou(nothing, nothing, by="layer")
    assert empty["iou"].isna().all()
    assert math.isnan(empty["iou_chance"][1])
    with pytest.raises(UserError, match="unknown level 'heads'"):
        modhook.iou(a, b, by="heads")


def test_heads_are_those_of_a_loop(model: Encoder) -> None:
    """A head of torch's attention has its rows of queries, keys and values and its columns of the output, packed or not."""
    masks = drawn(model, 3)
    table = masks.heads().set_index(["module", "head"])
    assert len(table) == 9
    for (path, head), row in table.iterrows():  # type: ignore[misc]
        own, kept, total = range(2 * head, 2 * head + 2), 0, 0
        for name in (n for n in masks if n.startswith(f"{path}.") and n != f"{path}.out_proj.bias"):
            m = masks[name]
            if name.endswith("out_proj.weight"):
                parts = [m[:, i] for i in own]
            elif "in_proj" in name:
                parts = [m[6 * third + i] for third in range(3) for i in own]
            elif "bias_" in name:
                parts = [m[0, 0, i] for i in own]
            else:
                parts = [m[i] for i in own]
            kept, total = kept + sum(int(p.sum()) for p in parts), total + sum(p.numel() for p in parts)
        assert (row["kept"], row["total"]) == (kept, total), (path, head)
    only = masks.select("*out_proj.weight")
    assert only.heads()["total"].tolist() == [12] * 9
    with pytest.raises(UserError, match="these masks cover no attention whose heads are found"):
        masks.select("pooler").heads()
    with pytest.raises(UserError, match=r"give it, masks.heads\(model=model\)"):
        Masks(dict(masks)).heads()
