"""Losses: one equation a function, one value an image. Nothing here knows of workers, epochs or settings."""

from reidray.losses.contrast import centroid_contrast, part_separation, weighted_contrast
from reidray.losses.identity import distilled_global_targets, identity_loss, refined_part_targets
from reidray.losses.parsing import diversity_loss, parsing_loss

__all__ = [
    "centroid_contrast",
    "distilled_global_targets",
    "diversity_loss",
    "identity_loss",
    "parsing_loss",
    "part_separation",
    "refined_part_targets",
    "weighted_contrast",
]
