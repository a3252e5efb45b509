"""Masks: algebra, files, and that a model is left as it was."""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import modhook
from modhook import Masks, evaluate, iomin, iou
from modhook.errors import MaskError


def some_masks(model: nn.Module, seed: int = 0) -> Masks:
    """Random masks over all weights of a model."""
    generator = torch.Generator().manual_seed(seed)
    return Masks({n: torch.rand(p.shape, generator=generator) > 0.4 for n, p in model.named_parameters()}, model)


def test_counts_by_hand() -> None:
    """IoU, IoMin, counts and density follow the paper's formulas on an example counted by hand."""
    a = Masks({"w": torch.tensor([1, 1, 1, 0], dtype=torch.bool)})
    b = Masks({"w": torch.tensor([0, 1, 1, 1], dtype=torch.bool)})
    assert (a.kept(), a.kept(per_tensor=True), a.density) == (3, {"w": 3}, 0.75)
    assert iou(a, b) == pytest.approx(2 / 4)
    assert iomin(a, b) == pytest.approx(2 / 3)
    assert (a - b)["w"].tolist() == [True, False, False, False]
    assert (~a)["w"].tolist() == [False, False, False, True]


def test_ratios_of_empty_masks_are_undefined() -> None:
    """A ratio with nothing below the line is NaN and not a number that looks like an answer."""
    empty = Masks({"w": torch.zeros(3, dtype=torch.bool)})
    assert iou(empty, empty) != iou(empty, empty)
    assert iomin(empty, ~empty) != iomin(empty, ~empty)


def test_different_parameters_are_named() -> None:
    """Combining masks over different parameters is an error that names them."""
    a, b = Masks({"x": torch.ones(2, dtype=torch.bool)}), Masks({"y": torch.ones(2, dtype=torch.bool)})
    with pytest.raises(MaskError, match=r"only in the first: x; only in the second: y"):
        a | b
    with pytest.raises(MaskError, match=r"different shapes, \(2,\) and \(3,\)"):
        iou(a, Masks({"x": torch.ones(3, dtype=torch.bool)}))


def test_masks_cannot_be_changed_from_outside(net: nn.Module) -> None:
    """Writing into what a Masks hands out, emptying it or filling what it was made of leaves the Masks as it was."""
    given = torch.ones(2, 3, dtype=torch.bool)
    masks = Masks({"w": given})
    given.fill_(False)
    masks["w"].zero_()
    next(iter(masks.values())).resize_(0)
    dict(masks.items())["w"].set_(torch.zeros(1, dtype=torch.bool).untyped_storage())
    masks.get("w", given).numpy()[:] = False
    for made in (masks | masks, masks & masks, Masks(masks)):
        made["w"].zero_()
        made._masks["w"].zero_()
    assert (masks.kept(), masks.size, masks["w"].shape) == (6, 6, (2, 3))


def test_masks_of_two_networks_are_not_compared(net: nn.Module, tmp_path: Path) -> None:
    """Set algebra and overlap of masks made for two networks are an error that names a tensor; without a network they are not."""
    other = copy.deepcopy(net)
    with torch.no_grad():
        other[3].weight[0, 0] += 1
    one, two = some_masks(net), some_masks(other)
    one.save(tmp_path / "one.safetensors")
    for act in (
        lambda: one | two,
        lambda: one & two,
        lambda: one - two,
        lambda: one ^ two,
        lambda: iou(one, two),
        lambda: modhook.iomin(~one, two | two),
        lambda: Masks.load(tmp_path / "one.safetensors") | two,
    ):
        with pytest.raises(
            MaskError, match=r"belong to two networks, .*: 3\.weight has other values; Masks\(dict\(masks\)\)"
        ):
            act()
    assert (one | some_masks(copy.deepcopy(net))) == one
    free = Masks(dict(two))
    assert (one & free).fingerprint == (free & one).fingerprint == one.fingerprint


def test_only_bool_tensors() -> None:
    """A float mask is refused instead of being rounded."""
    with pytest.raises(MaskError, match=r"'w' must be a bool tensor, not torch.float32"):
        Masks({"w": torch.ones(2)})


def test_applied_equals_materialized(net: nn.Module) -> None:
    """The context manager and the masked copy compute the same as a copy whose weights were multiplied by hand."""
    masks, x = some_masks(net), torch.randn(5, 4)
    by_hand = copy.deepcopy(net)
    with torch.no_grad():
        for name, parameter in by_hand.named_parameters():
            parameter.mul_(masks[name])
    expected = by_hand(x)
    with masks.applied_to(net) as inside:
        assert torch.equal(inside(x), expected)
    assert torch.equal(masks.materialize(net)(x), expected)


def test_model_is_itself_afterwards(net: nn.Module, digest: Callable[[nn.Module], str]) -> None:
    """After applied_to, also after an exception inside, the model is the same objects with the same bits."""
    with torch.no_grad():
        net[0].weight[0, 0] = -0.0
        net[0].weight[0, 1] = float("nan")
    before = digest(net)

    def explode() -> None:
        with some_masks(net).applied_to(net):
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        explode()
    assert digest(net) == before
    some_masks(net).materialize(net)
    assert digest(net) == before


def test_tied_weights_are_masked_once(digest: Callable[[nn.Module], str]) -> None:
    """A parameter with two names is masked under either, and restored."""
    model = nn.ModuleDict({"a": nn.Linear(3, 3, bias=False), "b": nn.Linear(3, 3, bias=False)})
    model["b"].weight = model["a"].weight
    mask = Masks({"a.weight": torch.eye(3, dtype=torch.bool)}, model)
    before = digest(model)
    with mask.applied_to(model):
        assert torch.equal(model["b"].weight, model["a"].weight.data * torch.eye(3))
    assert digest(model) == before


def test_masks_of_another_model_are_refused_before_anything_changes(
    net: nn.Module, digest: Callable[[nn.Module], str]
) -> None:
    """A wrong name or shape is an error, and the model is untouched."""
    before = digest(net)
    with (
        pytest.raises(MaskError, match=r"'nope' has no parameter in Sequential"),
        Masks({"nope": torch.ones(1, dtype=torch.bool)}).applied_to(net),
    ):
        pass
    with pytest.raises(MaskError, match=r"shape \(2,\), but the parameter has \(6, 4\)"):
        Masks({"0.weight": torch.ones(2, dtype=torch.bool)}, net)
    assert digest(net) == before


def test_files_round_trip(net: nn.Module, tmp_path: Path) -> None:
    """Saved masks come back equal, with their fingerprint."""
    masks = some_masks(net)
    masks.save(tmp_path / "m.safetensors")
    back = Masks.load(tmp_path / "m.safetensors", net)
    assert back == masks
    assert back.fingerprint == masks.fingerprint
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_another_models_masks_say_which_tensor_differs(net: nn.Module, tmp_path: Path) -> None:
    """Loading with another network names the tensor: other values, other shape, or missing."""
    path = tmp_path / "m.safetensors"
    some_masks(net).save(path)
    changed = copy.deepcopy(net)
    with torch.no_grad():
        changed[3].weight[0, 0] += 1
    with pytest.raises(MaskError, match=r"another network: 3\.weight has other values"):
        Masks.load(path, changed)
    with pytest.raises(MaskError, match="has no parameter in Linear"):
        Masks.load(path, nn.Linear(2, 2))


def test_bad_files_are_refused(net: nn.Module, tmp_path: Path) -> None:
    """A missing, foreign, truncated or tampered file is one clear sentence."""
    with pytest.raises(MaskError, match="cannot be read as masks"):
        Masks.load(tmp_path / "none.safetensors")
    foreign = tmp_path / "foreign.safetensors"
    save_file({"w": torch.ones(2)}, foreign)
    with pytest.raises(MaskError, match="holds no modhook masks"):
        Masks.load(foreign)
    good = tmp_path / "good.safetensors"
    some_masks(net).save(good)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(good.read_bytes()[:-3])
    with pytest.raises(MaskError, match="cannot be read as masks"):
        Masks.load(cut)
    odd = tmp_path / "odd.safetensors"
    tensors, metadata = (
        {"w": torch.ones(2, dtype=torch.bool)},
        {"format": "modhook-masks-2", "fingerprint": json.dumps([1])},
    )
    save_file(tensors, odd, metadata)
    with pytest.raises(MaskError, match="do not match their checksum"):
        Masks.load(odd)
    content = b"[1]" + json.dumps(["w", "torch.bool", [2]]).encode() + b"\x01\x01"
    save_file(tensors, odd, metadata | {"sha256": hashlib.sha256(content).hexdigest()})
    with pytest.raises(MaskError, match="fingerprint of its network cannot be read"):
        Masks.load(odd)
    with pytest.raises(MaskError, match="cannot be written"):
        some_masks(net).save(tmp_path / "no" / "folder.safetensors")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(net: nn.Module, dtype: torch.dtype, tmp_path: Path) -> None:
    """Fingerprints and masked copies work for every float type."""
    model = net.to(dtype)
    masks = some_masks(model)
    masks.save(tmp_path / "m.safetensors")
    assert Masks.load(tmp_path / "m.safetensors", model) == masks
    assert masks.materialize(model)[0].weight.dtype == dtype


@pytest.mark.parametrize("use", ["evaluate", "fixed", "reference", "applied_to", "materialize", "checkpoint", "prune"])
def test_masks_of_a_network_with_other_parameters_are_refused(use: str, tmp_path: Path) -> None:
    """Masks that would fit, of a network that has other parameters beside: refused everywhere, and taken without their network."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    others = (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5)), nn.Sequential(nn.Linear(3, 4), nn.ReLU()))
    batch = (torch.randn(8, 3), torch.zeros(8, dtype=torch.long))

    def loss(net: Any, batch: Any) -> Any:
        return nn.functional.cross_entropy(net(batch[0]), batch[1])

    def used(net: nn.Module, masks: Masks) -> None:
        if use == "evaluate":
            evaluate(net, masks, [batch], lambda net, batch: net(batch[0]).sum(-1))
        elif use in ("fixed", "reference"):
            modhook.fit_masks(net, [batch], loss, steps=1, include="*", exclude=(), progress=False, **{use: masks})
        elif use == "applied_to":
            with masks.applied_to(net):
                pass
        elif use == "checkpoint":
            modhook.export.checkpoint(masks, net, tmp_path / "c.safetensors")
        else:
            (masks.materialize if use == "materialize" else lambda net: modhook.export.prune(masks, net))(net)

    masks = Masks({"0.weight": torch.ones(4, 3, dtype=torch.bool)}, model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", modhook.TrustWarning)
        for other, said in zip(others, (r"2\.weight was \[2,4\] and is \[5,4\]", r"2\.weight is missing here"), strict=True):
            with pytest.raises(MaskError, match=f"belong to another network than this Sequential: {said}"):
                used(other, masks)
            used(other, Masks(dict(masks)))
        with torch.no_grad():
            model[0].weight += 1  # other values, as after more training: they may be used
        used(model, masks)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int32, torch.complex64])
def test_weights_that_are_kept_keep_their_bits_and_others_are_zero(dtype) -> None:
    """Under a mask a tensor has zeros of its type where nothing is kept, whatever stood there, and elsewhere what it had."""
    from modhook.masks.keep import masked_off

    torch.manual_seed(0)
    weight = (1e3 * torch.randn(3, 70_001)).to(dtype)
    if dtype.is_floating_point:
        weight[0, :4] = torch.tensor([float("nan"), float("inf"), -0.0, -float("inf")])
    mask = torch.rand(weight.shape) < 0.5
    mask[0, :4] = torch.tensor([False, False, True, True])
    for value, kept in ((weight, mask), (weight.t(), mask.t()), (weight[:0], mask[:0]), (weight[1, 1], mask[1, 1])):
        found, expected = masked_off(value, kept), torch.where(kept, value, torch.zeros((), dtype=dtype))
        assert found.dtype == dtype
        # As bytes: NaN is not itself, and -0.0 is 0.0.
        assert torch.equal(found.contiguous().view(-1).view(torch.uint8), expected.contiguous().view(-1).view(torch.uint8))
