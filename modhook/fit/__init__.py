"""Learning masks by gradient descent."""

from modhook.fit.api import fit_masks
from modhook.fit.result import Fit

__all__ = ["Fit", "fit_masks"]
