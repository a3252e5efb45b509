"""Every torch.nn class that has parameters, the recurrent ones in all their variants."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import rnn
from zoo_harness import Case

B, T, D = 3, 5, 8
Data = Callable[[], tuple[tuple[Any, ...], dict[str, Any]]]


def floats(*shapes: tuple[int, ...], **given: Callable[[], Any]) -> Data:
    """Return a maker of random tensors of these shapes, and of keyword arguments."""
    return lambda: (tuple(torch.randn(shape) for shape in shapes), {name: make() for name, make in given.items()})


def ids(high: int, *shape: int) -> Tensor:
    """Return random whole numbers below `high`."""
    return torch.randint(high, shape)


def padded() -> Tensor:
    """Return a mask that is true where a sequence of each item is padding."""
    return torch.arange(T).expand(B, T) >= torch.tensor([T, T - 1, T - 2])[:, None]


def image(channels: int, dims: int, size: int = 6) -> Data:
    """Return a maker of images, (B, channels, size, ...)."""
    return floats((B, channels, *[size] * dims))


class ParameterContainers(nn.Module):
    """Uses a list and a dict of parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.listed = nn.ParameterList([torch.randn(D, D), torch.randn(D)])
        self.named = nn.ParameterDict({"scale": torch.randn(D)})

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.listed[0] + self.listed[1]).tanh() * self.named["scale"]


class ModuleContainers(nn.Module):
    """Uses a list and a dict of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.listed = nn.ModuleList([nn.Linear(D, D), nn.Linear(D, D)])
        self.named = nn.ModuleDict({"norm": nn.LayerNorm(D)})

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.listed:
            x = self.named["norm"](layer(x).tanh())
        return x


def lazy(module: nn.Module, data: Data) -> nn.Module:
    """Return the lazy module after its first call."""
    args, _ = data()
    module(*args)
    return module


def small(**options: Any) -> dict[str, Any]:
    """Return the sizes of a small Transformer layer."""
    return {"d_model": D, "nhead": 2, "dim_feedforward": 12, "batch_first": True, **options}


SEQUENCE = floats((B, T, D))
TWO_SEQUENCES = floats((B, T, D), (B, T + 1, D))

LAYERS: dict[str, list[tuple[str, Callable[[], nn.Module], Data]]] = {
    "AdaptiveLogSoftmaxWithLoss": [
        (
            "",
            lambda: nn.AdaptiveLogSoftmaxWithLoss(2 * D, 20, [5, 10]),
            lambda: ((torch.randn(B, 2 * D), ids(20, B)), {}),
        )
    ],
    "BatchNorm1d": [
        ("", lambda: nn.BatchNorm1d(D), floats((B, D))),
        ("untracked", lambda: nn.BatchNorm1d(D, track_running_stats=False), floats((B, D))),
        ("cumulative", lambda: nn.BatchNorm1d(D, momentum=None), floats((B, D, T))),
    ],
    "BatchNorm2d": [("", lambda: nn.BatchNorm2d(4), image(4, 2))],
    "BatchNorm3d": [("", lambda: nn.BatchNorm3d(4), image(4, 3, 3))],
    "Bilinear": [
        ("", lambda: nn.Bilinear(D, 4, 5), floats((B, D), (B, 4))),
        ("no bias", lambda: nn.Bilinear(D, 4, 5, bias=False), floats((B, T, D), (B, T, 4))),
    ],
    "Embedding": [
        ("", lambda: nn.Embedding(10, D), lambda: ((ids(10, B, T),), {})),
        ("padding", lambda: nn.Embedding(10, D, padding_idx=0), lambda: ((ids(10, B, T),), {})),
        ("max_norm", lambda: nn.Embedding(10, D, max_norm=0.5), lambda: ((ids(10, B, T),), {})),
        ("scaled", lambda: nn.Embedding(10, D, scale_grad_by_freq=True), lambda: ((ids(10, B, T),), {})),
    ],
    "EmbeddingBag": [
        *(
            (mode, lambda mode=mode: nn.EmbeddingBag(10, D, mode=mode), lambda: ((ids(10, B, T),), {}))
            for mode in ("mean", "sum", "max")
        ),
        ("offsets", lambda: nn.EmbeddingBag(10, D), lambda: ((ids(10, 9), torch.tensor([0, 4])), {})),
        (
            "weighted",
            lambda: nn.EmbeddingBag(10, D, mode="sum"),
            lambda: ((ids(10, B, T),), {"per_sample_weights": torch.randn(B, T)}),
        ),
    ],
    "GroupNorm": [("", lambda: nn.GroupNorm(2, 4), image(4, 2))],
    "LayerNorm": [
        ("", lambda: nn.LayerNorm(D), SEQUENCE),
        ("no bias", lambda: nn.LayerNorm((T, D), bias=False), SEQUENCE),
    ],
    "RMSNorm": [("", lambda: nn.RMSNorm(D), SEQUENCE)],
    "Linear": [("", lambda: nn.Linear(D, 4), SEQUENCE), ("no bias", lambda: nn.Linear(D, 4, bias=False), floats((D,)))],
    "LinearCrossEntropyLoss": [
        ("", lambda: nn.LinearCrossEntropyLoss(D, 6), lambda: ((torch.randn(B, D), ids(6, B)), {}))
    ],
    "ModuleList": [("with ModuleDict", ModuleContainers, SEQUENCE)],
    "ParameterList": [("with ParameterDict", ParameterContainers, SEQUENCE)],
    "PReLU": [("", nn.PReLU, SEQUENCE), ("per channel", lambda: nn.PReLU(4), image(4, 2))],
    "SyncBatchNorm": [("", lambda: nn.SyncBatchNorm(4), image(4, 2))],
    "MultiheadAttention": [
        ("", lambda: nn.MultiheadAttention(D, 2), lambda: ((x := torch.randn(T, B, D), x, x), {})),
        (
            "batch first",
            lambda: nn.MultiheadAttention(D, 2, batch_first=True),
            lambda: ((x := torch.randn(B, T, D), x, x), {"need_weights": False}),
        ),
        (
            "padding",
            lambda: nn.MultiheadAttention(D, 2, batch_first=True),
            lambda: ((x := torch.randn(B, T, D), x, x), {"key_padding_mask": padded()}),
        ),
        (
            "causal",
            lambda: nn.MultiheadAttention(D, 2, batch_first=True),
            lambda: (
                (x := torch.randn(B, T, D), x, x),
                {
                    "attn_mask": nn.Transformer.generate_square_subsequent_mask(T),
                    "is_causal": True,
                    "need_weights": False,
                },
            ),
        ),
        (
            "other sizes, bias_kv",
            lambda: nn.MultiheadAttention(D, 2, kdim=4, vdim=6, add_bias_kv=True, add_zero_attn=True, batch_first=True),
            floats((B, T, D), (B, 4, 4), (B, 4, 6)),
        ),
    ],
    "Transformer": [
        ("", lambda: nn.Transformer(D, 2, 2, 2, 12, batch_first=True, dropout=0.0), TWO_SEQUENCES),
        (
            "masks",
            lambda: nn.Transformer(D, 2, 1, 1, 12, batch_first=True, dropout=0.0),
            floats(
                (B, T, D),
                (B, T, D),
                tgt_mask=lambda: nn.Transformer.generate_square_subsequent_mask(T),
                src_key_padding_mask=padded,
                memory_key_padding_mask=padded,
                tgt_is_causal=lambda: True,
            ),
        ),
    ],
    "TransformerDecoder": [
        ("", lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(**small()), 2), TWO_SEQUENCES)
    ],
    "TransformerDecoderLayer": [
        ("", lambda: nn.TransformerDecoderLayer(**small()), TWO_SEQUENCES),
        ("norm first", lambda: nn.TransformerDecoderLayer(**small(norm_first=True, activation="gelu")), TWO_SEQUENCES),
    ],
    "TransformerEncoder": [
        ("", lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(**small()), 2), SEQUENCE),
        (
            "padding",
            lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(**small()), 2),
            floats((B, T, D), src_key_padding_mask=padded),
        ),
    ],
    "TransformerEncoderLayer": [
        ("", lambda: nn.TransformerEncoderLayer(**small()), SEQUENCE),
        ("norm first", lambda: nn.TransformerEncoderLayer(**small(norm_first=True)), SEQUENCE),
        ("padding", lambda: nn.TransformerEncoderLayer(**small()), floats((B, T, D), src_key_padding_mask=padded)),
        (
            "causal",
            lambda: nn.TransformerEncoderLayer(**small()),
            floats(
                (B, T, D), src_mask=lambda: nn.Transformer.generate_square_subsequent_mask(T), is_causal=lambda: True
            ),
        ),
    ],
}

for dims in (1, 2, 3):
    conv, transposed = getattr(nn, f"Conv{dims}d"), getattr(nn, f"ConvTranspose{dims}d")
    size = 6 if dims < 3 else 4
    LAYERS[f"Conv{dims}d"] = [
        ("", lambda conv=conv: conv(4, 6, 3), image(4, dims, size)),
        (
            "grouped, strided, dilated",
            lambda conv=conv: conv(4, 6, 2, stride=2, padding=1, dilation=2, groups=2),
            image(4, dims, size),
        ),
        (
            "reflecting" if dims < 3 else "circular",
            lambda conv=conv, dims=dims: conv(
                4, 6, 3, padding=1, bias=False, padding_mode="reflect" if dims < 3 else "circular"
            ),
            image(4, dims, size),
        ),
        ("same", lambda conv=conv: conv(4, 6, 3, padding="same"), image(4, dims, size)),
    ]
    LAYERS[f"ConvTranspose{dims}d"] = [
        ("", lambda conv=transposed: conv(4, 6, 3), image(4, dims, 4)),
        (
            "grouped, strided",
            lambda conv=transposed: conv(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
            image(4, dims, 4),
        ),
    ]
    norm = getattr(nn, f"InstanceNorm{dims}d")
    LAYERS[f"InstanceNorm{dims}d"] = [
        ("", lambda norm=norm: norm(4, affine=True), image(4, dims, size)),
        ("tracked", lambda norm=norm: norm(4, affine=True, track_running_stats=True), image(4, dims, size)),
    ]
    for name, make in (
        ("Conv", lambda dims=dims: getattr(nn, f"LazyConv{dims}d")(6, 3)),
        ("ConvTranspose", lambda dims=dims: getattr(nn, f"LazyConvTranspose{dims}d")(6, 3)),
        ("BatchNorm", lambda dims=dims: getattr(nn, f"LazyBatchNorm{dims}d")()),
        ("InstanceNorm", lambda dims=dims: getattr(nn, f"LazyInstanceNorm{dims}d")(affine=True)),
    ):
        data = image(4, dims, size)
        LAYERS[f"Lazy{name}{dims}d"] = [("after its first call", lambda make=make, data=data: lazy(make(), data), data)]
LAYERS["LazyLinear"] = [("after its first call", lambda: lazy(nn.LazyLinear(4), SEQUENCE), SEQUENCE)]


class Packed(nn.Module):
    """Packs its sequences, sorted or not, and unpacks what comes out."""

    def __init__(self, layer: nn.Module, batch_first: bool, lengths: list[int]) -> None:
        super().__init__()
        self.layer, self.batch_first, self.lengths = layer, batch_first, lengths

    def forward(self, x: Tensor) -> Any:
        packed = rnn.pack_padded_sequence(x, torch.tensor(self.lengths), self.batch_first, enforce_sorted=False)
        out, state = self.layer(packed)
        return rnn.pad_packed_sequence(out, self.batch_first)[0], state


class Steps(nn.Module):
    """Calls a cell once per step."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Any:
        state = None
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        return state


def recurrent() -> Iterator[tuple[str, Callable[[], nn.Module], Data]]:
    """Yield every variant of the recurrent layers and cells: (name, build, data)."""
    kinds: dict[str, Callable[..., nn.Module]] = {
        "LSTM": nn.LSTM,
        "GRU": nn.GRU,
        "RNN tanh": nn.RNN,
        "RNN relu": lambda *a, **o: nn.RNN(*a, nonlinearity="relu", **o),
    }
    for kind, make in kinds.items():
        projections = (0, 3) if kind == "LSTM" else (0,)
        for layers, bidirectional, first, proj in itertools.product((1, 2), (False, True), (False, True), projections):
            options = {"num_layers": layers, "bidirectional": bidirectional, "batch_first": first}
            options |= {"proj_size": proj} if proj else {}
            words = [
                f"{layers} layers" if layers > 1 else "",
                "bidirectional" * bidirectional,
                "batch first" * first,
                "projection" * bool(proj),
            ]
            name = ", ".join([kind, *filter(None, words)])
            data = floats((B, T, D) if first else (T, B, D))
            yield name, lambda make=make, o=options: make(D, 6, **o), data
            yield (
                f"{name}, packed",
                lambda make=make, o=options, first=first: Packed(make(D, 6, **o), first, [3, T, 2]),
                data,
            )
        yield f"{kind}, no bias, 2 steps", lambda make=make: make(D, 6, bias=False), floats((2, B, D))
        yield f"{kind}, no batch", lambda make=make: make(D, 6), floats((T, D))
    for cell in (nn.LSTMCell, nn.GRUCell, nn.RNNCell):
        yield cell.__name__, lambda cell=cell: Steps(cell(D, 6)), SEQUENCE
    yield "RNNCell relu", lambda: Steps(nn.RNNCell(D, 6, nonlinearity="relu")), SEQUENCE


# These stand above or inside others: what uses them is in the zoo.
ABSTRACT = {
    "Module": "the base of everything here",
    "Container": "an old name of Module",
    "RNNBase": "LSTM, GRU and RNN",
    "RNNCellBase": "LSTMCell, GRUCell and RNNCell",
    "Sequential": "the nasty modules and the deep networks",
    "ModuleDict": "ModuleList",
    "ParameterDict": "ParameterList",
    "DataParallel": "needs several GPUs; wraps any module",
}
RECURRENT = {"LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"}

# What the classes without parameters need to be built, so that the test can see that they have none.
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    **{
        f"{kind}{d}d": (1,)
        for kind in ("AdaptiveAvgPool", "AdaptiveMaxPool", "AvgPool", "MaxPool", "MaxUnpool")
        for d in (1, 2, 3)
    },
    **{f"{kind}Pad{d}d": (1,) for kind in ("Circular", "Reflection", "Replication", "Zero") for d in (1, 2, 3)},
    **{f"ConstantPad{d}d": (1, 0.0) for d in (1, 2, 3)},
    **{f"LPPool{d}d": (2, 2) for d in (1, 2, 3)},
    **{f"FractionalMaxPool{d}d": (2, 2) for d in (2, 3)},
    **dict.fromkeys(
        ("ChannelShuffle", "CrossMapLRN2d", "LocalResponseNorm", "PixelShuffle", "PixelUnshuffle", "Unfold"), (2,)
    ),
    "Fold": (4, 2),
    "Threshold": (0.1, 0.0),
    "Unflatten": (1, (2, 2)),
}


def cases() -> Iterator[Case]:
    """Yield all layers in train and eval mode."""
    for training in (True, False):
        for kind, variants in LAYERS.items():
            for variant, build, data in variants:
                yield Case(f"{kind}, {variant}" if variant else kind, "layer", build, data, training)
        for name, build, data in recurrent():
            yield Case(name, "recurrent", build, data, training)
