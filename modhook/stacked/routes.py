"""The ways of calling a function once per parameter set: `vmap`, and a plain loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from modhook.errors import StackError
from modhook.stacked.rules import Rules
from modhook.stacked.scope import substituted
from modhook.stacked.trees import Tree, flatten

Function = Callable[..., Any]


@attrs.frozen
class Job:
    """One stacked call, checked: everything a route needs to run it.

    `parameters` are (K, ...) by first name; the leaves of `arguments` are (K, ...) unless shared.
    `written` names the buffers that the model's forward pass changes; every sample gets its own copy of these.
    """

    model: nn.Module
    function: Function
    parameters: Mapping[str, Tensor]
    arguments: Tree
    samples: int
    written: frozenset[str] = frozenset()

    def buffers(self) -> dict[str, Tensor]:
        """Return fresh copies of the buffers that will be written, without K."""
        return {n: b.detach().clone() for n, b in self.model.named_buffers() if n in self.written}

    def call(self, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], tensors: list[Tensor]) -> Any:
        """Call the function with one sample's tensors in place."""
        args, kwargs = self.arguments.rebuild(tensors)
        with substituted(self.model, parameters, buffers):
            return self.function(self.model, *args, **kwargs)


def run_loop(job: Job, around: Callable[[], AbstractContextManager[Any]] = nullcontext) -> Any:
    """Run the samples one after another; outputs are stacked. An error is the user's own, with a note of the sample."""
    outputs = []
    leaves = job.arguments.leaves
    for k in range(job.samples):
        tensors = [leaf.tensor if leaf.shared else leaf.tensor[k] for leaf in leaves]
        parameters = {name: value[k] for name, value in job.parameters.items()}
        try:
            with around():
                outputs.append(flatten(job.call(parameters, job.buffers(), tensors)))
        except Exception as error:
            error.add_note(f"modhook: raised while running mask sample {k + 1} of {job.samples}")
            raise
    first = outputs[0]
    for k, other in enumerate(outputs[1:], start=2):
        if len(other.leaves) != len(first.leaves):
            raise StackError(
                f"sample {k} of {job.samples} returned {len(other.leaves)} tensors and sample 1 {len(first.leaves)}: "
                "outputs can be stacked only if every sample returns the same structure"
            )
    stacked = []
    for leaves_k in zip(*(output.leaves for output in outputs), strict=True):
        shapes = {tuple(leaf.tensor.shape) for leaf in leaves_k}
        if len(shapes) > 1:
            raise StackError(
                f"output {leaves_k[0].path} has shapes {sorted(shapes)} in different samples: outputs can be stacked "
                "only if their shape does not depend on the weights"
            )
        stacked.append(torch.stack([leaf.tensor for leaf in leaves_k]))  # (K, ...)
    return first.rebuild(stacked)


def run_vmap(job: Job, around: Callable[[], AbstractContextManager[Any]] = nullcontext) -> Any:
    """Run all samples in one vectorised pass. Raises whatever `torch.func.vmap` raises where it cannot."""
    leaves = job.arguments.leaves
    batched = [i for i, leaf in enumerate(leaves) if not leaf.shared]
    buffers = {n: b.expand(job.samples, *b.shape).clone() for n, b in job.buffers().items()}  # (K, ...)
    output: list[Tree] = []

    def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], tensors: list[Tensor]) -> tuple[Tensor, ...]:
        whole = [leaf.tensor for leaf in leaves]
        for i, tensor in zip(batched, tensors, strict=True):
            whole[i] = tensor
        output.append(flatten(job.call(parameters, buffers, whole)))
        return tuple(leaf.tensor for leaf in output[0].leaves)

    with Rules(), around():  # `around` is asked first
        mapped = torch.func.vmap(one, randomness="different")
        results = mapped(dict(job.parameters), buffers, [leaves[i].tensor for i in batched])
    return output[0].rebuild(list(results))
