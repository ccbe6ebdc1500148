"""IHC: improved hierarchical clustering with non-locally enhanced features (Zhao et al.), on BUC.

Sec. III-A  stages, repelled loss, lookup table        reidray.methods.buc
Sec. III-B  IMD and CPD, eq. 4 to 6                    `criterion_of`, reidray.labelling.merging
Sec. III-C  non-local blocks, both poolings, FC        `network`, reidray.features.embedding
"""

from __future__ import annotations

from typing import final

from reidray.config import Settings
from reidray.features import Network, build_embedding_network
from reidray.labelling import Criterion
from reidray.methods.buc import BUC
from reidray.methods.buc_settings import BucSettings
from reidray.methods.ihc_settings import IhcSettings

_POOLINGS = {"concat": ("avg", "max"), "sum": ("avg+max",), "avg": ("avg",), "max": ("max",)}


@final
class IHC(BUC):
    """Improved hierarchical clustering."""

    _own: IhcSettings

    @staticmethod
    def section(settings: Settings) -> BucSettings:
        """The settings of the method."""
        own: IhcSettings = settings.ihc
        return own

    @staticmethod
    def criterion_of(own: BucSettings) -> Criterion:
        """D(A, B) = IMD(A, B) + lambda (CPD(A) + CPD(B)), eq. 6."""
        assert isinstance(own, IhcSettings)
        return Criterion(own.linkage, own.size_weight, own.compactness_weight)

    def network(self) -> Network:
        """A trunk with non-local blocks, average and maximum pooling, and a fully connected layer."""
        own = self._own
        return build_embedding_network(
            backbone=self.settings.model.backbone,
            poolings=_POOLINGS[own.pooling],
            embedding=own.embedding,
            dropout=own.dropout,
            non_local=own.non_local,
            seed=self.settings.train.seed,
        )
