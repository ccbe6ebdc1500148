"""Labels from the true identities: the upper bound that a labeller without them can reach. Never used by a method that
claims to be unsupervised."""

from typing import Any

import numpy as np

# N = images


def labels_from_persons(persons_N: Any) -> np.ndarray:
    """One cluster per person, numbered 0 .. C-1 by ascending person.

    Args:
      persons_N: true identities, integers; negative where unknown.

    Errors:
      ValueError when the identities are not a vector of integers.

    Returns:
      labels_N int64; -1 where the person is unknown.
    """
    persons_N = np.asarray(persons_N)
    if persons_N.ndim != 1 or not (np.issubdtype(persons_N.dtype, np.integer) or persons_N.size == 0):
        raise ValueError(f"persons must be a vector of integers; got {persons_N.dtype} of shape {persons_N.shape}.")
    labels_N = np.full(len(persons_N), -1, np.int64)
    known_N = persons_N >= 0
    labels_N[known_N] = np.unique(persons_N[known_N], return_inverse=True)[1]
    return labels_N
