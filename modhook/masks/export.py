"""Masks for other programs, and from them: plain checkpoints, torch's pruning, boolean state dicts, MIB's circuits.

`modhook.export` is this module.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from modhook.errors import MaskError, UserError, listing, near_miss
from modhook.masks.masks import Masks
from modhook.masks.off import Off
from modhook.network.files import write_whole
from modhook.network.threads import using
from modhook.values.arguments import checked, instance, shown
from modhook.values.bounds import Count
from modhook.values.places import places_at

__all__ = ["checkpoint", "from_prune", "from_state_dict", "mib", "node_scores", "prune", "state_dict"]

_M = TypeVar("_M", bound=nn.Module)
_ORIGINAL, _MASK = "_orig", "_mask"  # the names that torch.nn.utils.prune gives


def checkpoint(masks: Masks, model: nn.Module, path: str | Path, off: Off = None, *, seed: int = 0) -> Path:
    """Write the network with only the weights that the masks keep, as a checkpoint that knows nothing of masks.

    A network with `save_pretrained` (transformers, diffusers, sentence-transformers) is saved by it, to the folder `path`. Of any
    other, its state dict becomes the safetensors file `path`, for `model.load_state_dict(safetensors.torch.load_file(path))`; tied
    weights stand in it under each of their names.

    Args:
        masks, model: the masks and their network.
        path: the file, or the folder.
        off, seed: what the other weights become, as in `Masks.applied_to`: zero by default.

    Returns:
        The path.

    Raises:
        MaskError: masks that do not fit. UserError: a path that cannot be written, state that is no tensor, masks of weights that a
            network with adapters (PEFT) does not save.
    """
    _masks(masks)
    instance("path", path, (str, Path), "a path")
    path, plain = Path(path), masks.materialize(model, off, seed=seed)
    if callable(save := getattr(plain, "save_pretrained", None)):
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file, but {type(model).__name__} is saved to a folder; give another path.")
        if unsaved := _beside_adapters(masks._on(model), plain):
            merged = ", or of the network after merge_and_unload()" if hasattr(plain, "merge_and_unload") else ""
            raise UserError(
                f"{type(model).__name__} saves its adapters alone, and masks of {listing(unsaved, 3)} would be lost; learn masks of its "
                f"adapters alone (of LoRA include='*lora*'){merged}."
            )
        try:
            save(str(path))
        except OSError as error:
            raise UserError(f"the checkpoint cannot be written to {path}: {error.strerror or error}.") from error
        return path
    from safetensors.torch import save as serialised

    tensors: dict[str, Tensor] = {}
    for name, value in plain.state_dict().items():
        if not isinstance(value, Tensor) or value.is_meta or value.layout != torch.strided or value.is_quantized:
            what = f"a tensor of kind {value.layout}" if isinstance(value, Tensor) else shown(value)
            raise UserError(
                f"{name!r} is {what}, which a safetensors file cannot hold; save the network by its own way."
            )
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
    try:
        write_whole(path, serialised(tensors, {"format": "pt"}))
    except OSError as error:
        raise UserError(f"the checkpoint cannot be written to {path}: {error.strerror or error}.") from error
    return path


def prune(masks: Masks, model: _M) -> _M:
    """Put masks on a network as `torch.nn.utils.prune` does, in place, and return it.

    Each masked parameter `weight` becomes `weight_orig`, beside a buffer `weight_mask`; `torch.nn.utils.prune.remove(module, "weight")`
    makes it plain again. Raises `MaskError` for masks that do not fit; then nothing is changed.
    """
    from torch.nn.utils.prune import custom_from_mask

    _masks(masks)
    instance("model", model, nn.Module, "an nn.Module")
    with using(model):
        own = (masks.weights(model) if masks.units else masks)._of(model)
        names = [n for n, _ in model.named_parameters(remove_duplicate=False) if n in own]  # every name of a tied one
        for name in names:
            owner, _, short = name.rpartition(".")
            module = model.get_submodule(owner)
            if short in module._parameters:  # a module with two names is pruned once
                custom_from_mask(module, short, own[name].to(module._parameters[short].device))  # type: ignore[union-attr]
    return model


def from_prune(pruned: nn.Module, model: nn.Module | None = None) -> Masks:
    """Return the masks of a network that `torch.nn.utils.prune` has pruned, by the names of the unpruned network.

    Args:
        pruned: a network with parametrisations of `torch.nn.utils.prune`; it is not changed.
        model: the same network unpruned; names and shapes are checked, and its fingerprint is kept.

    Raises:
        MaskError: no parameter is pruned, a mask with values other than 0 and 1, or masks that do not fit `model`.
    """
    instance("pruned", pruned, nn.Module, "an nn.Module")
    with using(pruned):
        originals = {n for n, _ in pruned.named_parameters(remove_duplicate=False)}
        found = _paired(originals, dict(pruned.named_buffers(remove_duplicate=False)))
    if not found:
        raise MaskError(
            f"{type(pruned).__name__} is not pruned by torch.nn.utils.prune: no parameter has a mask beside it."
        )
    return Masks({n: _binary(n, t) for n, t in found.items()}, model)


def state_dict(masks: Masks) -> dict[str, Tensor]:
    """Return masks as a plain state dict: {parameter name: bool tensor}, on the masks' device; `torch.save` and safetensors take it.

    Raises `MaskError` for masks of units, which are no parameters: `masks.weights(model)` are the same masks on weights.
    """
    _masks(masks)
    if masks.units:
        raise MaskError(
            f"{listing(map(repr, masks.units), 3)} are units and no parameters, which a state dict does not know; export "
            "masks.weights(model), the same masks on weights, or keep them with masks.save(path)."
        )
    return dict(masks.items())


def from_state_dict(state: Mapping[str, Tensor], model: nn.Module | None = None) -> Masks:
    """Return masks from a state dict of bool tensors, or of numbers that are all 0 or 1.

    That of a network pruned by `torch.nn.utils.prune` is read as well: its entries `weight_mask` beside `weight_orig`.

    Args:
        state: {name: tensor}.
        model: the network they are meant for; names and shapes are checked, and its fingerprint is kept.

    Raises:
        MaskError: no entry, other values than 0 and 1 (says where), or masks that do not fit `model`.
    """
    if not isinstance(state, Mapping) or not all(
        isinstance(n, str) and isinstance(t, Tensor) for n, t in state.items()
    ):
        raise MaskError(f"a state dict of masks is {{parameter name: tensor}}, not {shown(state)}.")
    if not state:
        raise MaskError("the state dict is empty, so it holds no masks.")
    pruned = _paired(set(state), state)
    return Masks({n: _binary(n, t) for n, t in (pruned or state).items()}, model)


def node_scores(masks: Masks, nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the share of weights that masks keep of each node of a circuit, such as a head or an MLP.

    Args:
        masks: the masks.
        nodes: {node: {parameter: index}}: which part of which tensors a node is, as `tensor[index]`: `slice(0, 64)`, `...` for the
            whole, `(slice(None), 3)`.

    Raises:
        UserError: a parameter without a mask, an index that its tensor does not have, a node without any weight.
    """
    _masks(masks)
    if not isinstance(nodes, Mapping) or not all(isinstance(places, Mapping) for places in nodes.values()):
        raise UserError(f"nodes must be {{node: {{parameter: index}}}}, not {shown(nodes)}.")
    found = {}
    for node, places in nodes.items():
        kept = size = 0
        for name, index in places.items():
            if name not in masks:
                raise UserError(
                    f"node {node!r} names {name!r}{near_miss(name, masks)}, which has no mask; masked: {listing(masks)}."
                )
            mask = masks[name].cpu()
            part = mask.reshape(-1)[places_at(f"node {node!r}", name, tuple(mask.shape), index)]  # (n,)
            kept, size = kept + int(part.sum()), size + part.numel()
        if not size:
            raise UserError(f"node {node!r} has no weight; give it at least one part of a masked tensor.")
        found[node] = kept / size
    return found


def mib(
    scores: Mapping[str, float],
    path: str | Path,
    *,
    layers: int,
    heads: int,
    width: int,
    keep: Iterable[str] = (),
    parallel: bool = False,
) -> Path:
    """Write a score per node as the JSON that the MIB benchmark's circuit track reads (Mueller et al. 2025), for its level "node".

    Args:
        scores: {node: number}: each attention head `a0.h3` (layer 0, head 3) and each MLP `m0` of the network, and of `input` (the
            embeddings) if it is to be ranked, too: the benchmark always keeps a node without a score.
        path: the file.
        layers, heads, width: of the network: its layers, heads per layer, and the size of its residual stream.
        keep: nodes of one circuit, for a submission by membership; its scores then count for nothing.
        parallel: whether attention and MLP of a layer read the same input.

    Returns:
        The path. The file has no edges: their level needs scores of its own.

    Raises:
        UserError: a node that the network does not have, one without a score, a score that is no finite number, a path that cannot be
            written.
    """
    layers, heads, width = (checked(n, v, Count) for n, v in (("layers", layers), ("heads", heads), ("width", width)))
    parallel = checked("parallel", parallel, bool)
    instance("path", path, (str, Path), "a path")
    if not isinstance(scores, Mapping):
        raise UserError(f"scores must be {{node: number}}, such as {{'a0.h0': 0.7, 'm0': 0.1}}, not {shown(scores)}.")
    keep = tuple(keep) if not isinstance(keep, str) else (keep,)
    inner = [n for i in range(layers) for n in (*(f"a{i}.h{h}" for h in range(heads)), f"m{i}")]
    for node in (*scores, *keep):
        if node not in ("input", *inner):
            hint = f"{near_miss(node, inner)}" if isinstance(node, str) else ""
            size = f"{layers} layer{'' if layers == 1 else 's'} of {heads} head{'' if heads == 1 else 's'}"
            raise UserError(
                f"there is no node {shown(node)}{hint} in {size}: nodes are input, a0.h0, ..., m{layers - 1}."
            )
    if missing := [n for n in inner if n not in scores]:
        raise UserError(f"no score for {listing(missing, 5)}; the benchmark would always keep such a node.")
    nodes: dict[str, dict[str, Any]] = {}
    for node in ("input", *inner):
        nodes[node] = {"in_graph": node == "input" or node in keep}
        if node in scores:
            nodes[node]["score"] = checked(f"the score of {node!r}", scores[node], float)
    nodes["logits"] = {"in_graph": True}
    cfg = {"n_layers": layers, "n_heads": heads, "parallel_attn_mlp": parallel, "d_model": width}
    try:
        write_whole(Path(path), json.dumps({"cfg": cfg, "nodes": nodes, "edges": {}}).encode())
    except OSError as error:
        raise UserError(f"the circuit cannot be written to {path}: {error.strerror or error}.") from error
    return Path(path)


def _beside_adapters(masks: Mapping[str, Tensor], plain: nn.Module) -> list[str]:
    """Return which masked parameters a network with adapters of PEFT does not save; none where it has no adapters."""
    adapters = getattr(plain, "peft_config", None)
    if not isinstance(adapters, Mapping) or not adapters:
        return []
    from peft import get_peft_model_state_dict

    saved = {t.data_ptr() for name in adapters for t in get_peft_model_state_dict(plain, adapter_name=name).values()}
    return [n for n, mask in masks.items() if not bool(mask.all()) and plain.get_parameter(n).data_ptr() not in saved]


def _masks(masks: Any) -> None:
    instance("masks", masks, Masks, "a modhook.Masks")


def _paired(originals: set[str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the masks that stand beside a pruned parameter, by the parameter's own name."""
    found = {re.sub(f"{_MASK}$", "", n): t for n, t in tensors.items() if n.endswith(_MASK)}
    return {n: t for n, t in found.items() if f"{n}{_ORIGINAL}" in originals}


def _binary(name: str, tensor: Tensor) -> Tensor:
    if tensor.dtype == torch.bool:
        return tensor
    kept = tensor == 1
    if not bool((kept | (tensor == 0)).all()):
        raise MaskError(
            f"{name!r} holds other values than 0 and 1, so it is no mask; cut it first, {name!r}: tensor > threshold."
        )
    return kept
