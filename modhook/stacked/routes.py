"""The ways of calling a function once per parameter set: `vmap`, and a plain loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from modhook.network.scope import substituted
from modhook.stacked.blame import blamed
from modhook.stacked.gather import stacked_outputs
from modhook.stacked.islands import install
from modhook.stacked.rules import Memory, Rules, stock_switches
from modhook.stacked.rules.bridge import is_stacked
from modhook.stacked.trees import Tree, flatten

Function = Callable[..., Any]
Around = Callable[[], AbstractContextManager[Any]]


def forward(net: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Call the network: the function of `stack` and `inspect`, where `prepare` has a loss."""
    return net(*args, **kwargs)


@attrs.frozen
class Job:
    """One stacked call, checked: everything a route needs to run it.

    `parameters` are (K, ...) by first name; the leaves of `arguments` are (K, ...) unless shared.
    `written` names the parameters and buffers that the model's forward pass changes; every sample gets its own copy of
    these. `islands` names the submodules that run sample by sample inside the vmap route. `wide` gives every sample its own
    copy of tensors that the model makes. `memory` may be given to see what the rules did.
    """

    model: nn.Module
    function: Function
    parameters: Mapping[str, Tensor]
    arguments: Tree
    samples: int
    written: frozenset[str] = frozenset()
    islands: tuple[str, ...] = ()
    wide: bool = False
    memory: Memory | None = None

    def weights(self) -> dict[str, Tensor]:
        """Return the parameter sets, copied where the model writes them."""
        return {n: p.clone() if n in self.written else p for n, p in self.parameters.items()}

    def buffers(self) -> dict[str, Tensor]:
        """Return fresh copies of the buffers that will be written, without K."""
        return {n: b.detach().clone() for n, b in self.model.named_buffers() if n in self.written}

    def call(
        self,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        tensors: list[Tensor],
        around: Around = nullcontext,
    ) -> Any:
        """Call the function with one sample's tensors in place."""
        args, kwargs = self.arguments.rebuild(tensors)
        with substituted(self.model, parameters, buffers):
            install(self.model, self.islands, around)
            return self.function(self.model, *args, **kwargs)


def run_loop(job: Job, around: Around = nullcontext) -> Any:
    """Run the samples one after another; outputs are stacked. An error is the user's own, with a note of the sample."""
    outputs = []
    leaves = job.arguments.leaves
    # Cut once: the gradients of K slices would each fill a whole (K, ...) with zeros.
    weights = {n: list(w) if n in job.written else w.unbind() for n, w in job.weights().items()}
    columns = [[leaf.tensor] * job.samples if leaf.shared else leaf.tensor.unbind() for leaf in leaves]
    for k in range(job.samples):
        tensors = [column[k] for column in columns]
        parameters = {name: value[k] for name, value in weights.items()}
        try:
            with stock_switches(), around():
                outputs.append(flatten(job.call(parameters, job.buffers(), tensors)))
        except Exception as error:
            error.add_note(blamed(job.model, error, f"while running mask sample {k + 1} of {job.samples}"))
            raise
    return outputs[0].rebuild(stacked_outputs(outputs))


def run_vmap(job: Job, around: Around = nullcontext) -> Any:
    """Run all samples in one vectorised pass. Raises whatever `torch.func.vmap` raises where it cannot."""
    leaves = job.arguments.leaves
    batched = [i for i, leaf in enumerate(leaves) if not leaf.shared]
    # Counters stay one number for all samples: modules ask for their value, which vmap could not give.
    copies = job.buffers()
    counters = {n: b for n, b in copies.items() if not (b.is_floating_point() or b.is_complex())}
    buffers = {n: b.expand(job.samples, *b.shape).clone() for n, b in copies.items() if n not in counters}  # (K, ...)
    output: list[Tree] = []
    memory = job.memory or Memory(wide=job.wide)

    def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], tensors: list[Tensor]) -> tuple[Tensor, ...]:
        whole = [leaf.tensor for leaf in leaves]
        memory.anchor = next((t for t in (*parameters.values(), *tensors) if is_stacked(t)), None)
        for i, tensor in zip(batched, tensors, strict=True):
            whole[i] = tensor
        output.append(flatten(job.call(parameters, {**buffers, **counters}, whole, around)))
        return tuple(leaf.tensor for leaf in output[0].leaves)

    with stock_switches(), Rules(memory), around():  # `around` is asked first
        mapped = torch.func.vmap(one, randomness="different")
        results = mapped(job.weights(), buffers, [leaves[i].tensor for i in batched])
    return output[0].rebuild(list(results))
