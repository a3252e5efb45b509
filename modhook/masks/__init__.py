"""Binary masks over the parameters of a network: what is masked, set algebra, overlap, scores under masks."""

from modhook.masks.masks import Masks
from modhook.masks.overlap import iomin, iou

__all__ = ["Masks", "iomin", "iou"]
