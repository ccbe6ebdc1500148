"""reidray: unsupervised person re-identification that trains on Ray.

The walk of an image. A crop lies in a folder in its data set's own layout (`data`), or is drawn (`data.drawn`). It is
packed once, untouched, into a WebDataset shard with an index beside it (`storage`). Every epoch a worker extracts its
shards: a network turns the crop into a map of cells, and the map into a unit vector for the whole person and one for
each part (`features`). The vectors go to the memory bank (`bank`), the map's inner products to a labeller, which finds
the parts of the body in it (`parsing`). When all are in, the labeller searches each image's neighbours (`neighbours`),
clusters them (`labelling`), and asks how well the parts agree with the whole (`memory`). The clusters' means are the
memory that the image is then pulled towards and pushed away from (`losses`, `methods`), step by step, on every worker
alike (`training`), while the bank is told (`actors` makes it, the labellers and the workers Ray's). At the end the
image is a query, or stands in a gallery, and is ranked (`evaluation`); what was found is in the run folder (`report`).

Imports go one way: `launch`, `actors`, `report` know of `training`, `methods`, `bank`, and these of the mathematics,
which knows of arrays only. Nothing is imported here, so that a part can be used without the rest.
"""

from reidray.version import __version__

__all__ = ["__version__"]
