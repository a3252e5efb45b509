"""Checks for authors of plugins: does what a plugin brings keep what its interface promises?

One function per kind takes the plugin's class and its options as a study would give them, and raises `AssertionError`, saying what is
wrong and what to do. They run on the CPU, on a handful of items, in temporary folders. Instead of a class its name in a study may be
given, `"my_task.py:MyTask"`, the file relative to the current folder; and instead of a network plugin what makes the network.
"""

from modhook.testing.analyses import check_analysis
from modhook.testing.figures import check_figure
from modhook.testing.protocols import check_protocol
from modhook.testing.samplers import check_sampler
from modhook.testing.tasks import check_model, check_task
from modhook.testing.trackers import check_tracker

__all__ = [
    "check_analysis",
    "check_figure",
    "check_model",
    "check_protocol",
    "check_sampler",
    "check_task",
    "check_tracker",
]
