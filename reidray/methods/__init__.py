"""Methods: one file a paper, from the first line of its clustering stage to its last loss.

To add one: a file here, a section of settings beside it if it has settings of its own, a row in METHODS, a test and a
config (docs/architecture.md, "Adding a method"). Nothing here imports PyTorch: the settings and `--help` need this
table and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

from reidray.methods.aac_settings import AacSettings
from reidray.methods.acrm_settings import AcrmSettings
from reidray.methods.buc_settings import BucSettings
from reidray.methods.ihc_settings import IhcSettings
from reidray.methods.pplr_settings import PplrSettings
from reidray.methods.scwm_settings import ScwmSettings
from reidray.section import MethodSection

if TYPE_CHECKING:
    from reidray.config import Settings
    from reidray.methods.method import Method

__all__ = ["METHODS", "Entry", "make_method"]


@dataclass(frozen=True)
class Entry:
    """Where a method is.

    Attributes:
      module: its file in this folder.
      kind: its class there.
      section: its own settings, None where it has none.
      weighs_images: whether it has a difficulty for each image, which method.update=weighted needs.
      criteria: criteria without truth that depend on settings of its section, and these settings; beside "silhouette"
        and "camera_cycle", the criteria that it computes.
      unread: shared settings that it does not read, as section.name.
    """

    module: str
    kind: str
    section: type[MethodSection] | None = None
    weighs_images: bool = False
    criteria: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unread: tuple[str, ...] = ()


_OWN_STAGES = (
    *(f"method.{name}" for name in ("eps", "min_samples", "k1", "k1_counts_itself", "k2", "search")),
    *(f"method.{name}" for name in ("search_components", "search_candidates", "prefer_other_cameras")),
    "method.camera_centring",
    *(f"method.{name}" for name in ("temperature", "momentum", "update")),
    *(f"train.{name}" for name in ("epochs", "steps", "learning_rate", "lr_every")),
)

METHODS = {
    "scwm": Entry(
        "scwm",
        "SCWM",
        ScwmSettings,
        weighs_images=True,
        criteria={
            "silhouette": ("cluster_feature",),
            "camera_cycle": ("cluster_feature",),
            "agreement": ("difficulty_neighbours", "num_parts"),
        },
    ),
    "cluster_contrast": Entry("cluster_contrast", "ClusterContrast"),
    "aac": Entry("aac", "AAC", AacSettings),
    "acrm": Entry(
        "acrm",
        "ACRM",
        AcrmSettings,
        criteria=dict.fromkeys(("silhouette", "camera_cycle"), ("refine", "graph", "order")),
        unread=("method.update",),
    ),
    "buc": Entry("buc", "BUC", BucSettings, unread=_OWN_STAGES),
    "ihc": Entry("ihc", "IHC", IhcSettings, unread=(*_OWN_STAGES, "model.pooling")),
    "pplr": Entry(
        "pplr",
        "PPLR",
        PplrSettings,
        criteria={"agreement": ("agreement_neighbours", "num_stripes")},
        unread=("method.temperature", "method.momentum", "method.update"),
    ),
}
"""Every method by the name that method.name takes."""


def make_method(settings: Settings) -> Method:
    """The method that the settings name."""
    entry = METHODS[settings.method.name]
    kind = getattr(import_module(f"reidray.methods.{entry.module}"), entry.kind)
    method: Method = kind(settings)
    return method
