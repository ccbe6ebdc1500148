"""reidray: unsupervised person re-identification that trains on Ray.

The path of an image through a run, with the package that each step is in:

1. A crop is read from its data set's folder (`data`) or drawn (`data.drawn`), and packed once into a shard (`storage`).
2. In every epoch each worker extracts features: a network turns the crop into a map of cells, and the map into a unit
   vector for the whole person and, where the method has parts, one for each part (`features`). The vectors are stored
   in the memory bank (`bank`). A method with parts finds the parts of the body in the map (`parsing`).
3. A labeller searches the nearest neighbours of all images (`neighbours`) and clusters the images (`labelling`). The
   means of the clusters are the centroids (`memory`).
4. The workers train: the losses (`losses`) compare each image with the centroids, as the method says (`methods`), and
   every step updates the network and the centroids (`training`).
5. For each query image the gallery is ranked (`evaluation`).

`launch` puts a run together, `actors` makes workers, labellers and bank processes of Ray, `report` writes what a run
shows, `tuning` searches for settings, and `deployment` checks the files that describe machines.

Imports go one way: the packages of the last paragraph and `storage` may import `training`, `methods` and `bank`, and
these the mathematics, which takes arrays and returns arrays; tests/test_docs.py has the exact rules.

What people use from Python is `train`, `load`, `evaluate` and `Gallery`; `commands` is the same for a shell. They are
imported when they are first used, so that a part can be used without the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from reidray.version import __version__

if TYPE_CHECKING:
    from reidray.api import Run, evaluate, train
    from reidray.gallery import Gallery, Match
    from reidray.inference import Embeddings, Model, load

__all__ = ["Embeddings", "Gallery", "Match", "Model", "Run", "__version__", "evaluate", "load", "train"]

_HOMES = {
    "Embeddings": "reidray.inference",
    "Gallery": "reidray.gallery",
    "Match": "reidray.gallery",
    "Model": "reidray.inference",
    "Run": "reidray.api",
    "evaluate": "reidray.api",
    "load": "reidray.inference",
    "train": "reidray.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'reidray' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
