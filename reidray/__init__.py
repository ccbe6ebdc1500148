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
these the mathematics, which takes arrays and returns arrays; tests/test_docs.py has the exact rules. This file imports
nothing but the version, so that a part can be used without the rest.
"""

from reidray.version import __version__

__all__ = ["__version__"]
