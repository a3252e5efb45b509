"""The check that admits a route: outputs and gradients against a plain deep copy with the weights copied in."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from math import isfinite
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from modhook.network.guard import Guard, same_bits
from modhook.network.recurrent import with_gradients
from modhook.network.twin import twin as copied
from modhook.stacked.blame import blamed, own_line
from modhook.stacked.left import refuse_if_left
from modhook.stacked.near import PIECE, Near, Numbers, Together
from modhook.stacked.outside import refuse_if_used, unregistered
from modhook.stacked.quiet import NoDropout as NoDropout
from modhook.stacked.routes import Function, Job, forward
from modhook.stacked.rules import stock_switches
from modhook.stacked.trees import Tree, flatten

# Largest difference allowed, relative to the largest number of the same tensor.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-3, torch.complex128: 1e-9, torch.complex64: 2e-3}
_COARSE = 5e-2  # bfloat16, float16


@attrs.frozen
class Reference:
    """What the plain copies computed: one (outputs, gradients by name) per sample, and what of all it holds the model wrote.

    `sparse`: some gradient was sparse.
    """

    parameters: Mapping[str, Tensor]
    outputs: list[list[Tensor]]
    gradients: list[dict[str, Tensor]]
    written: frozenset[str]
    sparse: bool = False


def perturbed(model: nn.Module, names: Sequence[str], samples: int) -> Together:
    """Return K slightly different parameter sets near the model's own, the same in every process."""
    return Together(Numbers(model, names, samples))


def reference(
    model: nn.Module, function: Function, arguments: Tree, parameters: Mapping[str, Tensor], samples: int
) -> Reference:
    """Run a deep copy of the model plainly, once per sample. Raises the user's own error where it fails."""
    outputs, gradients = [], []
    written: set[str] = set()
    near = parameters if isinstance(parameters, Near) else None
    for k in range(samples):
        twin = copied(model, {name: parameters[name][k] for name in parameters}, share=near is not None)
        own = dict(twin.named_parameters())
        kept = [(place, tensor.requires_grad_()) for place, tensor in unregistered(twin) if tensor.is_floating_point()]
        _gradients_for(own, parameters)
        # The values of the parameters that are given need not be kept once more: they can be made again.
        before, buffers = Guard(twin, [name for name in own if name in parameters]), dict(twin.named_buffers())
        with torch.enable_grad():
            try:
                leaves = _outputs(twin, function, arguments, k)
            except Exception as error:
                error.add_note(
                    blamed(twin, error, f"in a plain run of a copy of the model, weights {k + 1} of {samples}")
                )
                raise
            refuse_if_used(leaves, kept, {id(p) for p in own.values()}, model, others=function is not forward)
            gradients.append(gradients_of(leaves, {name: own[name] for name in parameters}))
        outputs.append([leaf.detach() for leaf in leaves])
        after = dict(twin.named_buffers())
        written |= before.written(thorough=True)
        wrote = {n for n in parameters if not (near.same(n, k, own[n]) if near else same_bits(own[n], parameters[n][k]))}
        if near is not None and wrote:
            near.restore()
        written |= wrote
        written |= {name for name, buffer in buffers.items() if after.get(name) is not buffer}  # set anew

    def once_more(mark: Callable[[nn.Module], None]) -> list[Tensor]:
        twin = copied(model, {name: parameters[name][0] for name in parameters})
        _gradients_for(dict(twin.named_parameters()), parameters)
        mark(twin)
        with torch.enable_grad():
            return _outputs(twin, function, arguments, 0)

    sparse = any(g.layout is not torch.strided for sample in gradients for g in sample.values())
    gradients = [{n: g.to_dense() for n, g in sample.items()} for sample in gradients]
    refuse_if_left(model, once_more, gradients[0])
    return Reference(parameters, outputs, gradients, frozenset(written), sparse)


def _gradients_for(own: Mapping[str, Tensor], wanted: Container[str]) -> None:
    for name, parameter in own.items():
        parameter.requires_grad_(name in wanted and parameter.is_floating_point())


def _outputs(twin: nn.Module, function: Function, arguments: Tree, sample: int) -> list[Tensor]:
    """Return what the function gives for a plain copy of the network and one sample's arguments."""
    # Copies, as a model may write into its input too.
    tensors = [(leaf.tensor if leaf.shared else leaf.tensor[sample]).detach().clone() for leaf in arguments.leaves]
    args, kwargs = arguments.rebuild(tensors)
    with NoDropout(), with_gradients(twin), stock_switches():
        return [leaf.tensor for leaf in flatten(function(twin, *args, **kwargs)).leaves]


@attrs.frozen(eq=False)
class Finding:
    """What the comparison of a route with the reference gave.

    `text` says what is wrong, "" if nothing is; `error` is the exception, if there was one; `worst` is the largest relative
    difference of an output or a gradient.
    """

    text: str = ""
    error: Exception | None = None
    worst: float = 0.0


def compare(route: Callable[..., Any], job: Job, expected: Reference) -> Finding:
    """Run `route` on this job and compare outputs and gradients with the reference."""
    near = expected.parameters
    if not isinstance(near, Near):
        return _compared(route, job, expected, {name: value.detach().clone() for name, value in near.items()})
    weights = {name: value.detach() for name, value in near.items()}
    versions = [value._version for value in weights.values()]
    found = _compared(route, job, expected, weights)
    if found.text or versions != [value._version for value in weights.values()]:
        near.restore()  # what it wrote, if it did, is none of the next route's business
    return found


def _compared(route: Callable[..., Any], job: Job, expected: Reference, weights: dict[str, Tensor]) -> Finding:
    leaves = {name: weight.requires_grad_() for name, weight in weights.items()}
    tensors = [leaf.tensor.detach().clone() for leaf in job.arguments.leaves]
    arguments = job.arguments.with_tensors(tensors)
    job = attrs.evolve(job, parameters=leaves, written=expected.written, arguments=arguments)
    try:
        with torch.enable_grad():
            outputs = [leaf.tensor for leaf in flatten(route(job, NoDropout)).leaves]
            gradients = gradients_of(outputs, leaves, stacked=True)
    except Exception as error:
        return Finding(described(error), error)
    same = compare_outputs(outputs, expected)
    if same.text:
        return same
    worst = same.worst
    # Some gradients are exactly zero in theory and noise in practice, such as a bias before batch norm: a difference far
    # below the model's largest gradient is none.
    sizes = [float(largest(g)) for s in expected.gradients for g in s.values() if g.numel()]
    most = max(filter(isfinite, sizes), default=0.0)
    for name, gradient in gradients.items():
        wanted = [sample[name] for sample in expected.gradients]
        worst = max(worst, found := difference(gradient, wanted, floor=1e-3 * most))
        if found > tolerance(gradient.dtype):
            return Finding(f"the gradient of {name!r} differs from a plain run by {found:.1e}", worst=found)
    return Finding(worst=worst)


def compare_outputs(outputs: Sequence[Tensor], expected: Reference) -> Finding:
    """Compare what a route returned, (K, ...), with the reference."""
    if {len(outputs)} != {len(sample) for sample in expected.outputs}:
        return Finding("it returns another number of tensors than without stacking")
    worst = 0.0
    for i, output in enumerate(outputs):
        plain = [sample[i] for sample in expected.outputs]
        if len({p.shape for p in plain}) != 1 or output.shape[1:] != plain[0].shape:
            return Finding(f"output {i} has another shape than without stacking")
        worst = max(worst, found := difference(output.detach(), plain))
        if found > tolerance(output.dtype):
            return Finding(f"output {i} differs from a plain run by {found:.1e}", worst=found)
    return Finding(worst=worst)


def quietly(model: nn.Module, run: Callable[[], Any]) -> Any:
    """Call `run` from a fixed random state, and leave the global one as it was."""
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*performance drop.*")
        torch.manual_seed(0)
        return run()


def gradients_of(outputs: Sequence[Tensor], of: dict[str, Tensor], *, stacked: bool = False) -> dict[str, Tensor]:
    """Return the gradients of a fixed random projection of all outputs; zeros where nothing flows."""
    inputs = {name: p for name, p in of.items() if p.requires_grad}
    parts = []
    generator = torch.Generator().manual_seed(1)
    for output in outputs:
        shape = output.shape[1:] if stacked else output.shape
        weight = torch.randn(shape, generator=generator, device="cpu")
        if output.requires_grad:
            weight = weight.to(output.device, output.dtype)
            parts.append((output * weight).abs().sum() if output.is_complex() else (output * weight).sum())
    total = sum(parts) if parts else None
    if total is None or not inputs:
        return {name: torch.zeros_like(p) for name, p in inputs.items()}
    found = torch.autograd.grad(total, list(inputs.values()), allow_unused=True)  # type: ignore[arg-type]
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(inputs.items(), found, strict=True)}


def difference(found: Tensor, expected: Tensor | Sequence[Tensor], floor: float = 0.0) -> float:
    """Return the largest difference relative to the largest expected number; NaN in the same places agree.

    `expected` is a tensor, or one per sample of `found` (K, ...).
    """
    pairs = [(found, expected)] if isinstance(expected, Tensor) else list(zip(found, expected, strict=True))
    gap = scale = 0.0
    for one, other in pairs:
        if not (other.is_floating_point() or other.is_complex()):
            if not torch.equal(one, other):
                return float("inf")
        elif other.numel():
            apart, most = _apart(one, other)
            gap, scale = max(gap, apart), max(scale, most)
    return gap / max(scale, floor, 1e-6) if isfinite(gap) else float("inf")


def _apart(found: Tensor, expected: Tensor) -> tuple[float, float]:
    """Return the largest difference, and the largest expected number that is finite."""
    if expected.dtype in (torch.float32, torch.float64) and found.dtype == expected.dtype:
        gaps, sizes = [], []
        for one, other in zip(found.reshape(-1).split(PIECE), expected.reshape(-1).split(PIECE), strict=True):
            gaps.append(largest(one - other))
            sizes.append(largest(other))
        gap, scale = float(torch.stack(gaps).amax()), float(torch.stack(sizes).amax())
        if isfinite(gap) and isfinite(scale):
            return gap, scale
    different = ~((found == expected) | (found.isnan() & expected.isnan()))
    finite = expected[expected.isfinite()].abs()
    scale = finite.max().item() if finite.numel() else 0.0
    if not bool(different.any()):
        return 0.0, scale
    wide = torch.complex128 if expected.is_complex() else torch.float64
    gap = (found.to(wide) - expected.to(wide)).abs()[different].max().item()
    return (gap if isfinite(gap) else float("inf")), scale


def largest(tensor: Tensor) -> Tensor:
    """Return the largest absolute number, (); NaN if there is one."""
    if tensor.is_complex():
        return tensor.abs().amax()
    least, most = torch.aminmax(tensor)  # one pass, and no copy
    return torch.maximum(-least, most)


def tolerance(dtype: torch.dtype) -> float:
    """Return the largest difference that is rounding, relative to the largest number."""
    return _TOLERANCE.get(dtype, _COARSE)


def described(error: Exception) -> str:
    """Return type and message of an error, and the user's own line."""
    line = own_line(error)
    return f"{type(error).__name__}: {first_line(error)}{f' ({line})' if line else ''}"


def first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip().splitlines() or ["no message"])[0]
