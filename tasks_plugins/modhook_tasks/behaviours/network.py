"""The network `language_model`: one of `transformers`, with its weights or built from a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs
import torch
from torch import nn

from modhook import Model, UserError
from modhook.errors import listing, near_miss
from modhook_tasks.behaviours.hub import checked_folder, found_in, quiet, said, transformers

_AUTO = {"continuation": "AutoModelForCausalLM", "mask": "AutoModelForMaskedLM", "label": "AutoModelForSequenceClassification"}


@attrs.frozen
class LanguageModelOptions:
    """Options of the network `language_model`: either `pretrained` or `config`."""

    pretrained: str | None = None
    """A local folder, relative to the study file, in which `save_pretrained` left a network, or a name on the Hugging Face hub."""
    config: Mapping[str, Any] = attrs.field(factory=dict)
    """A new network: `model_type` ("gpt2", "llama", "bert", ...) and what its configuration takes; the task says the vocabulary."""
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    """The type of the weights."""
    attention: Literal["eager", "sdpa"] | None = None
    """How attention is computed; none given: as transformers chooses."""


class LanguageModel(Model):
    """A network of `transformers` with the head that the task's answers need. Dropout is the configuration's."""

    Options = LanguageModelOptions
    options: LanguageModelOptions

    def __init__(self, options: LanguageModelOptions) -> None:
        super().__init__(options)
        if (options.pretrained is None) == (not options.config):
            raise UserError("give either pretrained, a folder or a name on the hub, or config, a table with model_type.")
        if options.config and not isinstance(options.config.get("model_type"), str):
            raise UserError('config lacks model_type, such as "gpt2" or "llama".')
        if options.pretrained is not None:
            checked_folder("network", options.pretrained)

    def build(self, shape: Mapping[str, Any]) -> nn.Module:
        """Return a network for the shape of the task `behaviours`. Raises `UserError`."""
        if "head" not in shape:
            raise UserError(f"the network 'language_model' needs the task 'behaviours'; this task has {', '.join(shape)}.")
        options = self.options
        package = transformers("network", options.pretrained or str(options.config["model_type"]))
        found: nn.Module = self._configured(package, shape) if options.pretrained is None else self._pretrained(package, shape)
        longest = getattr(found.config, "max_position_embeddings", None)
        if isinstance(longest, int) and 0 < longest < shape["positions"]:
            raise UserError(
                f"the network {type(found).__name__} reads {longest} tokens at most, but the longest line of the task has "
                f"{shape['positions']}; set task.length to be told which."
            )
        return found

    def _configured(self, package: Any, shape: Mapping[str, Any]) -> nn.Module:
        given = {key: value for key, value in self.options.config.items() if key != "model_type"}
        kind = self.options.config["model_type"]
        try:
            default = package.AutoConfig.for_model(kind)
        except (ValueError, KeyError):
            known = list(package.CONFIG_MAPPING)
            raise UserError(f"transformers knows no model_type {kind!r}{near_miss(kind, known)}.") from None
        known = [*default.to_dict(), *getattr(default, "attribute_map", {})]
        if unknown := [key for key in given if key not in known]:
            hint = near_miss(unknown[0], known) or f"; it has {listing(sorted(known))}"
            raise UserError(f"the configuration of {kind!r} has no {unknown[0]!r}{hint}.")
        sizes = {"vocab_size": shape["vocabulary"], "pad_token_id": shape["padding"], "bos_token_id": None, "eos_token_id": None}
        if shape["head"] == "label":
            sizes["num_labels"] = shape["labels"]
        if self.options.attention is not None:
            sizes["attn_implementation"] = self.options.attention
        try:
            with quiet():
                config = package.AutoConfig.for_model(kind, **{**sizes, **given})
                made = getattr(package, _AUTO[shape["head"]]).from_config(config)
        except Exception as error:
            raise UserError(f"transformers makes no {kind!r} with this head of {dict(self.options.config)}: {said(error)}.") from error
        return made.to(getattr(torch, self.options.dtype))  # type: ignore[no-any-return]

    def _pretrained(self, package: Any, shape: Mapping[str, Any]) -> nn.Module:
        name, options = self.options.pretrained, self.options
        assert name is not None
        more = {} if options.attention is None else {"attn_implementation": options.attention}
        auto = getattr(package, _AUTO[shape["head"]])

        def load(place: str) -> Any:
            with torch.device("cpu"):  # its weights come with it, also where only shapes are asked for
                return auto.from_pretrained(place, dtype=getattr(torch, options.dtype), output_loading_info=True, **more)

        found, info = found_in("network", name, load)
        if missing := sorted(info["missing_keys"]):
            raise UserError(
                f"the network {name!r} has no head for these answers: {auto.__name__} finds no weights there for "
                f"{listing(missing, 4)}; save it with its head, or choose another task.kind."
            )
        return found.eval()  # type: ignore[no-any-return]
