"""The device that these tests run on: a GPU, or one of two that stand in for it so that the tests themselves are tried.

MODHOOK_CUDA_TESTS_ON=pretend runs them on a device that is made of the CPU but is not it (`pretend_device`), =cpu on the CPU.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

ON = os.environ.get("MODHOOK_CUDA_TESTS_ON", "cuda")


def _pretend() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pretend_device", Path(__file__).with_name("pretend_device.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["pretend_device"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True, scope="session")
def _there() -> None:
    """Skip all where there is no such device; on a GPU use the arithmetic that repeats itself."""
    if ON == "cuda":
        if not torch.cuda.is_available():
            pytest.skip(
                "torch finds no GPU here; MODHOOK_CUDA_TESTS_ON=pretend tries these tests on a device made of the CPU"
            )
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = False
    elif ON == "pretend":
        try:
            from torch.utils.backend_registration import _setup_privateuseone_for_python_backend  # noqa: F401
        except ImportError:
            pytest.skip(f"torch {torch.__version__} has no backends in Python")
        _pretend().set_up()


@pytest.fixture(scope="session")
def device(_there: None) -> str:
    """The device, as users name it."""
    return ON


@pytest.fixture
def pretend(device: str) -> Any:
    """The device that counts what would be waited for; skips on others."""
    if device != "pretend":
        pytest.skip("only the device made of the CPU counts what is waited for, and draws the CPU's numbers")
    return sys.modules["pretend_device"]


@pytest.fixture
def there(device: str) -> Callable[[Any], Any]:
    """Copies a network, or a tree of tensors, onto the device."""

    def move(value: Any) -> Any:
        if isinstance(value, nn.Module):
            return copy.deepcopy(value).to(device)
        return pytree.tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, value)

    return move
