"""DBSCAN on sparse distances that live on a GPU.

M. Ester et al., KDD 1996. Equal, label by label, to `reidray.labelling.dbscan` and with it to scikit-learn's
DBSCAN(metric="precomputed"). Three things decide a labelling: which images are core points, which core points are
connected, and the rule by which clusters are numbered and border points join. Kernels on the sparse rows find the core
points and apply the rule. The connections come from such kernels, in memory for N numbers, or from cuML, which needs
all N^2 distances.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from reidray.cuda.device import Device
from reidray.cuda.jaccard import SparseRows

# N = images, E = stored entries, C = clusters; ends_N1: row i lies at ends[i] .. ends[i + 1]

_SOURCE = "dbscan.cu"
_THREADS = 128


def dbscan(distances: SparseRows, *, eps: float, min_samples: int, dense_bytes: int, device: Device) -> torch.Tensor:
    """Clusters of density-connected images; the definitions are those of `reidray.labelling.dbscan`.

    cuML connects the core points where it is installed and the dense matrix, 4 N^2 bytes, fits in `dense_bytes`; cuML
    needs about N^2 bytes more while it works. Otherwise the sparse kernels connect them. The labels are the same: only
    the components of the core points come from cuML, which gives a border point between two clusters to whichever of
    them is written last. With 0 the sparse kernels always run.

    Args:
      distances: symmetric rows, e.g. from `jaccard_distances` of this room; pairs that are not stored are no
        neighbours, and a diagonal entry that is not stored is 0.
      eps: in (0, 1), compared in float32.
      min_samples: >= 1; the image itself counts.
      dense_bytes: what a dense matrix may take on the device, >= 0; 0: never a dense matrix.
      device: runs the kernels; the tensors live on it.

    Errors:
      ValueError for eps, min_samples outside their range, or a distance that is NaN, infinite or negative; ImportError
      where cuML is needed, is installed and cannot be imported.

    Returns:
      labels_N int64 on the device, -1 for noise; no cluster at all is a valid answer.
    """
    if not 0.0 < eps < 1.0:
        raise ValueError(f"eps must be in (0, 1), because pairs that are not stored are at distance 1; got {eps}.")
    if min_samples < 1:
        raise ValueError(f"min_samples must be at least 1; got {min_samples}.")
    wrong = (~((distances.values_E >= 0) & (distances.values_E < torch.inf))).nonzero()[:, 0]
    if len(wrong):
        row = int(torch.searchsorted(distances.ends_N1, wrong[:1], right=True)) - 1
        raise ValueError(f"distances must be finite and not negative; row {row} holds {distances.values_E[wrong[0]]}.")
    count = len(distances.ends_N1) - 1
    core_N = torch.empty(count, dtype=torch.int32, device=distances.ends_N1.device)
    given = (*distances, np.float32(eps))

    def run(kernel: str, blocks: int, *arguments: object) -> None:
        device.launch(_SOURCE, kernel, blocks=blocks, threads=_THREADS, shared_bytes=0, arguments=arguments)

    run("core_points", count, *given, np.int64(min_samples), core_N)
    cuml_dbscan = _cuml_dbscan() if 0 < 4 * count * count <= dense_bytes else None
    if cuml_dbscan is not None:
        found = cuml_dbscan(
            eps=eps,
            min_samples=min_samples,
            metric="precomputed",
            output_type="cupy",
            calc_core_sample_indices=False,  # with them cuML would copy the rows of the core points
        )
        roots_N = _roots_by_cuml(found, distances, core_N, device)
    else:
        roots_N = torch.arange(count, dtype=torch.int32, device=core_N.device)
        run("join", count, *given, core_N, roots_N)
        run("flatten", -(-count // _THREADS), core_N, np.int32(count), roots_N)
    # A root is the lowest core point of its component, and clusters are numbered by it.
    is_root_N = core_N.bool() & (roots_N == torch.arange(count, dtype=torch.int32, device=roots_N.device))
    clusters_N = (is_root_N.cumsum(0) - 1)[roots_N.long()].to(torch.int32)
    labels_N = torch.empty(count, dtype=torch.int64, device=roots_N.device)
    run("join_border", count, *given, core_N, clusters_N, labels_N)
    return labels_N


def _cuml_dbscan() -> Any:
    """cuML's class DBSCAN; None where cuML is not installed."""
    try:
        from cuml.cluster import DBSCAN
    except ModuleNotFoundError as error:
        if error.name in ("cuml", "cuml.cluster"):
            return None
        raise
    return DBSCAN


def _roots_by_cuml(found: Any, distances: SparseRows, core_N: torch.Tensor, device: Device) -> torch.Tensor:
    """The lowest core point of each core point's component (int32), as cuML's DBSCAN `found` has it after fitting."""
    ends_N1, columns_E, values_E = distances
    count = len(ends_N1) - 1
    every_N = torch.arange(count, device=ends_N1.device)
    dense_NN = torch.ones((count, count), dtype=torch.float32, device=ends_N1.device).fill_diagonal_(0.0)
    dense_NN.view(-1)[every_N.repeat_interleave(ends_N1.diff()) * count + columns_E] = values_E
    if dense_NN.is_cuda:
        torch.cuda.current_stream().synchronize()  # cuML works on a stream of its own
    found.fit(device.array(dense_NN), out_dtype="int64")  # N^2 may exceed int32
    labels_N = device.tensor(found.labels_).clamp(min=0)
    core_C = core_N.nonzero()[:, 0]
    lowest_N = torch.full_like(labels_N, count - 1)
    lowest_N.scatter_reduce_(0, labels_N[core_C], core_C, reduce="amin")
    return lowest_N[labels_N].to(torch.int32)
