"""A small network of two functions."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# Helpers beside the tests are imported by their file's name.
sys.path.insert(0, str(Path(__file__).parent))

from ask_setting import Setting, trained


@pytest.fixture(scope="session")
def setting() -> Setting:
    """A network that has learned both functions."""
    return trained()
