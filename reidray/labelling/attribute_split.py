"""Dividing clusters by what is noted about their images: attribute auxiliary clustering (AAC).

G. Cao and K.-H. Jo, "Attribute Auxiliary Clustering for Person Re-identification", section 3.2. Weakly supervised: the
attributes are annotations, and in Market-1501 they come close to telling the identity (508 distinct vectors for 751
persons), so what is trained with these labels must not be called unsupervised.

Letters: N images, A attributes, M images that can be moved (in a cluster, attributes known), G groups of such images
with equal cluster and equal attributes, C clusters.
"""

from dataclasses import dataclass

import numpy as np

from reidray.arrays import Array, Ints


@dataclass(frozen=True)
class AttributeSplit:
    """Labels after the split, and how much it changed.

    labels_N: int64, the cluster of each image, 0 .. C + num_splits - 1 without gaps; -1 for none.
    num_splits: clusters that are new.
    num_split_clusters: clusters that gave images to new ones.
    num_moved: images that are in a new cluster.
    """

    labels_N: Ints
    num_splits: int
    num_split_clusters: int
    num_moved: int


def split_by_attributes(labels_N: Array, attributes_NA: Array, *, least: int) -> AttributeSplit:
    """Inside each cluster, images with equal attributes leave it together where there are enough of them.

    Section 3.2 and eq. (4) of AAC, read so: the images of a cluster are grouped by equality of the whole vector of
    attributes; a group of at least `least` images becomes a cluster of its own; all others keep the old label, also
    when they have little in common. (The paper says "more than a threshold" and prints results for thresholds of 4 to
    10; whether it counts > or >= is not said. Here it is >=.)

    Where all images of a cluster are in such groups and none would be left under the old label, the largest group
    keeps it (ties: the one that has the lowest image). So a cluster that is one group stays as it is, no label falls
    vacant, and the fewest images move. New clusters are numbered from C in the order of their lowest images: no number
    depends on the order of the columns, and which images are together does not depend on the order of the images.

    Args:
      labels_N: integers, 0 .. C-1 without gaps; negative for images in no cluster, which keep their label.
      attributes_NA: integers, equal where the same was noted; -1 is "not noted" and a value like any other, but an
        image of which nothing was noted (-1 everywhere, or A = 0) stays where it is.
      least: δ of the paper (5), >= 1; above N nothing changes.

    Errors:
      ValueError when the shapes do not fit, something is no integer, labels have gaps or least < 1.

    Returns:
      An AttributeSplit; the arguments are not changed.
    """
    labels_N, attributes_NA = np.asarray(labels_N), np.asarray(attributes_NA)
    sizes_C = _sizes_of_clusters(labels_N, attributes_NA, least)
    labels_N = labels_N.astype(np.int64)
    movable_M = np.flatnonzero((labels_N >= 0) & (attributes_NA != -1).any(axis=1))
    if len(movable_M) == 0:
        return AttributeSplit(labels_N, 0, 0, 0)

    vectors_M, num_vectors = _numbered_rows(attributes_NA[movable_M])
    pairs_G, firsts_G, group_M, counts_G = np.unique(
        labels_N[movable_M] * num_vectors + vectors_M, return_index=True, return_inverse=True, return_counts=True
    )
    clusters_G = pairs_G // num_vectors

    leaves_G = counts_G >= least
    left_C = sizes_C.copy()
    np.subtract.at(left_C, clusters_G[leaves_G], counts_G[leaves_G])
    by_size_G = np.lexsort((firsts_G, -counts_G, clusters_G))
    largest = by_size_G[np.unique(clusters_G[by_size_G], return_index=True)[1]]
    leaves_G[largest[left_C[clusters_G[largest]] == 0]] = False

    new = np.flatnonzero(leaves_G)
    new_labels_G = np.full(len(pairs_G), -1, np.int64)
    new_labels_G[new[np.argsort(firsts_G[new])]] = len(sizes_C) + np.arange(len(new))
    moves_M = leaves_G[group_M]
    labels_N[movable_M[moves_M]] = new_labels_G[group_M[moves_M]]
    return AttributeSplit(labels_N, len(new), len(np.unique(clusters_G[new])), int(moves_M.sum()))


def _sizes_of_clusters(labels_N: Array, attributes_NA: Array, least: int) -> Ints:
    """How many images each cluster has, once the arguments are found to be in order."""
    if labels_N.ndim != 1 or not (np.issubdtype(labels_N.dtype, np.integer) or labels_N.size == 0):
        raise ValueError(f"labels must be a vector of integers; got {labels_N.dtype} of shape {labels_N.shape}.")
    if attributes_NA.ndim != 2 or not (np.issubdtype(attributes_NA.dtype, np.integer) or attributes_NA.size == 0):
        raise ValueError(
            f"attributes must be a matrix of integers; got {attributes_NA.dtype} of shape {attributes_NA.shape}."
        )
    if len(labels_N) != len(attributes_NA):
        raise ValueError(
            f"expected attributes of each of the {len(labels_N)} labelled images, got {len(attributes_NA)} rows; are "
            "they those of another split?"
        )
    if least < 1:
        raise ValueError(f"expected least >= 1 images for a new cluster, got {least}; correct the setting.")
    sizes_C: Ints = np.bincount(labels_N[labels_N >= 0].astype(np.int64))
    if not sizes_C.all():
        raise ValueError(
            f"expected labels 0 to {len(sizes_C) - 1} without gaps, got no image with label "
            f"{int(np.argmin(sizes_C))}; number the clusters anew."
        )
    return sizes_C


def _numbered_rows(values_MA: Array) -> tuple[Ints, int]:
    """A number 0 .. V-1 for each row, equal for equal rows and otherwise arbitrary, and V."""
    width = values_MA.dtype.itemsize * values_MA.shape[1]
    rows_M = np.ascontiguousarray(values_MA).view(np.dtype((np.void, width)))[:, 0]
    distinct, numbers_M = np.unique(rows_M, return_inverse=True)
    return numbers_M, len(distinct)
