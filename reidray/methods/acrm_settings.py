"""The settings of ACRM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from reidray.section import Count, MethodSection, NotNegative, Positive, setting

if TYPE_CHECKING:
    from reidray.config import Settings


class AcrmSettings(MethodSection):
    """Adaptive clustering relationship modelling (used where method.name=acrm)."""

    refine: bool = setting(True, "cluster relation-aware features (eq. 1 to 4); false: the raw ones")
    graph: Count = setting(16, "B: images of a graph before clustering", "images")
    order: Literal["neighbours", "file_name", "shuffled"] = setting(
        "neighbours",
        "images that share a graph before clustering: neighbours; file_name, the paper's, which leaks identities where "
        "file names begin with them; shuffled",
    )
    attention_temperature: Positive = setting(5.0, "T of eq. 2")
    graph_weight: NotNegative = setting(0.5, "lambda of eq. 8: weight of the loss of relation-aware features")
    update: Literal["top_k", "average", "random"] = setting(
        "top_k", "which images of a batch move their centroid: the k least similar to it (eq. 6), all, or a random one"
    )
    k: Count = setting(2, "k of eq. 6 and 7", "images of a cluster")
    loss: Literal["top_k", "all"] = setting("top_k", "which images of a batch carry the loss: those of eq. 7, or all")

    @property
    def unread(self) -> tuple[str, ...]:
        """Without the loss on relation-aware features nothing is refined."""
        found = () if self.graph_weight else ("graph", "order", "attention_temperature")
        return (*found, *(() if "top_k" in (self.update, self.loss) else ("k",)))

    def check(self, settings: Settings) -> None:  # noqa: ARG002 (nothing outside of the section matters)
        """See `MethodSection.check`."""
        if self.refine and not self.graph_weight:
            raise ValueError(
                "acrm.refine=true needs acrm.graph_weight above 0, since no other loss trains the graph's layers: set "
                "acrm.refine=false"
            )
