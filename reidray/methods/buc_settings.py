"""The settings of BUC, which IHC has as well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from reidray.section import Count, CountOrZero, MethodSection, NotNegative, Part, Positive, Share, setting

if TYPE_CHECKING:
    from reidray.config import Settings


class BucSettings(MethodSection):
    """Bottom-up clustering (used where method.name=buc); it has epochs and learning rates of its own."""

    first_epochs: Count = setting(20, "epochs of the first stage, in which every image is a cluster", "epochs")
    first_full_rate: CountOrZero = setting(
        16, "epochs of it at the full rate; later ones have train.lr_factor", "epochs"
    )
    stage_epochs: Count = setting(
        2, "epochs of every later stage (the public code: 2 for images, 5 for video)", "epochs"
    )
    merge_share: Part = setting(0.05, "merges of a stage, as a share of the images", "share")
    least_clusters: CountOrZero = setting(
        0, "merging ends before there are fewer; 0: before nothing is left to merge", "clusters"
    )
    linkage: Literal["squared_minimum", "minimum", "intermediate"] = setting(
        "squared_minimum",
        "distance of clusters: minimum of the distances of their images, its square as in BUC's public code, or "
        "(minimum + maximum) / 2",
    )
    size_weight: NotNegative = setting(0.003, "BUC's regularisation by the number of images of two clusters; 0: none")
    embedding: Count = setting(2048, "width of the fully connected layer that is trained", "numbers")
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = setting(0.5, "dropout of the embedding", "share")
    temperature: Positive = setting(0.1, "tau of the repelled loss")
    lookup_momentum: Share = setting(0.5, "share of the old row that an update of the lookup table keeps", "share")
    learning_rate: Positive = setting(1e-3, "SGD's learning rate of the new layers; the papers' is 0.1")
    backbone_rate: Positive = setting(0.1, "factor on it for the trunk")

    def check(self, settings: Settings) -> None:
        """See `MethodSection.check`."""
        if settings.model.embedding_layer == "keep":
            name = settings.method.name
            raise ValueError(
                f"model.embedding_layer=keep has no place in method.name={name}, which trains an embedding of its own "
                f"({name}.embedding): set model.embedding_layer=drop"
            )

    @property
    def has_stages(self) -> bool:
        """The number of images says how many stages there are."""
        return True
