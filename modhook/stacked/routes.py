"""The ways of calling a function once per parameter set: `vmap`, and a plain loop."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from modhook.network.guard import copies
from modhook.network.held import held
from modhook.network.recurrent import with_gradients
from modhook.network.remade import Recipe, Remaker
from modhook.network.scope import Kept, substituted
from modhook.stacked.blame import blamed
from modhook.stacked.gather import stacked_outputs
from modhook.stacked.islands import install
from modhook.stacked.rules import Memory, Rules, stock_switches
from modhook.stacked.rules.bridge import is_stacked
from modhook.stacked.trees import Tree, flatten
from modhook.stacked.watch import Watch, Written

Function = Callable[..., Any]
Around = Callable[[], AbstractContextManager[Any]]


def forward(net: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Call the network: the function of `stack` and `inspect`, where `prepare` has a loss."""
    return net(*args, **kwargs)


@attrs.frozen
class Job:
    """One stacked call, checked: everything a route needs to run it.

    `parameters` are (K, ...) by first name, or recipes of these, which the loop alone can run; the leaves of `arguments` are (K, ...)
    unless shared.
    `written` names what the model's forward pass changes, of the parameters given and of all else that the model holds
    (see `modhook.network.held`); every sample gets its own copy of these. `own` has the model's own tensors and numpy arrays
    among them, by name. `islands` names the submodules that run sample by sample inside the vmap route. `wide` gives every
    sample its own copy of tensors that the model makes. `memory` may be given to see what the rules did, and `watch` to see
    what would be written; the loop, where it costs time, asks it only where `watching`.
    """

    model: nn.Module
    function: Function
    parameters: Mapping[str, Any]
    arguments: Tree
    samples: int
    written: frozenset[str] = frozenset()
    own: Mapping[str, Any] = attrs.field(factory=dict)
    islands: tuple[str, ...] = ()
    wide: bool = False
    memory: Memory | None = None
    watch: Watch = attrs.field(factory=Watch)
    watching: bool = True

    def weights(self) -> dict[str, Tensor]:
        """Return the parameter sets, copied where the model writes them."""
        known = {n: p for n, p in self.parameters.items() if isinstance(p, Tensor)}
        return {n: p.clone() if n in self.written else p for n, p in known.items()}

    def copies(self) -> list[Any]:
        """Return fresh copies of the model's own tensors and arrays that will be written, without K, in the order of `own`."""
        tensors = iter(copies([own for own in self.own.values() if isinstance(own, Tensor)]))
        return [next(tensors) if isinstance(own, Tensor) else own.copy("K") for own in self.own.values()]

    def call(
        self,
        parameters: Mapping[str, Tensor | Recipe],
        own: Sequence[Any],
        tensors: list[Tensor],
        around: Around = nullcontext,
        kept: Kept | None = None,
    ) -> Any:
        """Call the function with one sample's tensors in place; `kept`: the model as it is, for calls that follow each other."""
        args, kwargs = self.arguments.rebuild(tensors)
        others = list(zip(self.own.values(), own, strict=True))
        names = {parameter: n for n, parameter in parameters.items() if isinstance(parameter, Recipe)}
        remaker = Remaker(list(names)) if names else None
        with substituted(self.model, parameters, others, remaker, kept):
            install(self.model, self.islands, around)
            if remaker is None:
                return self.function(self.model, *args, **kwargs)
            with remaker.active():
                result = self.function(self.model, *args, **kwargs)
        if wrote := remaker.wrote & names.keys():
            self.watch.found.update(names[recipe] for recipe in wrote)
            raise Written(", ".join(sorted(self.watch.found)))
        return result


def own_tensors(model: nn.Module, written: Collection[str], given: Collection[str]) -> dict[str, Any]:
    """Return the model's own tensors and numpy arrays among what is written, by name: all that is not given."""
    if not set(written) - set(given):
        return {}
    everything = held(model)
    own = {**everything.tensors, **everything.arrays}
    return {name: value for name, value in own.items() if name in written and name not in given}


def run_loop(job: Job, around: Around = nullcontext) -> Any:
    """Run the samples one after another; outputs are stacked. An error is the user's own, with a note of the sample."""
    outputs = []
    leaves = job.arguments.leaves
    # Cut once: the gradients of K slices would each fill a whole (K, ...) with zeros.
    weights = {n: w.unbind() if isinstance(w, Tensor) else w.each for n, w in job.parameters.items()}
    columns = [[leaf.tensor] * job.samples if leaf.shared else leaf.tensor.unbind() for leaf in leaves]  # copied: they may be written
    kept, differentiable = Kept(job.model), with_gradients(job.model)  # looked at once, not for every sample
    for k in range(job.samples):
        tensors = [column[k].clone() for column in columns]
        # Tensors that were cut together may not be written.
        parameters = {n: _copied(w[k]) if n in job.written else w[k] for n, w in weights.items()}
        try:
            with stock_switches(), differentiable, around(), job.watch if job.watching else nullcontext():
                outputs.append(flatten(job.call(parameters, job.copies(), tensors, kept=kept)))
        except Exception as error:
            error.add_note(blamed(job.model, error, f"while running mask sample {k + 1} of {job.samples}"))
            raise
    return outputs[0].rebuild(stacked_outputs(outputs))


def _copied(weight: Tensor | Recipe) -> Tensor:
    """Return a tensor that may be written."""
    return Remaker([weight]).get(weight).clone() if isinstance(weight, Recipe) else weight.clone()


def run_vmap(job: Job, around: Around = nullcontext) -> Any:
    """Run all samples in one vectorised pass. Raises whatever `torch.func.vmap` raises where it cannot."""
    leaves = job.arguments.leaves
    batched = [i for i, leaf in enumerate(leaves) if not leaf.shared]
    # Counters stay one number for all samples: modules ask for their value, which vmap could not give; so do numpy arrays.
    own = job.copies()
    wide = [i for i, t in enumerate(own) if isinstance(t, Tensor) and (t.is_floating_point() or t.is_complex())]
    output: list[Tree] = []
    memory = job.memory or Memory(wide=job.wide)

    def one(parameters: dict[str, Tensor], copied: list[Tensor], tensors: list[Tensor], _: Tensor) -> tuple[Tensor, ...]:
        whole, everything = [leaf.tensor.clone() if leaf.shared else leaf.tensor for leaf in leaves], list(own)
        for i, tensor in zip(wide, copied, strict=True):
            everything[i] = tensor
        memory.anchor = next((t for t in (*parameters.values(), *tensors) if is_stacked(t)), None)
        for i, tensor in zip(batched, tensors, strict=True):
            whole[i] = tensor
        output.append(flatten(job.call(parameters, everything, whole, around)))
        return tuple(leaf.tensor for leaf in output[0].leaves)

    # The last argument says how many samples there are where nothing else is stacked.
    count = torch.empty(job.samples, 0, device="cpu")
    with stock_switches(), Rules(memory, job.watch), around():  # `around` is asked first
        mapped = torch.func.vmap(one, randomness="different")
        copied = [own[i].expand(job.samples, *own[i].shape).clone() for i in wide]  # (K, ...)
        results = mapped(job.weights(), copied, [leaves[i].tensor.clone() for i in batched], count)
    return output[0].rebuild(list(results))
