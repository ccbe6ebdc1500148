"""Methods: one file a paper. To add one: a file here, a row in `make_method`, a test, a config."""

from collections.abc import Callable

from reidray.config import Settings
from reidray.methods.cluster_contrast import ClusterContrast
from reidray.methods.method import AllCentroids, Centroids, Method, Targets
from reidray.methods.scwm import SCWM

__all__ = ["SCWM", "AllCentroids", "Centroids", "ClusterContrast", "Method", "Targets", "make_method"]


def make_method(settings: Settings) -> Method:
    """The method that the settings name."""
    methods: dict[str, Callable[[], Method]] = {
        "cluster_contrast": lambda: ClusterContrast(settings.method),
        "scwm": lambda: SCWM(settings.method, settings.scwm),
    }
    return methods[settings.method.name]()
