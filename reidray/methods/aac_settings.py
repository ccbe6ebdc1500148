"""The settings of AAC."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reidray.section import Count, FirstEpoch, MethodSection, epochs_of, epochs_setting, setting

if TYPE_CHECKING:
    from reidray.config import Settings


class AacSettings(MethodSection):
    """Attribute auxiliary clustering (used where method.name=aac); weakly supervised: attributes are annotations."""

    least: Count = setting(5, "delta: images with equal attributes that make a cluster of their own", "images")
    start_epoch: FirstEpoch = epochs_setting(0, "how long clusters are left whole before they are split")

    def check(self, settings: Settings) -> None:
        """See `MethodSection.check`."""
        if epochs_of(self.start_epoch, settings.train.epochs) >= settings.train.epochs:
            raise ValueError(
                f"aac.start_epoch={self.start_epoch} is no epoch of train.epochs={settings.train.epochs}, so that no "
                "cluster would be split: lower it, or take method.name=cluster_contrast"
            )
