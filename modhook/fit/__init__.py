"""Learning masks by gradient descent."""

from modhook.fit.api import fit_masks
from modhook.fit.result import Fit
from modhook.fit.together import fit_masks_together

__all__ = ["Fit", "fit_masks", "fit_masks_together"]
