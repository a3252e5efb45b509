"""`modhook inspect`."""

from __future__ import annotations

import re
from typing import Any

import click

from modhook.errors import ModhookError, RunError, UserError, listing, near_miss
from modhook.plugin.culprit import told

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
    help='One argument of the network, such as "float[8,7,5]", "int[8,7]" (zeros) or "mask=bool[8,7]"; repeat it for several.',
)
@click.option("--samples", default=4, show_default=True, help="Number of mask samples K.")
@click.option("--executor", default="auto", show_default=True, help="auto, fastest, vmap or loop.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect_command(target: str, inputs: tuple[str, ...], samples: int, executor: str, as_json: bool) -> int:
    """Say what of a network can be masked, how each part of it will run, and what that costs.

    The callable returns the network, for example a class that needs no arguments; my_network.py:make names one in a file.
    """
    given = [_parsed(text) for text in inputs]

    import torch
    from torch import nn

    from modhook.stacked import inspect
    from modhook.study import find_callable

    factory = find_callable(target)
    try:
        built: Any = factory()
    except Exception as error:
        raise UserError(f"{target}() failed, called without arguments: {told(error)}") from error
    if not isinstance(built, nn.Module):
        raise UserError(f"{target} returned {type(built).__name__}, not an nn.Module")
    generator = torch.Generator().manual_seed(0)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for keyword, name, shape in given:
        dtype = getattr(torch, name)
        floating = dtype.is_floating_point
        if floating:
            made = torch.randn(shape, generator=generator, device="cpu").to(dtype)
        else:
            made = torch.zeros(shape, dtype=dtype, device="cpu")
        if keyword:
            kwargs[keyword] = made
        else:
            args.append(made)
    try:
        report = inspect(built, *args, samples=samples, executor=executor, **kwargs)
    except ModhookError:
        raise
    except Exception as error:
        notes = "; ".join(note.removeprefix("modhook: ") for note in getattr(error, "__notes__", []))
        raise RunError(f"the network failed on this input: {told(error)}; {notes}") from error
    click.echo(report.to_json(indent=2) if as_json else report.text())
    return 0


def _parsed(text: str) -> tuple[str, str, list[int]]:
    """Return (keyword or "", torch dtype name, shape) of an input such as `float[8,7]` or `mask=bool[8]`."""
    found = re.fullmatch(r"\s*(?:(\w+)\s*=\s*)?(\w+)\s*\[\s*(\d+(?:\s*,\s*\d+)*)?\s*\]\s*", text)
    if found is None:
        raise UserError(f'--input {text!r} must look like "float[8,7,5]", or "mask=bool[8,7]" for a keyword')
    keyword, name, sizes = found.groups()
    if name not in _DTYPES:
        raise UserError(
            f"--input {text!r}: unknown type {name!r}{near_miss(name, _DTYPES)}; valid are {listing(_DTYPES)}"
        )
    return keyword or "", _DTYPES[name], [int(size) for size in (sizes or "").split(",") if size.strip()]
