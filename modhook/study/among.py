"""`masks.among` and `masks.relative_beta`: what they take."""

from __future__ import annotations

from typing import Any

from modhook.plugin.interfaces import Ranking
from modhook.plugin.manager import Plugins
from modhook.study.named import plugin_class
from modhook.study.problems import Problems
from modhook.study.sections import MasksSection
from modhook.values.text import written


def check_among(masks: MasksSection, sampler: Any, protocol: Any, name: str, plugins: Plugins, problems: Problems) -> None:
    """Note what is no ranking, and settings that do not go with it."""
    learned = protocol is not None and protocol.weights_per_stage
    if masks.relative_beta and learned:
        problems.add(("masks", "relative_beta"), f"the protocol {name!r} changes weights, whose loss is not known before; leave it out")
    if masks.among is None:
        return
    path = ("masks", "among")
    ranking = plugin_class("samplers", masks.among, path, plugins, problems)
    if ranking is not None and not issubclass(ranking, Ranking):
        problems.add(path, f"{written(masks.among)} learns masks; give a ranking without training, such as 'integrated_gradients'")
    if sampler is not None and issubclass(sampler, Ranking):
        problems.add(path, f"masks.sampler = {written(masks.sampler)} ranks weights itself and learns nothing; leave it out")
    if learned:
        problems.add(path, f"the protocol {name!r} changes weights while masks are learned; leave it out")
