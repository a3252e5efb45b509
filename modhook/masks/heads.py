"""Which weights of attention modules belong to which head, and how many of them masks keep.

Found are `nn.MultiheadAttention`, and modules whose class is called an attention, with separate linear layers for queries, keys, values
and output (or one for queries, keys and values, in this order), of a network whose `config` says `num_attention_heads`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor, nn

from modhook.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from modhook.masks.masks import Masks


@attrs.frozen(eq=False)
class Slice:
    """The heads' places in one parameter: `split` along `axis` into `times` parts of `heads` heads each; `shared` heads own each."""

    parameter: str
    axis: int
    heads: int
    times: int = 1
    shared: int = 1

    def count(self, mask: Tensor) -> Tensor:
        """Return how many of the weights that a mask keeps belong to each head: (heads * shared,); shared ones count for each."""
        parts = mask.movedim(self.axis, 0).reshape(self.times, self.heads, -1)  # (times, heads, weights of a head)
        return parts.sum((0, 2)).repeat_interleave(self.shared)


@attrs.frozen(eq=False)
class Attention:
    """An attention module: its path, and where the weights of its heads are."""

    module: str
    heads: int
    slices: tuple[Slice, ...]


def attentions(model: nn.Module) -> tuple[Attention, ...]:
    """Return the attention modules of a network whose heads are found, in its order."""
    config = getattr(model, "config", None)
    found: list[Attention] = []
    for path, module in model.named_modules():
        if any(path.startswith(f"{one.module}.") for one in found):
            continue
        if isinstance(module, nn.MultiheadAttention):
            found.append(_torch(path, module))
        elif "attention" in type(module).__name__.lower() and (one := _other(path, module, config)) is not None:
            found.append(one)
    return tuple(found)


def heads(masks: Masks, model: nn.Module | None) -> pd.DataFrame:
    """Return one row per head; see `Masks.heads`."""
    import pandas as pd

    if model is None:
        raise UserError("masks know the heads of attention from their network only: give it, masks.heads(model=model).")
    if masks.units is not None:
        masks = masks.weights(model)
    first = {id(p): n for n, p in model.named_parameters()}
    named = dict(model.named_parameters(remove_duplicate=False))
    rows = []
    for one in attentions(model):
        kept = total = torch.zeros(one.heads, dtype=torch.long, device="cpu")
        for part in one.slices:
            name = first[id(named[part.parameter])]
            if name not in masks:
                continue
            mask = masks[name].cpu()
            kept, total = kept + part.count(mask), total + part.count(torch.ones_like(mask))
        if int(total.sum()):
            rows += [(one.module, h, int(k), int(t), int(k) / int(t)) for h, (k, t) in enumerate(zip(kept, total, strict=True))]
    if not rows:
        raise UserError(
            "these masks cover no attention whose heads are found: nn.MultiheadAttention, or modules called an attention, with linear "
            "layers for queries, keys, values and output, of a network whose config says num_attention_heads."
        )
    return pd.DataFrame(rows, columns=["module", "head", "kept", "total", "density"])


def _torch(path: str, module: nn.MultiheadAttention) -> Attention:
    at, count = f"{path}." if path else "", module.num_heads
    slices = []
    for name, times in (
        ("in_proj_weight", 3), ("q_proj_weight", 1), ("k_proj_weight", 1), ("v_proj_weight", 1), ("in_proj_bias", 3),
    ):  # fmt: skip
        if getattr(module, name, None) is not None:
            slices.append(Slice(f"{at}{name}", 0, count, times))
    slices += [Slice(f"{at}{n}", 2, count) for n in ("bias_k", "bias_v") if getattr(module, n, None) is not None]
    return Attention(path, count, (*slices, Slice(f"{at}out_proj.weight", 1, count)))


def _other(path: str, module: nn.Module, config: Any) -> Attention | None:
    """Return the heads of a module with linear layers in the order queries, keys, values, output; None if it is none."""
    config = getattr(module, "config", None) or config
    count, width = getattr(config, "num_attention_heads", None), getattr(config, "hidden_size", None)
    if not isinstance(count, int) or not isinstance(width, int) or count < 1:
        return None
    each = getattr(config, "head_dim", None) or getattr(config, "d_kv", None) or width // count
    pairs = getattr(config, "num_key_value_heads", None) or count
    layers = list(_linears(path, module))
    if not layers or count % pairs or layers[-1].given != count * each:
        return None
    before, last = layers[:-1], layers[-1]
    slices: list[Slice] = []
    if [one.made for one in before] == [count * each, pairs * each, pairs * each]:
        for one, number in zip(before, (count, pairs, pairs), strict=True):
            slices += [Slice(name, axis, number, 1, count // number) for name, axis in one.making]
    elif [one.made for one in before] == [3 * count * each] and before[0].conv:
        slices += [Slice(name, axis, count, 3) for name, axis in before[0].making]
    else:
        return None
    return Attention(path, count, (*slices, Slice(f"{last.path}.weight", last.takes, count)))


@attrs.frozen(eq=False)
class _Layer:
    path: str
    given: int
    made: int
    conv: bool
    """Whether it is transformers' `Conv1D`, whose weight is (inputs, outputs)."""
    biased: bool

    @property
    def making(self) -> list[tuple[str, int]]:
        """The parameters that make its outputs, and along which dimension."""
        return [(f"{self.path}.weight", int(self.conv)), *([(f"{self.path}.bias", 0)] if self.biased else [])]

    @property
    def takes(self) -> int:
        """The dimension of its inputs."""
        return 1 - int(self.conv)


def _linears(path: str, module: nn.Module) -> Iterator[_Layer]:
    for inner, layer in module.named_modules(prefix=path):
        weight = getattr(layer, "weight", None)
        conv = type(layer).__name__ == "Conv1D" and getattr(layer, "nf", None) is not None
        if not isinstance(weight, Tensor) or weight.dim() != 2 or not (isinstance(layer, nn.Linear) or conv):
            continue
        biased = isinstance(getattr(layer, "bias", None), Tensor)
        given, made = (weight.shape[0], weight.shape[1]) if conv else (weight.shape[1], weight.shape[0])
        yield _Layer(inner, given, made, conv, biased)
