"""The settings of IHC."""

from __future__ import annotations

from typing import Literal

from reidray.methods.buc_settings import BucSettings
from reidray.section import CountOrZero, NotNegative, setting


class IhcSettings(BucSettings):
    """Improved hierarchical clustering (used where method.name=ihc); it has epochs and learning rates of its own."""

    first_full_rate: CountOrZero = setting(
        15, "epochs of it at the full rate; later ones have train.lr_factor", "epochs"
    )
    linkage: Literal["squared_minimum", "minimum", "intermediate"] = setting(
        "intermediate", "distance of clusters: intermediate is the IMD of eq. 4; the others are BUC's"
    )
    size_weight: NotNegative = setting(0.0, "BUC's regularisation by the number of images of two clusters; 0: none")
    compactness_weight: NotNegative = setting(0.3, "lambda of eq. 6: weight of the clusters' CPD (eq. 5); 0: none")
    non_local: Literal["norm", "plain", "none"] = setting(
        "norm",
        "non-local blocks behind the second and the third stage of the trunk (eq. 7 to 9): norm: with a batch norm "
        "behind W_z; plain: without; none: no blocks",
    )
    pooling: Literal["concat", "sum", "avg", "max"] = setting(
        "concat", "global average and maximum pooling side by side or added, or one of them"
    )
