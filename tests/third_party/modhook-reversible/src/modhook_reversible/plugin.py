"""What this package brings; the classes are loaded when a study needs them."""

from modhook import Spec, hookimpl


@hookimpl
def modhook_tasks():
    """One task."""
    return [Spec("reversible", "A reversible cellular automaton, one step on or one back", "modhook_reversible.automaton:Reversible")]


@hookimpl
def modhook_models():
    """One network."""
    return [Spec("reversible_conv", "Three convolutions over a ring of cells", "modhook_reversible.network:RingConv")]


@hookimpl
def modhook_analyses():
    """One analysis."""
    return [Spec("directions", "What each direction, and both, use", "modhook_reversible.directions:Directions")]


@hookimpl
def modhook_figures():
    """One figure."""
    return [Spec("directions", "Both directions without a part of the weights", "modhook_reversible.figure:DirectionsFigure")]
