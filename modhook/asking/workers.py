"""Worker processes that are started from a notebook, a script or an interpreter."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Sequence

from modhook.run.one import Done, Run, Spread, Work
from modhook.run.together import in_turn


def spread_over(workers: int | None) -> Spread:
    """Return the way to compute runs: here, or on processes of this machine."""
    if workers is None:
        return in_turn
    from modhook.launch.cluster import OnWorkers

    processes = OnWorkers(workers)

    def spread(work: Work, runs: Sequence[Run]) -> Iterable[Done]:
        with _without_script():
            yield from processes(work, runs)

    return spread


@contextlib.contextmanager
def _without_script() -> Iterator[None]:
    """New processes do not run the user's script once more: what they need of it is sent to them.

    Python's `spawn` begins by importing the main module's file, which a script without `if __name__ == "__main__"` does not survive.
    """
    main = sys.modules["__main__"]
    kept = {name: vars(main)[name] for name in ("__file__", "__spec__") if name in vars(main)}
    for name in kept:
        delattr(main, name)
    main.__spec__ = None
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(main, name, value)
