"""The plugin keeps what modhook's interfaces promise."""

from modhook_task_demo.minmax import MinMax
from modhook_task_demo.network import DemoGRU

from modhook.testing import check_model, check_task


def test_task():
    """Data, stages, loss and scores."""
    check_task(MinMax, DemoGRU, options={"digits": 5})


def test_network():
    """The same seed gives the same network, and it runs under several masks at once."""
    check_model(DemoGRU, MinMax, options={"hidden": 8})
