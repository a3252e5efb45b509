"""Reads files of weights without running what is in them: tensors and plain containers, nothing else; writes files whole."""

from __future__ import annotations

import errno
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from modhook.errors import WeightsError, near_file

WEIGHTS = "give a safetensors file, or one of torch.save(model.state_dict(), ...), which holds names and tensors only"


def read_file(
    path: Path, known: Sequence[tuple[Callable[..., Any], str]] = (), kind: str = "weights", advice: str = WEIGHTS
) -> Any:
    """Return what a safetensors file or a file of `torch.save` holds, on the CPU.

    Args:
        path: the file.
        known: what stands for further names in the file, as (object, name there), such as numpy's arrays; each is known to run
            nothing.
        kind: what it should hold, for messages.
        advice: what to do where it does not, for messages.

    Raises:
        WeightsError: no such file, unreadable, or one that names other Python objects, which are code: it is not run.
    """
    if not path.is_file():
        raise WeightsError(f"there is no {kind} file {path}{near_file(path)}.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals([*known]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if isinstance(error, UnpicklingError) and "GLOBAL" in str(error):  # the opcode that names code
            raise WeightsError(
                f"{path} holds Python objects besides tensors, which are code that loading would run, so it is refused; {advice}."
            ) from error
        raise WeightsError(f"{path} cannot be read as {kind} ({type(error).__name__}); {advice}.") from error


def named(path: Path) -> Path:
    """Return a path that a file may have. Raises `OSError` for one without a name, or with a null byte."""
    if not path.name or "\0" in str(path):
        raise OSError(errno.EINVAL, "no file can have this name")
    return path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all, beside its place first. Raises `OSError`; then the old one is as it was."""
    path = named(path)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
