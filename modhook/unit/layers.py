"""What single layers do with units: which of their parameters make them, take them, or keep to them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm

ELEMENTWISE = (
    nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.Softplus,
    nn.Softsign, nn.Softshrink, nn.Hardshrink, nn.Tanhshrink, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid,
    nn.Threshold, nn.RReLU, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
    nn.Identity,
)  # fmt: skip
"""Layers under which every unit stays by itself."""
CHANNELWISE = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, nn.LPPool1d, nn.LPPool2d, nn.Upsample,
    nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.ReflectionPad1d,
    nn.ReflectionPad2d, nn.ReflectionPad3d, nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d, nn.ConstantPad1d,
    nn.ConstantPad2d, nn.ConstantPad3d, nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d,
)  # fmt: skip
"""Layers that work on each channel, the second dimension, by itself."""
NORMS = (_BatchNorm, _InstanceNorm)
CONVS = _ConvNd
TRANSPOSED = _ConvTransposeNd
ALIKE = {
    "relu", "relu6", "gelu", "silu", "mish", "tanh", "sigmoid", "leaky_relu", "elu", "celu", "selu", "softplus", "softsign",
    "softshrink", "hardshrink", "tanhshrink", "hardtanh", "hardswish", "hardsigmoid", "logsigmoid", "log_sigmoid", "threshold",
    "rrelu", "prelu", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "abs", "exp", "neg",
    "square", "clamp", "clip", "contiguous", "clone", "detach", "to", "float", "double", "half", "bfloat16",
    "type", "type_as", "positive", "sin", "cos", "erf", "log1p", "expm1", "sign", "requires_grad", "cpu", "cuda",
    "nan_to_num", "clamp_min", "clamp_max",
}  # fmt: skip
"""Functions and methods of tensors under which every unit stays by itself, and finite at 0, by name; those that work in place are
named alike."""
CHANNELS = {
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "lp_pool1d", "lp_pool2d", "interpolate",
    "upsample",
}  # fmt: skip
ATTRIBUTES = {"shape", "device", "dtype", "ndim", "layout", "is_cuda", "requires_grad", "itemsize"}
ASKED = {"size", "dim", "ndimension", "numel", "is_contiguous", "zeros_like", "ones_like", "new_zeros", "new_ones", "new_empty", "stride",
         "is_floating_point", "get_device", "empty_like"}  # fmt: skip
"""What is asked of a tensor without looking at its values."""


def linear_axis(module: nn.Module) -> int | None:
    """Return which dimension of a layer's `weight` its outputs are, if it computes x W^T + b (0) or x W + b (1); else None.

    A class that is not torch's own is tried on random inputs.
    """
    own = module._parameters
    weight, bias = own.get("weight"), own.get("bias")
    if weight is None or weight.dim() != 2 or not weight.is_floating_point() or set(own) - {"weight", "bias"}:
        return None
    if type(module).forward is nn.Linear.forward:
        return 0
    if (
        any(True for _ in module.children())
        or any(True for _ in module.buffers(recurse=False))
        or isinstance(module, nn.Embedding | nn.EmbeddingBag | nn.LayerNorm)
    ):
        return None
    for axis in (0, 1):
        if (bias is None or bias.shape == (weight.shape[axis],)) and _computes(module, weight, bias, axis):
            return axis
    return None


def features(module: nn.Module) -> tuple[int, int]:
    """Return how many features a linear layer takes and gives."""
    axis = linear_axis(module)
    assert axis is not None
    shape = module._parameters["weight"].shape  # type: ignore[union-attr]
    return int(shape[1 - axis]), int(shape[axis])


def _computes(module: nn.Module, weight: Tensor, bias: Tensor | None, axis: int) -> bool:
    if weight.is_meta:
        return False
    generator = torch.Generator("cpu").manual_seed(0)
    x = torch.randn(2, 3, weight.shape[1 - axis], generator=generator, device="cpu").to(weight.device, weight.dtype)
    wanted = x @ (weight.T if axis == 0 else weight)
    try:
        with torch.no_grad():
            found = module(x)
    except Exception:
        return False
    wanted = wanted if bias is None else wanted + bias
    close = isinstance(found, Tensor) and found.shape == wanted.shape
    return close and bool(torch.allclose(found, wanted, rtol=1e-2, atol=1e-3 * float(wanted.detach().abs().max())))
