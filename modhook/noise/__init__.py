"""Randomness: seeds from names, one generator per mask sample, compiled kernels and the memory they work in."""
