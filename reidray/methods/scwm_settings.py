"""The settings of SCWM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from reidray.section import (
    Count,
    Epochs,
    FirstEpoch,
    MethodSection,
    NotNegative,
    Positive,
    Share,
    epochs_setting,
    setting,
)

if TYPE_CHECKING:
    from reidray.config import Settings


class ScwmSettings(MethodSection):
    """Spatial cascaded clustering and weighted memory (used where method.name=scwm)."""

    parts: Literal["parsed", "stripes"] = setting(
        "parsed", "parsed: the parts of eq. 1 and 2; stripes: equal horizontal stripes, as in PPLR"
    )
    num_parts: Annotated[int, Field(ge=2)] = setting(
        4, "l: parts, the background counted; stripes have no background and are one fewer", "parts"
    )
    max_distance: Positive = setting(
        0.5, "eta of eq. 2: cells further apart are kept in different parts", "share of map height"
    )
    linkage: Literal["average", "complete", "single"] = setting("average", "linkage of the agglomeration")
    foreground_classes: Literal[2, 3] = setting(2, "3: with the foreground correction; 2: without")
    space: Literal["forbid", "off", "kmeans", "rows"] = setting(
        "forbid",
        "forbid: eq. 2; off: no space term; kmeans: original cascade; rows: the foreground in equal rows of the map",
    )
    log_magnitude: bool = setting(False, "cluster the logarithm of the magnitudes")
    centre_prior: NotNegative = setting(0.15, "weak prior for cells near the centre column", "per cell")
    mask_momentum: Share = setting(0.2, "gamma of eq. 3 at the first epoch", "share")
    mask_momentum_epochs: Epochs = epochs_setting(0.33, "in which gamma falls to 0 (paper: 20 of 60)")
    difficulty_neighbours: Count = setting(20, "k of eq. 7, the image itself not counted", "images")
    background_in_difficulty: bool = setting(True, "the background part counts in alpha of the global feature")
    background_in_losses: bool = setting(True, "the background part has contrastive and identity losses")
    normalise_weights: Literal["cluster", "batch"] = setting(
        "cluster", "eq. 8: weights are normalised over a cluster's images in the batch, or over the batch as printed"
    )
    weighted_update: Literal["sequence", "once"] = setting(
        "sequence",
        "eq. 9 with method.update=weighted: image after image with its weight, as the average update without weights; "
        "or one update a cluster and step",
    )
    weight_place: Literal["outside", "inside", "none"] = setting(
        "outside", "eq. 10: weight times -log p; as printed; no weight"
    )
    global_memory_weight: NotNegative = setting(1.0, "weight of the global term of eq. 10")
    part_memory_weight: NotNegative = setting(1.0, "weight of the part term of eq. 10")
    separation_weight: NotNegative = setting(1.0, "weight of eq. 11")
    parsing_weight: NotNegative = setting(1.0, "weight of eq. 4")
    diversity_weight: NotNegative = setting(1.0, "weight of eq. 5")
    diversity_cells: Literal["sum", "mean"] = setting(
        "mean", "eq. 5: the mean over cells, or their sum, as printed, which can turn all parts into background"
    )
    global_identity_weight: NotNegative = setting(0.0, "weight of the global term of eq. 15")
    part_identity_weight: NotNegative = setting(0.0, "weight of the part term of eq. 15")
    beta: Share = setting(0.35, "eq. 14: share of the pseudo-label in the global target", "share")
    part_refinement_from: FirstEpoch = epochs_setting(
        0.08, "before eq. 13 replaces plain label smoothing (paper: 5 of 60)"
    )
    label_smoothing: Share = setting(0.1, "label smoothing of the part classifiers before that epoch", "share")
    cluster_feature: Literal["global", "concat"] = setting(
        "concat", "what is clustered: the global feature, as in the paper, or global and foreground parts"
    )
    feature: Literal["global", "concat"] = setting(
        "concat", "evaluated feature: global, or global and parts by visibility"
    )

    @property
    def unread(self) -> tuple[str, ...]:
        """Stripes have no masks; without classifiers there are no targets for them."""
        found: list[str] = []
        if self.parts == "stripes":
            found += ["max_distance", "linkage", "foreground_classes", "space", "log_magnitude", "centre_prior"]
            found += ["mask_momentum", "mask_momentum_epochs", "parsing_weight", "diversity_weight"]
            found += ["diversity_cells"]
            found += ["background_in_difficulty", "background_in_losses"]
        found += [] if self.part_identity_weight else ["part_refinement_from", "label_smoothing"]
        return (*found, *([] if self.global_identity_weight else ["beta"]))

    @property
    def classifies(self) -> bool:
        """With eq. 15 there is a classifier for each vector, with a row a cluster."""
        return self.global_identity_weight + self.part_identity_weight > 0

    @property
    def needs_all_rows(self) -> str | None:
        """The classifiers start from all centroids."""
        without = "set scwm.global_identity_weight=0 and scwm.part_identity_weight=0"
        return f"classifiers with a row a cluster: {without}, or" if self.classifies else None

    def check(self, settings: Settings) -> None:  # noqa: ARG002 (nothing outside of the section matters)
        """See `MethodSection.check`."""
        of_features = self.global_memory_weight + self.part_memory_weight + self.separation_weight
        of_features += self.global_identity_weight + self.part_identity_weight
        of_masks = self.parsing_weight + self.diversity_weight if self.parts == "parsed" else 0.0
        if not of_features + of_masks:
            raise ValueError("all loss weights of the section scwm are 0: give at least one of them a value")
