"""The settings of PPLR."""

from __future__ import annotations

from typing import Literal

from reidray.section import Count, FirstEpoch, MethodSection, NotNegative, Positive, Share, epochs_setting, setting


class PplrSettings(MethodSection):
    """Part-based pseudo label refinement (used where method.name=pplr)."""

    num_stripes: Count = setting(3, "horizontal stripes of the map: the parts", "stripes")
    agreement_neighbours: Count = setting(20, "k of the cross agreement, the image itself not counted", "images")
    beta: Share = setting(0.5, "share of the pseudo-label in the refined global target", "share")
    agreement_from: FirstEpoch = epochs_setting(
        0.1, "before label smoothing by agreement replaces plain label smoothing (public code: 5 of 50)"
    )
    label_smoothing: Share = setting(0.1, "plain label smoothing of the stripes before that epoch", "share")
    triplet_weight: NotNegative = setting(1.0, "weight of the batch-hard triplet loss of the global feature")
    classifier_moments: Literal["kept", "dropped"] = setting(
        "kept", "Adam's moments of the classifiers when their rows are renewed; kept, as in the public code"
    )
    camera_weight: NotNegative = setting(
        0.0, "weight of the contrast between cameras; 0: without cameras (the public code with cameras takes 0.5)"
    )
    camera_temperature: Positive = setting(0.07, "temperature of the contrast between cameras")
    camera_negatives: Count = setting(50, "most similar proxies of other clusters that count as negatives", "proxies")

    @property
    def unread(self) -> tuple[str, ...]:
        """Without a weight there is no contrast between cameras."""
        return () if self.camera_weight else ("camera_temperature", "camera_negatives")

    @property
    def needs_all_rows(self) -> str | None:
        """The global feature and each stripe have a classifier, which starts from all centroids."""
        return "the classifiers of method.name=pplr, which have a row a cluster: set"
