"""Learning masks by gradient descent."""

from modhook.fit.api import Fit, fit_masks

__all__ = ["Fit", "fit_masks"]
