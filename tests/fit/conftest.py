"""What several tests of fits need."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from modhook.fit import joint

# Helpers beside the tests are imported by their file's name.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def stacked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many fits each stacked pass did at once."""
    found: list[int] = []
    real = joint.Joint._at_once

    def counted(self: Any, kind: Any, works: Any) -> Any:
        found.append(len(works))
        return real(self, kind, works)

    monkeypatch.setattr(joint.Joint, "_at_once", counted)
    return found
