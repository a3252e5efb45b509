"""Losses for learning masks: functions that return a `loss(net, batch)` for `fit_masks` and for the losses of tasks."""

from modhook.objectives.faithful import kl
from modhook.objectives.labels import cross_entropy, logit_difference
from modhook.objectives.own import model_loss
from modhook.objectives.pair import keep_and_lose, together

__all__ = ["cross_entropy", "keep_and_lose", "kl", "logit_difference", "model_loss", "together"]
