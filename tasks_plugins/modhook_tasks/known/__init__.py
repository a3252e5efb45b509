"""Networks whose modules are known weight by weight: compiled, welded, superposed, and some with nothing to find."""

from modhook_tasks.known.catalogue import build, networks
from modhook_tasks.known.structure import Batches, Function, Known, Truth

__all__ = ["Batches", "Function", "Known", "Truth", "build", "networks"]
