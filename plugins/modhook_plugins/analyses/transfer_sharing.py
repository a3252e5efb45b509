"""Transfer sharing (reference, sections 3 and 6): how much of each new mask was in use already?

*Used* before a stage is the union of the masks of all stages before it. Positions are counted, in the first layer too, whose
used weights the protocol `transfer` initialises again before every stage: there a reused weight is a reused place, not a
reused value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from modhook import Analysis, Task, Variable

if TYPE_CHECKING:
    from modhook import FinishedRun

_DIMS = ("stage", "parameter")


class TransferSharing(Analysis):
    """Share of used weights in each tensor's new mask, and share of the tensor that is used; NaN for the first stage.

    Meant for the protocol `transfer`; under another one the stages count in their order all the same.
    """

    def variables(self, task: Task) -> tuple[Variable, ...]:
        """Declare the group `transfer_sharing`."""
        return (
            Variable(
                "transfer_sharing/reused", _DIMS, "float64", "share of used weights among those that the stage keeps"
            ),
            Variable("transfer_sharing/used", _DIMS, "float64", "share of the tensor's weights that is used by then"),
        )

    def compute(self, run: FinishedRun) -> dict[str, Any]:
        """Go through the stages with the union of the masks so far."""
        order = [str(x) for x in run.coordinates("transfer_sharing/used")["parameter"]]
        reused, used = (np.full((len(run.stages), len(order)), np.nan) for _ in range(2))  # (S, P)
        so_far = {n: torch.zeros_like(m) for n, m in run.masks[run.stages[0]].items()}
        for s, stage in enumerate(run.stages):
            for name, mask in run.masks[stage].items():
                if s:
                    p, kept = order.index(name), int(mask.sum())
                    used[s, p] = so_far[name].double().mean()
                    reused[s, p] = int((mask & so_far[name]).sum()) / kept if kept else np.nan
                so_far[name] = so_far[name] | mask
        return {"transfer_sharing/reused": reused, "transfer_sharing/used": used}
