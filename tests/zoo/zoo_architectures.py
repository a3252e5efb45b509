"""Architecture families of `transformers`, built offline from tiny configs, with and without padding masks."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import torch
import transformers
from torch import Tensor, nn
from zoo_harness import Case

VOCABULARY, B, T = 40, 3, 9
Data = Callable[[], tuple[tuple[Any, ...], dict[str, Any]]]


@attrs.frozen
class Family:
    """One family: its config and model classes, the tiny sizes, what it reads, and whether it takes a padding mask."""

    kind: str
    config: str
    model: str
    sizes: dict[str, Any]
    reads: str = "tokens"
    padding: bool = True
    dtype: torch.dtype = torch.float64
    why: str = ""


def _families() -> dict[str, Family]:
    """Return what families.toml says."""
    with (Path(__file__).parent / "families.toml").open("rb") as file:
        read = tomllib.load(file)
    bases = read.pop("base")
    for sizes in bases.values():
        sizes |= bases[sizes.pop("base")] if "base" in sizes else {}
    families = {}
    for name, row in read.items():
        left_out = row.pop("without", [])
        sizes = {key: value for key, value in bases.get(row.pop("base", ""), {}).items() if key not in left_out}
        dtype = getattr(torch, row.pop("dtype", "float64"))
        families[name] = Family(**{**row, "sizes": {**sizes, **row.get("sizes", {})}, "dtype": dtype})
    return families


FAMILIES = _families()


def tokens() -> Tensor:
    """Return token ids that are no special ones."""
    return torch.randint(4, VOCABULARY, (B, T))


def padding(length: int = T) -> Tensor:
    """Return an attention mask: 0 where a sequence is padding."""
    lengths = torch.tensor([length, length - 2, length - length // 3])
    return (torch.arange(length).expand(B, length) < lengths[:, None]).long()


def _example(reads: str) -> tuple[dict[str, Any], Tensor]:
    """Return keyword arguments of a call, and the padding mask that fits them."""
    match reads:
        case "tokens":
            return {"input_ids": tokens()}, padding()
        case "labelled tokens":
            return {"input_ids": (ids := tokens()), "labels": ids.clone()}, padding()
        case "two sequences":
            return {"input_ids": tokens(), "decoder_input_ids": tokens()[:, :6]}, padding()
        case "image" | "large image":
            size = 16 if reads == "image" else 32
            return {"pixel_values": torch.randn(B, 3, size, size)}, torch.empty(0)
        case "image and tokens":
            return {"pixel_values": torch.randn(B, 3, 16, 16), "input_ids": tokens()}, padding()
        case "waveform":
            return {"input_values": torch.randn(B, 60)}, padding(60)
        case "spectrogram":
            return {"input_features": torch.randn(B, 4, 16), "decoder_input_ids": tokens()}, torch.empty(0)
        case "features":
            return {"input_features": torch.randn(B, 16, 4), "decoder_input_ids": tokens()}, padding(16)
        case "spectrogram of the AST":
            return {"input_values": torch.randn(B, 16, 8)}, torch.empty(0)
        case "series":
            past = {
                "past_values": torch.rand(B, 7) + 1,
                "past_time_features": torch.randn(B, 7, 2),
                "past_observed_mask": torch.ones(B, 7),
            }
            return {
                **past,
                "future_values": torch.rand(B, 3) + 1,
                "future_time_features": torch.randn(B, 3, 2),
            }, torch.empty(0)
        case "patches":
            return {"past_values": torch.randn(B, 16, 2)}, torch.empty(0)
        case "trajectory":
            numbers = {
                "states": torch.randn(B, 5, 4),
                "actions": torch.randn(B, 5, 3),
                "returns_to_go": torch.randn(B, 5, 1),
                "rewards": torch.randn(B, 5, 1),
            }
            return {**numbers, "timesteps": torch.arange(5).expand(B, 5)}, padding(5)
        case _:
            return {"inputs": torch.randn(B, T, 8)}, padding()


def _data(family: Family, masked: bool) -> Data:
    def make() -> tuple[tuple[Any, ...], dict[str, Any]]:
        kwargs, mask = _example(family.reads)
        if masked:
            kwargs["attention_mask"] = mask
        return (), kwargs

    return make


def _build(family: Family) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        sizes = dict(family.sizes)
        attention, experts = sizes.pop("attn_implementation", None), sizes.pop("experts_implementation", None)
        config = getattr(transformers, family.config)(**sizes)
        if attention:
            config._attn_implementation = attention
        if experts:
            config._experts_implementation = experts
        model: nn.Module = getattr(transformers, family.model)(config)
        return model

    return build


def cases() -> Iterator[Case]:
    """Yield every family in train mode without padding, and in eval mode with padding where it takes a mask."""
    for name, family in FAMILIES.items():
        build = _build(family)
        options = {"dtype": family.dtype, "why": family.why}
        yield Case(name, family.kind, build, _data(family, False), training=True, **options)
        masked = family.padding and family.reads not in ("image", "large image")
        yield Case(
            f"{name}, padding" if masked else name, family.kind, build, _data(family, masked), training=False, **options
        )
