"""The hooks: what this plugin brings, and where it is."""

from modhook import Spec, hookimpl


@hookimpl
def modhook_tasks():
    """One task."""
    return [Spec("minmax", "The smaller or the larger of two digits, as asked", "modhook_task_demo.minmax:MinMax")]


@hookimpl
def modhook_models():
    """One network."""
    return [Spec("demo_gru", "A GRU that reads one symbol after another", "modhook_task_demo.network:DemoGRU")]
