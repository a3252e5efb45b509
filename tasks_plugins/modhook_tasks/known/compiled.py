"""Compiled networks: RASP programs as Tracr's weights, alone, two side by side in one network, with noise, in a hidden basis."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from modhook_tasks.known.joining import Axis, Layout, Space, join, shared, side_by_side
from modhook_tasks.known.programs import PROGRAMS, every_input
from modhook_tasks.known.structure import Data, Function, halves
from modhook_tasks.known.transformer import Sizes, Transformer

FILES = Path(__file__).parent / "files"
NOISE = {"small_noise": 2e-5, "large_noise": 1.0}
"""Standard deviation of the normal noise on weights that belong to nobody.

The small one is on all of them, as large as leaves both functions at 100 % on every input (seeds 0 to 19; at 3e-5 they fall to 95 %:
compiled units reach 83, and what they do not write must stay unwritten). The large one is on those that see nothing, for what they
multiply is zero on every input; the outputs stay the same bit for bit."""


@attrs.frozen(eq=False)
class Program:
    """A compiled program: its network, every input (1024, 6) and the exact outputs of each (1024, 5, O)."""

    model: Transformer
    inputs: Tensor
    target: Tensor
    tolerance: float
    """Half the smallest distance between two answers: an output within it is nearer to the right answer than to any other."""


@cache
def described() -> dict[str, Any]:
    """Return vocabulary, sizes, outputs and reference outputs of every program."""
    found: dict[str, Any] = json.loads((FILES / "programs.json").read_text(encoding="utf-8"))
    return found


def load_program(name: str) -> Program:
    """Return a program alone, as Tracr compiled it."""
    about, wanted = described()["programs"][name], PROGRAMS[name]
    model = Transformer(Sizes(**about["sizes"]))
    model.load_state_dict(load_file(FILES / f"{name}.safetensors"))
    codes, values = about["tokens"], about["values"]
    words = every_input(wanted.vocabulary)
    inputs = torch.tensor(
        [[codes[t] for t in (described()["bos"], *tokens)] for tokens in words], device="cpu"
    )  # (1024, 6)
    answers = [wanted.run(tokens) for tokens in words]
    if values is None:
        target = torch.tensor(answers, device="cpu").unsqueeze(-1)  # (1024, 5, 1)
        tolerance = 0.5 / len(words[0])
    else:
        numbers = torch.tensor([[values.index(answer) for answer in row] for row in answers], device="cpu")
        target = torch.nn.functional.one_hot(numbers, len(values)).float()  # (1024, 5, O)
        tolerance = 0.5
    return Program(model.eval().requires_grad_(False), inputs, target, tolerance)


def networks() -> tuple[str, ...]:
    """Return the names of all compiled networks."""
    alone = ("frac_prevs", "hist", "reverse", "sort")
    pairs = ("frac_prevs+hist", "frac_prevs+reverse", "hist+reverse")
    kinds = (*(f"frac_prevs+hist-{kind}" for kind in NOISE), "frac_prevs+hist-hidden")
    return (*alone, *pairs, *kinds, "frac_prevs+reverse-hidden")


def build(name: str, seed: int) -> tuple[Transformer, dict[str, Function], dict[str, Tensor] | None]:
    """Return network, functions, and owner of each weight (None in a hidden basis). The seed draws noise and basis."""
    pair, _, kind = name.partition("-")
    names = pair.split("+")
    programs = [load_program(n) for n in names]
    model, owner = side_by_side_network(programs)
    generator = torch.Generator().manual_seed(seed)
    if kind in NOISE:
        add_noise(model, owner, NOISE[kind], generator, programs[0].inputs if kind == "large_noise" else None)
    if kind == "hidden":
        turn_basis(model, generator)
    model.eval().requires_grad_(False)
    return model, functions(names, programs), None if kind == "hidden" else owner


def functions(names: list[str], programs: list[Program]) -> dict[str, Function]:
    """Return one function per program; each is asked about its own outputs of the joined network."""
    found, before, total = {}, 0, sum(p.target.shape[-1] for p in programs)
    for number, (name, program) in enumerate(zip(names, programs, strict=True), 1):
        count, own = program.target.shape[-1], slice(before, before + program.target.shape[-1])
        target = torch.zeros(*program.target.shape[:2], total, device="cpu")
        target[..., own] = program.target
        tolerance = torch.full((len(target), 1, total), math.inf, device="cpu")
        tolerance[..., own] = program.tolerance
        data: Data = {"inputs": program.inputs, "target": target, "tolerance": tolerance}
        train, test = halves(data)
        found[name] = Function(name, PROGRAMS[name].doc, number, "values", train, test)
        before += count
    return found


def side_by_side_network(programs: list[Program]) -> tuple[Transformer, dict[str, Tensor]]:
    """Return one network that holds several programs, and the owner of each weight.

    Residual streams, heads and MLP units stand side by side and every weight between two programs is zero; both read the same
    tokens. A program with smaller heads has its queries scaled up, for attention divides by the root of the head's size.
    """
    parts, count = [p.model.sizes for p in programs], len(programs)
    head = max(s.head for s in parts)
    sizes = Sizes(
        tokens=parts[0].tokens,
        positions=parts[0].positions,
        width=sum(s.width for s in parts),
        layers=max(s.layers for s in parts),
        heads=sum(s.heads for s in parts),
        head=head,
        hidden=sum(s.hidden for s in parts),
        outputs=sum(s.outputs for s in parts),
    )
    heads = side_by_side([s.heads for s in parts])
    inner = tuple(
        (places.unsqueeze(1) * head + torch.arange(s.head, device="cpu")).flatten()
        for places, s in zip(heads.places, parts, strict=True)
    )
    spaces = {
        "tokens": shared(sizes.tokens, count),
        "positions": shared(sizes.positions, count),
        "width": side_by_side([s.width for s in parts]),
        "inner": Space(sizes.heads * head, inner),
        "hidden": side_by_side([s.hidden for s in parts]),
        "outputs": side_by_side([s.outputs for s in parts]),
    }
    states = [
        {n: t * (head / s.head) ** 0.5 if n.endswith("query.weight") else t for n, t in p.model.state_dict().items()}
        for p, s in zip(programs, parts, strict=True)
    ]
    model = Transformer(sizes)
    joined, owner = join(model.state_dict(), states, layout(sizes.layers), spaces)
    model.load_state_dict(joined)
    return model, {name: owner[name] for name, _ in model.named_parameters()}


def layout(layers: int) -> Layout:
    """Return the axes of a transformer's tensors."""
    width, inner, hidden = Axis("width"), Axis("inner"), Axis("hidden")
    found = {
        "embedding.weight": (Axis("tokens"), width),
        "position.weight": (Axis("positions"), width),
        "unembedding": (Axis("outputs"), width),
    }
    for i in range(layers):
        for name in ("query", "key", "value"):
            found[f"blocks.{i}.attention.{name}.weight"] = (inner, width)
        found[f"blocks.{i}.attention.output.weight"] = (width, inner)
        found[f"blocks.{i}.up.weight"], found[f"blocks.{i}.down.weight"] = (hidden, width), (width, hidden)
    return found


def add_noise(
    model: Transformer, owner: dict[str, Tensor], scale: float, generator: torch.Generator, unseen: Tensor | None = None
) -> None:
    """Add normal noise to every weight that belongs to nobody, in place; with `unseen` inputs, only where they bring nothing."""
    seen = {} if unseen is None else _seen(model, unseen)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator, device="cpu") * scale
            free = owner[name] == 0
            if unseen is not None:
                free = free & ~seen[name]
            weight.add_(torch.where(free, noise, 0.0))


def _seen(model: Transformer, inputs: Tensor) -> dict[str, Tensor]:
    """Return for every weight, as bools that can be expanded to its shape, whether what it multiplies is ever not zero."""
    seen, hooks = {}, []

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, given: tuple[Tensor, ...], _: Tensor) -> None:
            if isinstance(module, nn.Embedding):
                used = torch.zeros(len(module.weight), 1, dtype=torch.bool, device="cpu")
                used[given[0].unique()] = True
            else:
                used = (given[0] != 0).flatten(0, -2).any(0)
            seen[f"{name}.weight"] = used

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding | nn.Linear):
            hooks.append(module.register_forward_hook(keep(name)))
    with torch.no_grad():
        model(inputs)
    for hook in hooks:
        hook.remove()
    return seen


def turn_basis(model: Transformer, generator: torch.Generator) -> None:
    """Turn the residual stream by a random orthogonal matrix, in place: the same function, no longer written along axes."""
    size = model.sizes.width
    turn = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator, device="cpu"))[
        0
    ]  # x becomes x @ turn
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            writes = name.endswith(("output.weight", "down.weight"))
            turned = turn.T @ weight.double() if writes else weight.double() @ turn
            weight.copy_(turned)
