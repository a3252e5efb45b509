"""A question for modhook: are the two directions of a reversible cellular automaton separate modules?"""
