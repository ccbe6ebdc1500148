"""The settings of AAC."""

from __future__ import annotations

from reidray.section import Count, CountOrZero, MethodSection, setting


class AacSettings(MethodSection):
    """Attribute auxiliary clustering (used where method.name=aac); weakly supervised: attributes are annotations."""

    least: Count = setting(5, "delta: images with equal attributes that make a cluster of their own", "images")
    start_epoch: CountOrZero = setting(0, "first epoch in which clusters are split", "epoch")
