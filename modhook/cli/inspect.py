"""`modhook inspect`."""

from __future__ import annotations

import re
from typing import Any

import click

from modhook.errors import UserError, listing, near_miss

_DTYPES = {
    "float": "float32",
    "float32": "float32",
    "float64": "float64",
    "double": "float64",
    "bfloat16": "bfloat16",
    "int": "int64",
    "long": "int64",
    "bool": "bool",
}


@click.command("inspect")
@click.argument("target", metavar="PACKAGE.MODULE:CALLABLE")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    required=True,
    help='One argument of the network, such as "float[8,7,5]" or "int[8,7]" (zeros); repeat it for several.',
)
@click.option("--samples", default=4, show_default=True, help="Number of mask samples K.")
@click.option("--executor", default="auto", show_default=True, help="auto, fastest, vmap or loop.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect_command(target: str, inputs: tuple[str, ...], samples: int, executor: str, as_json: bool) -> int:
    """Say what of a network can be masked, how each part of it will run, and what that costs.

    The callable returns the network, for example a class that needs no arguments.
    """
    given = [_parsed(text) for text in inputs]

    import torch
    from torch import nn

    from modhook.stacked import inspect
    from modhook.study import find_callable

    built: Any = find_callable(target)()
    if not isinstance(built, nn.Module):
        raise UserError(f"{target} returned {type(built).__name__}, not an nn.Module")
    generator = torch.Generator().manual_seed(0)
    tensors = []
    for name, shape in given:
        dtype = getattr(torch, name)
        floating = dtype.is_floating_point
        tensors.append(
            torch.randn(shape, generator=generator).to(dtype) if floating else torch.zeros(shape, dtype=dtype)
        )
    report = inspect(built, *tensors, samples=samples, executor=executor)
    click.echo(report.to_json(indent=2) if as_json else str(report))
    return 0


def _parsed(text: str) -> tuple[str, list[int]]:
    """Return (torch dtype name, shape) of an input such as `float[8,7]`."""
    found = re.fullmatch(r"\s*(\w+)\s*\[\s*(\d+(?:\s*,\s*\d+)*)?\s*\]\s*", text)
    if found is None:
        raise UserError(f'--input {text!r} must look like "float[8,7,5]"')
    name, sizes = found.groups()
    if name not in _DTYPES:
        raise UserError(
            f"--input {text!r}: unknown type {name!r}{near_miss(name, _DTYPES)}; valid are {listing(_DTYPES)}"
        )
    return _DTYPES[name], [int(size) for size in (sizes or "").split(",") if size.strip()]
