"""Figures: matplotlib as it comes, the style of all of them, and those of masks, fits and datasets."""
