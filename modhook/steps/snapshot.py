"""One file that holds nested state: its tensors as safetensors, everything else as JSON in the header, a checksum over both.

A file is written beside its place, flushed to the disk and then moved there: it is never half there. No pickle.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modhook.errors import CheckpointError
from modhook.network.files import named

FORMAT = "modhook-checkpoint-1"
SUFFIX = ".safetensors"
PARTIAL = ".partial"


def write_snapshot(path: Path, state: Any, format: str = FORMAT) -> None:  # noqa: A002 - the header's own word
    """Write nested state to `path`, in one step.

    Args:
        path: the file; its folder must exist.
        state: dicts, lists and tuples of tensors, numpy arrays, numbers, strings and None, nested in any way; tensors
            may be tied. Dictionary keys may be anything of these that has a hash.
        format: what the header says that it is.

    Raises:
        CheckpointError: something else is in it (says what and where).
        OSError: the file cannot be written; `path` is as it was.
    """
    from safetensors.torch import save_file

    path, tensors = named(path), _Tensors()
    content = json.dumps(_packed(state, tensors, "state"))
    metadata = {"format": format, "content": content, "blake2b": _checksum(tensors.found, content)}
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        try:
            save_file(tensors.found, partial, metadata)
        except OSError:
            raise
        except Exception as error:  # safetensors says so of a full disk as well as of a tensor that it cannot hold
            raise OSError(f"{error}") from error
        _flush(partial)
        os.replace(partial, path)
        _flush(path.parent)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def read_snapshot(
    path: Path,
    format: str = FORMAT,  # noqa: A002 - the header's own word
    what: str = "a checkpoint",
    advice: str = "",
) -> Any:
    """Return what `write_snapshot` wrote, tensors on the CPU.

    Raises `CheckpointError` for a missing, damaged or other file; `what` says in words what it should have been, and `advice`, put
    before the full stop, what to do.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            # A copy each: the file is replaced while the state lives on.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be read as {what} ({error}){advice}.") from error
    if metadata.get("format") != format:
        kind = what.removeprefix("a ")
        raise CheckpointError(f"{path} is a safetensors file but no {kind} of this version of modhook{advice}.")
    content = metadata.get("content", "")
    if metadata.get("blake2b") != _checksum(tensors, content):
        raise CheckpointError(f"{path} is damaged: its content does not match its checksum.")
    try:
        return _unpacked(json.loads(content), tensors)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: its content cannot be understood.") from error


def digest(state: Any) -> str:
    """Return a hash of nested state, equal for equal state. Raises `CheckpointError` for what a snapshot cannot hold."""
    tensors = _Tensors()
    content = json.dumps(_packed(state, tensors, "batch"))
    return _checksum(tensors.found, content)


class _Tensors:
    """The tensors of one file by name; the same tensor twice is kept once."""

    def __init__(self) -> None:
        self.found: dict[str, Tensor] = {}
        self._names: dict[Any, str] = {}
        self._storages: set[int] = set()

    def name(self, tensor: Tensor) -> str:
        key = tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.device
        if tensor.data_ptr() and key in self._names:  # 0: empty, or of a class that keeps its numbers elsewhere
            return self._names[key]
        plain = tensor.detach().to("cpu").contiguous()
        storage = plain.untyped_storage()
        if storage.data_ptr() in self._storages or storage.nbytes() != plain.nbytes:
            plain = plain.clone()  # safetensors refuses tensors that share memory
        self._storages.add(plain.untyped_storage().data_ptr())
        name = self._names[key] = str(len(self.found))
        self.found[name] = plain
        return name


def _packed(value: Any, tensors: _Tensors, where: str) -> Any:
    """Return `value` as JSON: numbers, text and lists as they are, everything else as an object that says its kind."""
    if isinstance(value, Tensor):
        if value.is_meta or value.layout != torch.strided or value.is_quantized:
            raise CheckpointError(
                f"{where} is a tensor that a checkpoint cannot hold ({value.layout}, {value.device})."
            )
        return {"tensor": tensors.name(value)}
    if isinstance(value, np.ndarray | np.generic):
        array = np.ascontiguousarray(value)
        if array.dtype.hasobject:
            raise CheckpointError(f"{where} is an array of objects, which a checkpoint cannot hold.")
        raw = torch.from_numpy(np.frombuffer(array.tobytes(), np.uint8).copy())
        kind = "scalar" if isinstance(value, np.generic) else "array"
        return {kind: [tensors.name(raw), array.dtype.str, list(value.shape)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_packed(v, tensors, f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, tuple):
        return {"tuple": [_packed(v, tensors, f"{where}[{i}]") for i, v in enumerate(value)]}
    if isinstance(value, Mapping):
        return {
            "dict": [[_packed(k, tensors, where), _packed(v, tensors, f"{where}[{k!r}]")] for k, v in value.items()]
        }
    raise CheckpointError(f"{where} is of type {type(value).__name__}, which a checkpoint cannot hold.")


def _unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpacked(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    ((kind, inside),) = value.items()
    if kind == "tensor":
        return tensors[inside]
    if kind == "tuple":
        return tuple(_unpacked(v, tensors) for v in inside)
    if kind == "dict":
        return {_unpacked(k, tensors): _unpacked(v, tensors) for k, v in inside}
    name, dtype, shape = inside
    array = np.frombuffer(tensors[name].numpy().tobytes(), np.dtype(dtype)).reshape(shape)
    return {"array": array.copy, "scalar": lambda: array[()]}[kind]()


def _checksum(tensors: Mapping[str, Tensor], content: str) -> str:
    """Return the BLAKE2b of names, types, shapes and bytes of all tensors, and of the JSON text."""
    digest = hashlib.blake2b(content.encode(), digest_size=32)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        if tensor.numel():
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    """Ask the operating system to put a file, or a folder's list of files, on the disk.

    Windows opens no folder and flushes nothing that was opened for reading; some file systems refuse it for folders. There
    the list of files is left to the system.
    """
    folder = path.is_dir()
    try:
        handle = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError:
        if not folder:
            raise
