"""Weights times factors of their rows or columns that differ between samples, without a copy per sample.

With d a factor per column, x (W diag(d))^T is (x d) W^T, and with r one per row, x (diag(r) W)^T is (x W^T) r: where a stock operation
is linear in the weight, its input or its output is multiplied instead, and so does the gradient come back. A `Gated` stands in the
weight's place. What has no rule here gets the product itself, (K, *shape), and the weight's name is noted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from modhook.stacked.rules.bridge import is_stacked
from modhook.stacked.rules.gated_recurrent import gated_layer
from modhook.stacked.rules.memory import Memory
from modhook.stacked.rules.through import attention_forward

Factor = tuple[str, Tensor]
"""A factor that broadcasts to the weight, and a text that is equal for factors that are equal number by number."""


class Gated(Tensor):
    """A weight under factors, inside vmap; made by `gated`.

    Attributes:
        plain: the weight, the same for all samples: (*shape). factors: of the weight's number of dimensions each.
        title: what it is called. used: where the names go of weights that were multiplied after all.
    """

    plain: Tensor
    factors: tuple[Factor, ...]
    title: str
    used: set[str]
    _whole: Tensor | None

    def whole(self) -> Tensor:
        """Return the product, and note it; that of a vector is as small as its factors."""
        if self._whole is None:
            if self.plain.dim() > 1:
                self.used.add(self.title)
            found = self.plain
            for _, factor in self.factors:
                found = found * factor
            self._whole = found
        return self._whole

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation by its rule, or on the product."""
        return by_factors(Memory(), func, args, kwargs or {})


def gated(plain: Tensor, factors: Sequence[Factor], name: str, used: set[str]) -> Tensor:
    """Return a weight under factors: a `Gated` where a factor is stacked, else the product."""
    if not any(is_stacked(factor) for _, factor in factors):
        for _, factor in factors:
            plain = plain * factor
        return plain
    made: Gated = plain.detach().as_subclass(Gated)
    made.plain, made.factors, made.title, made.used, made._whole = plain, tuple(factors), name, used, None
    return made


def by_factors(memory: Memory, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation that gets a `Gated`."""
    if func in _ASKED:
        return func(*_each(args, _plain), **kwargs)
    if func is Tensor.requires_grad.__get__:  # type: ignore[attr-defined]
        return True  # as of the product
    rule = _RULES.get(func)
    if rule is not None:
        result = rule(memory, func, args, kwargs)
        if result is not NotImplemented:
            return result
    return func(*_each(args, _whole), **{n: _each(v, _whole) for n, v in kwargs.items()})


def _each(value: Any, of: Callable[[Gated], Tensor]) -> Any:
    if isinstance(value, Gated):
        return of(value)
    return type(value)(_each(v, of) for v in value) if type(value) in (tuple, list) else value


def _plain(weight: Gated) -> Tensor:
    return weight.plain


def _whole(weight: Gated) -> Tensor:
    return weight.whole()


def _parted(weight: Gated, inner: int, outer: int) -> tuple[list[Tensor], list[Factor]] | None:
    """Return the factors along the dimension of inputs, and those along that of outputs or of all; None where others are among them."""
    inside, outside = [], []
    for label, factor in weight.factors:
        own = [d for d in range(factor.dim()) if factor.shape[d] != 1]
        if own == [inner]:
            inside.append(factor.reshape(-1))
        elif own in ([], [outer]):
            outside.append((label, factor.reshape(-1)))
        else:
            return None
    return inside, outside


def _applied(
    weight: Any, bias: Any, x: Tensor, inner: int, outer: int, spread: int, run: Callable[[Tensor, Tensor, Any], Tensor]
) -> Any:
    """Return run(x, weight, bias) of an operation that is linear in the weight, (..., channels, *`spread` dimensions)."""
    if isinstance(x, Gated):
        return NotImplemented
    if not isinstance(weight, Gated):
        return run(x, weight, bias.whole())
    parts = _parted(weight, inner, outer)
    if parts is None:
        return NotImplemented
    inside, outside = parts
    places = [1] * spread
    for factor in inside:
        x = x * factor.view(-1, *places)
    if not outside:
        return run(x, weight.plain, bias.whole() if isinstance(bias, Gated) else bias)
    alike = isinstance(bias, Gated) and [n for n, _ in bias.factors] == [n for n, _ in outside]
    y = run(x, weight.plain, bias.plain if alike else None)
    for _, factor in outside:
        y = y * factor.view(-1, *places)
    if bias is not None and not alike:
        y = y + (bias.whole() if isinstance(bias, Gated) else bias).view(-1, *places)
    return y


def _linear(memory: Memory, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = {**dict(zip(("input", "weight", "bias"), args, strict=False)), **kwargs}
    return _applied(given["weight"], given.get("bias"), given["input"], 1, 0, 0, func)


def _convolution(memory: Memory, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    turned = func in _TURNED
    further = ("output_padding", "groups", "dilation") if turned else ("dilation", "groups")
    names = ("input", "weight", "bias", "stride", "padding", *further)
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    x, weight, bias = given.pop("input"), given.pop("weight"), given.pop("bias", None)
    if given.get("groups", 1) != 1:
        return NotImplemented
    inner, outer = (0, 1) if turned else (1, 0)
    return _applied(weight, bias, x, inner, outer, weight.dim() - 2, lambda x, w, b: func(x, w, b, **given))


def _added(memory: Memory, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """torch.addmm(bias, x, weight): x W + b."""
    if kwargs or len(args) != 3 or (isinstance(args[0], Tensor) and args[0].dim() != 1):
        return NotImplemented
    bias, x, weight = args
    return _applied(weight, bias, x, 0, 1, 0, lambda x, w, b: x @ w if b is None else func(b, x, w))


def _product(memory: Memory, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x W."""
    if kwargs or len(args) != 2 or isinstance(args[0], Gated) or args[1].plain.dim() != 2:
        return NotImplemented
    return _applied(args[1], None, args[0], 0, 1, 0, lambda x, w, _: func(x, w))


def _turned(memory: Memory, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    weight, *dims = args
    if (
        kwargs
        or not isinstance(weight, Gated)
        or weight.plain.dim() != 2
        or {d % 2 for d in dims} not in (set(), {0, 1})
    ):
        return NotImplemented
    return gated(weight.plain.mT, [(n, f.mT) for n, f in weight.factors], weight.title, weight.used)


def _embedding(memory: Memory, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    names = ("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    ids, weight = given["input"], given["weight"]
    parts = _parted(weight, 0, 1)
    own = given.get("padding_idx") is not None or given.get("max_norm") is not None or given.get("scale_grad_by_freq")
    if own or parts is None:
        return NotImplemented
    found = func(ids, weight.plain)
    for factor in parts[0]:
        found = found * factor[ids].unsqueeze(-1)
    for _, factor in parts[1]:
        found = found * factor
    return found


def _recurrent(memory: Memory, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """torch.lstm and its like: factors of all rows of a level and direction are those of what its cells are given."""
    if kwargs or len(args) != 9 or not isinstance(args[2], list | tuple) or isinstance(args[3], list | tuple):
        return NotImplemented
    x, hx, weights, biased, layers, *options = args
    each, directions = (4 if biased else 2), 1 + bool(options[2])
    if len(weights) != layers * directions * each:
        return NotImplemented
    inputs: list[list[Tensor]] = []
    gates: list[list[Tensor]] = []
    for n in range(0, len(weights), each):
        own: list[Any] = list(weights[n : n + each])
        parts = [_parted(w, 1, 0) if isinstance(w, Gated) and w.plain.dim() == 2 else None for w in own[:2]]
        if any(isinstance(w, Gated) and p is None for w, p in zip(own, parts, strict=False)):
            return NotImplemented
        (inner, outer), (within, again) = (p or ([], []) for p in parts)
        labels = {tuple(label for label, _ in found) for found in (outer, again)}
        labels |= {tuple(label for label, _ in w.factors) if isinstance(w, Gated) else () for w in own[2:]}
        if len(labels) > 1 or within:
            return NotImplemented
        inputs.append(inner)
        gates.append([factor for _, factor in outer])
    states = [hx] if isinstance(hx, Tensor) else list(hx)
    return gated_layer(
        _KINDS[func], x, states, [_each(w, _plain) for w in weights], inputs, gates, biased, layers, *options
    )


_KINDS = {getattr(torch._VF, name): name for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")}
_TURNED = {F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d}
_RULES: dict[Any, Callable[..., Any]] = {
    F.linear: _linear,
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d, *_TURNED), _convolution),
    **dict.fromkeys((torch.addmm, Tensor.addmm), _added),
    **dict.fromkeys((torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__), _product),
    **dict.fromkeys(
        (
            Tensor.T.__get__, Tensor.mT.__get__, Tensor.t, torch.t, Tensor.transpose, torch.transpose,  # type: ignore[attr-defined]
            Tensor.swapaxes, torch.swapaxes,
        ),
        _turned,
    ),
    F.embedding: _embedding,
    **dict.fromkeys(_KINDS, _recurrent),
    F.multi_head_attention_forward: lambda memory, func, args, kwargs: attention_forward(*args, **kwargs),
}  # fmt: skip
_ASKED = {
    *(
        getattr(Tensor, name).__get__
        for name in ("shape", "dtype", "device", "ndim", "layout", "is_cuda", "is_cpu", "is_sparse", "is_quantized", "is_meta",
                     "is_leaf", "is_nested", "grad", "grad_fn", "_base", "_version", "itemsize", "nbytes", "names", "is_mps",
                     "is_xla", "is_xpu", "is_mkldnn", "is_sparse_csr")
        if hasattr(Tensor, name)
    ),
    Tensor.size, Tensor.dim, Tensor.stride, Tensor.numel, Tensor.nelement, Tensor.ndimension, Tensor.is_floating_point,
    Tensor.is_complex, Tensor.is_contiguous, Tensor.element_size, Tensor.__len__, Tensor.storage_offset, Tensor.get_device,
    Tensor.untyped_storage, Tensor.data_ptr, torch.is_floating_point, torch.is_complex, torch.numel,
}  # fmt: skip
"""What is asked of a weight without looking at its values."""
