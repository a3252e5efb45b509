"""Submodules that run sample by sample inside a stacked whole, because vmap cannot run them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from modhook.network.scope import refresh, restored
from modhook.stacked.gather import stacked_outputs
from modhook.stacked.rules.bridge import bridge, is_stacked
from modhook.stacked.trees import Tree, flatten

Around = Callable[[], AbstractContextManager[Any]]


def install(model: nn.Module, names: Iterable[str], around: Around) -> None:
    """Let these submodules run sample by sample; the caller's `restored` scope takes it back."""
    for name in names:
        module = model.get_submodule(name)
        module.__dict__["forward"] = _island(module, module.forward, around)


def _slots(module: nn.Module) -> list[tuple[dict[str, Any], str]]:
    """Return where the module's own parameters and buffers stand."""
    both: list[dict[str, Any]] = [module._parameters, module._buffers]
    return [(slot, key) for slot in both for key, tensor in slot.items() if tensor is not None]


def _island(module: nn.Module, forward: Callable[..., Any], around: Around) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        tree = flatten((args, kwargs))
        slots = [(slot, key) for part in module.modules() for slot, key in _slots(part)]
        inputs = [leaf.tensor for leaf in tree.leaves]
        everything = [*inputs, *(slot[key] for slot, key in slots)]
        if not any(is_stacked(tensor) for tensor in everything):
            return forward(*args, **kwargs)
        outputs: list[Tree] = []

        def compute(samples: int, tensors: Sequence[Tensor], stacked: Sequence[bool]) -> tuple[Tensor, ...]:
            for k in range(samples):
                own = [t[k] if has_k else t for t, has_k in zip(tensors, stacked, strict=True)]
                own_args, own_kwargs = tree.rebuild(own[: len(inputs)])
                with restored(module), around():
                    for (slot, key), tensor in zip(slots, own[len(inputs) :], strict=True):
                        slot[key] = tensor
                    refresh(module)
                    outputs.append(flatten(forward(*own_args, **own_kwargs)))
            return tuple(stacked_outputs(outputs))

        found = bridge(compute, everything)
        return outputs[0].rebuild(list(found))

    return run
