"""The k-reciprocal Jaccard distance, kept sparse.

Z. Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017 (arXiv:1701.08398). Each
image is described by weights on its k-reciprocal neighbours (eq. 7), averaged over its k2 nearest images (eq. 11), and
the distance compares two such descriptions (eq. 10). Images that share no neighbour are at distance 1 and are not
stored.
"""

from typing import Any

import numpy as np
from scipy import sparse

from reidray.arrays import Array, Floats, Ints
from reidray.neighbours.descriptions import SimilaritiesOf, averaged, described
from reidray.neighbours.ordering import by_place, near_places
from reidray.neighbours.overlap import both_ways, close_pairs
from reidray.neighbours.reciprocal import reciprocal_sets
from reidray.neighbours.search import nearest
from reidray.neighbours.similarity import UNIT_TOLERANCE, read_only, similarities_of_pairs, unit_rows

# N = images, D = feature width, K = neighbours (the image itself is one of them), U = pairs of images

LARGEST_SIMILARITY = (1.0 + 1.1 * UNIT_TOLERANCE) ** 2
_CERTAINLY_UNIT = 1.9 * UNIT_TOLERANCE  # of the squared length; what is further off is measured exactly


def jaccard_distances(
    features_ND: Any, *, k1: int, k2: int, keep: float, counts_itself: bool = True
) -> sparse.csr_array:
    """Jaccard distances between all images that have k-reciprocal neighbours in common.

    Two lengths of the neighbour lists are in use, and published scores depend on which. The original `re_ranking`
    sorts all images and takes the first k1 + 1, that is the image itself and k1 others. The unsupervised trainers that
    search with faiss (SpCL, Cluster Contrast, PPLR, ICE, ISE, CAP, OpenUnReID) ask the search for k1 neighbours and
    then slice k1 + 1 of them: the image itself and k1 - 1 others.

    Args:
      features_ND: unit rows, N >= 1.
      k1: neighbours of the encoding, >= 1. The half lists of the expansion have round(k1 / 2) + 1 columns (halves round
        to even), the image itself included; no more than the lists. Fewer when N is smaller.
      k2: how many of the nearest images, itself included, are averaged; >= 1; 1 averages nothing.
      keep: largest distance to store, in (0, 1]; compared in float32. DBSCAN with eps needs only keep >= eps, and the
        smaller it is, the fewer pairs are compared.
      counts_itself: whether k1 counts the image itself, as in the trainers: lists of k1 columns. False is the original
        code: lists of k1 + 1 columns.

    Errors:
      ValueError for k1, k2 < 1, keep outside (0, 1], and as `nearest` for the features.

    Returns:
      float32 [N, N] CSR, symmetric bit for bit, columns ascending: every pair with d < 1 and d <= keep, and the
      diagonal as a stored 0. A pair that is not stored is at distance 1 (or above `keep`). O(N k1) memory besides the
      result.
    """
    check_lengths(k1, k2, keep)
    indices_NK, similarities_NK = nearest(features_ND, columns_needed(k1, counts_itself))
    return jaccard_from_neighbours(
        indices_NK, similarities_NK, features_ND, k1=k1, k2=k2, keep=keep, counts_itself=counts_itself
    )


def jaccard_from_neighbours(
    indices_NK: Array,
    similarities_NK: Array,
    features_ND: Any,
    *,
    k1: int,
    k2: int,
    keep: float,
    counts_itself: bool = True,
) -> sparse.csr_array:
    """`jaccard_distances` after the search, for neighbour lists that are already there.

    The result is a function of the lists and of the few similarities that they lack, the same bit for bit for any
    `keep` (what is stored) and any number of threads: similarities as `similarity` has them, eq. 7 in float64 rounded
    to float32, eq. 11 in float32 from the nearest image on, eq. 10 in float32 by ascending column.

    Args:
      indices_NK, similarities_NK: as returned by `nearest(features_ND, k)` with k >= k1, or k >= k1 + 1 unless
        `counts_itself`; further columns are not looked at.
      features_ND: the rows that were searched. Only rows whose similarity to another row is in neither list are read
        (`nearest` has checked them all).
      k1, k2, keep, counts_itself: as in `jaccard_distances`.

    Errors:
      as `jaccard_distances`, but of the features only the rows that are read and those whose list says that they have
      not length 1 are known to be wrong; ValueError when the lists do not belong to the features.
    """
    with np.errstate(over="ignore"):  # a number too large for float32 becomes infinite and is refused
        features_ND = read_only(np.ascontiguousarray(features_ND, dtype=np.float32))
    if features_ND.ndim != 2 or len(features_ND) == 0:
        raise ValueError(f"features must be a matrix with one row per image; got shape {features_ND.shape}.")
    check_lengths(k1, k2, keep)
    _check_shapes(indices_NK, similarities_NK, len(features_ND), columns_needed(k1, counts_itself))

    def similarities_of(firsts_U: Ints, seconds_U: Ints) -> Floats:
        images = np.unique(np.concatenate([firsts_U, seconds_U]))
        squared_lengths = similarities_of_pairs(features_ND, images, images)
        if not (np.abs(squared_lengths - 1.0) <= _CERTAINLY_UNIT).all():
            unit_rows(features_ND, name="features")
        similarities_U: Floats = similarities_of_pairs(features_ND, firsts_U, seconds_U)
        return similarities_U

    return jaccard_from_lists(
        indices_NK, similarities_NK, similarities_of, k1=k1, k2=k2, keep=keep, counts_itself=counts_itself
    )


def jaccard_from_lists(
    indices_NK: Array,
    similarities_NK: Array,
    similarities_of: SimilaritiesOf,
    *,
    k1: int,
    k2: int,
    keep: float,
    counts_itself: bool = True,
) -> sparse.csr_array:
    """`jaccard_from_neighbours` where the features lie elsewhere.

    Args:
      similarities_of: is called at most once, with the pairs whose similarity is in neither list: images [U] and
        images [U], int64, each pair both ways round and pairs of similar images close together; returns `similarity` of
        each, float32 [U], and sees to it that the rows have length 1.
      the others: as in `jaccard_from_neighbours`.

    Errors:
      ValueError as there, and whatever similarities_of raises.
    """
    check_lengths(k1, k2, keep)
    columns = min(columns_needed(k1, counts_itself), len(indices_NK))
    _check_shapes(indices_NK, similarities_NK, len(indices_NK), columns)
    _check_lists(indices_NK, similarities_NK)
    indices_NK, similarities_NK = indices_NK[:, :columns], similarities_NK[:, :columns]
    places = near_places(indices_NK)
    neighbours_PK, similarities_PK = by_place(places, indices_NK, similarities_NK)
    sets = reciprocal_sets(neighbours_PK, min(round(k1 / 2) + 1, columns))
    rows = described(places, neighbours_PK, similarities_PK, sets, similarities_of)
    if k2 > 1:
        rows = averaged(rows, places, neighbours_PK[:, :k2])
    ends_N1, columns_E, distances_E = both_ways(close_pairs(rows, keep), places)
    index_type = np.int32 if len(columns_E) <= np.iinfo(np.int32).max else np.int64
    distances = sparse.csr_array(
        (distances_E, columns_E.astype(index_type, copy=False), ends_N1.astype(index_type)),
        shape=(len(indices_NK), len(indices_NK)),
    )
    distances.has_canonical_format = True  # sorted, each pair once: nobody needs to look again
    return distances


def columns_needed(k1: int, counts_itself: bool) -> int:
    """Length of the neighbour lists, the image itself included."""
    return k1 if counts_itself else k1 + 1


def check_lengths(k1: int, k2: int, keep: float) -> None:
    """ValueError for numbers outside of their range."""
    if k1 < 1 or k2 < 1:
        raise ValueError(f"k1 and k2 must be at least 1; got k1={k1} and k2={k2}.")
    if not 0.0 < keep <= 1.0:
        raise ValueError(f"keep must be in (0, 1]; got {keep}.")


def _check_shapes(indices_NK: Array, similarities_NK: Array, count: int, columns: int) -> None:
    """Lists of `count` images with at least so many columns, or with all images."""
    columns = min(columns, count)
    if indices_NK.shape != similarities_NK.shape or len(indices_NK) != count or indices_NK.shape[1] < columns:
        raise ValueError(
            f"neighbour lists must have {count} rows and at least {columns} columns; got indices {indices_NK.shape} "
            f"and similarities {similarities_NK.shape}."
        )


def _check_lists(indices_NK: Array, similarities_NK: Array) -> None:
    """Cheap signs that the lists are those of unit rows."""
    count = len(indices_NK)
    if indices_NK.min() < 0 or indices_NK.max() >= count:
        raise ValueError(f"neighbour lists must hold indices in [0, {count}); were they made from other features?")
    wrong = np.flatnonzero(~(np.abs(similarities_NK) <= LARGEST_SIMILARITY).all(axis=1))
    if len(wrong):
        raise ValueError(
            f"neighbour lists must hold similarities of unit rows; row {wrong[0]} holds others, or NaN or infinity."
        )
    is_itself_NK = indices_NK == np.arange(count)[:, None]
    wrong = np.flatnonzero((is_itself_NK & (np.abs(similarities_NK - 1.0) > 2.2 * UNIT_TOLERANCE)).any(axis=1))
    if len(wrong):
        raise ValueError(
            f"neighbour lists must be those of unit rows; row {wrong[0]} does not have similarity 1 with itself."
        )
