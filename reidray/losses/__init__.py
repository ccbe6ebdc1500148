"""Losses: one equation a function, one value an image. Nothing here depends on workers, epochs or settings."""

from reidray.losses.contrast import centroid_contrast, part_separation, weighted_contrast
from reidray.losses.identity import distilled_global_targets, identity_loss, refined_part_targets
from reidray.losses.parsing import diversity_loss, parsing_loss
from reidray.losses.partial import joined_contrast, partial_contrast, unpacked, with_gradient
from reidray.losses.pplr import (
    agreement_smoothed_loss,
    camera_proxy_contrast,
    label_smoothed_loss,
    soft_margin_triplet,
)

__all__ = [
    "agreement_smoothed_loss",
    "camera_proxy_contrast",
    "centroid_contrast",
    "distilled_global_targets",
    "diversity_loss",
    "identity_loss",
    "joined_contrast",
    "label_smoothed_loss",
    "parsing_loss",
    "part_separation",
    "partial_contrast",
    "refined_part_targets",
    "soft_margin_triplet",
    "unpacked",
    "weighted_contrast",
    "with_gradient",
]
