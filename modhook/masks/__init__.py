"""Binary masks over the parameters of a network: what is masked, set algebra, scores under masks."""

from modhook.masks.masks import Masks, iomin, iou

__all__ = ["Masks", "iomin", "iou"]
