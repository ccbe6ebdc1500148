"""Chooses the implementation for an array: the CPU's for NumPy arrays and CPU tensors, CUDA kernels for CUDA tensors.

No other module makes this choice. Callers move arrays with `on` and `as_numpy`. The results are equal: indices,
similarities and parts bit for bit, Jaccard distances up to the last bit of the processors' exponential functions.

| function | NumPy arrays, CPU tensors | CUDA tensors |
|---|---|---|
| nearest | candidates by oneDNN or BLAS products, the rest in numba | candidates by tensor cores, the rest in CUDA C |
| ready_block, search_strip | as nearest | as nearest, each direction of a pair by itself |
| jaccard_from_neighbours, jaccard_from_lists | numba | CUDA C, sums and sorts by torch |
| dbscan | numba | cuML where it is installed and the dense matrix fits in `dense_mb`; else CUDA C, sparse |
| difficulty | numba | CUDA C |
| parse_grams | numba | CUDA C, one warp an image |

Ranking, merging and everything else run on the CPU. `reidray.neighbours.product` chooses the CPU's matrix product by
the instructions of the processor. CuPy compiles CUDA C at the first call (`reidray/cuda/device.py`).
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

import reidray.labelling as on_cpu_labelling
import reidray.memory as on_cpu_memory
import reidray.neighbours as on_cpu_neighbours
import reidray.parsing as on_cpu_parsing
from reidray.arrays import Array
from reidray.parsing import Parsing

# N = images, R = images of a block, B = images of a shard, K = neighbours, U = pairs of images, L = parts,
# D = feature width, P = cells


def on(array: Any, device: torch.device) -> Any:
    """The array as the kernels of this device take it: NumPy for the CPU, else a tensor on the device."""
    return as_numpy(array) if device.type == "cpu" else torch.as_tensor(array, device=device)


def as_numpy(array: Any) -> Array:
    """The array as NumPy's, in the memory of this process."""
    return array.cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)


def on_gpu(array: Any) -> bool:
    """Whether the array is a CUDA tensor, for which the CUDA kernels run."""
    return isinstance(array, Tensor) and array.is_cuda


def nearest(features_ND: Any, k: int, *, approximate: tuple[int, int] | None = None) -> tuple[Any, Any]:
    """`reidray.neighbours.nearest`: indices and similarities [N, K].

    approximate: (components, candidates) of `nearest_approximately`. A GPU ignores it and searches exactly: finding the
    components would take longer than the exact search.
    """
    if on_gpu(features_ND):
        from reidray.cuda import device, neighbours

        return neighbours.nearest(features_ND, k, device=device.cuda_device())
    if approximate is not None:
        components, candidates = approximate
        return on_cpu_neighbours.nearest_approximately(
            features_ND, k, components=components, candidates=max(candidates, k)
        )
    return on_cpu_neighbours.nearest(features_ND, k)


def ready_block(features_RD: Any, first: int) -> Any:
    """`reidray.neighbours.ready_block` for the fastest product of this machine."""
    if on_gpu(features_RD):
        from reidray.cuda import blocks

        return blocks.ready_block(features_RD, first)
    return on_cpu_neighbours.ready_block(features_RD, first, product=on_cpu_neighbours.fastest_product())


def search_strip(rows: Any, known_RK: Any, columns: Any) -> tuple[Any, list[Any]]:
    """`reidray.neighbours.search_strip` of blocks from `ready_block`; what is known and found are NumPy arrays."""
    if on_gpu(rows.rows_RD):
        from reidray.cuda import blocks, device

        return blocks.search_strip(rows, known_RK, columns, device=device.cuda_device())
    return on_cpu_neighbours.search_strip(rows, known_RK, columns, product=on_cpu_neighbours.fastest_product())


def jaccard_from_lists(indices_NK: Any, similarities_NK: Any, similarities_of: Any, **settings: Any) -> Any:
    """`reidray.neighbours.jaccard_from_lists`, as `jaccard_from_neighbours`; similarities_of has NumPy arrays."""
    if on_gpu(indices_NK):
        from reidray.cuda import device, jaccard

        def of_tensors(firsts_U: Tensor, seconds_U: Tensor) -> Tensor:
            return torch.as_tensor(similarities_of(as_numpy(firsts_U), as_numpy(seconds_U)), device=firsts_U.device)

        return jaccard.jaccard_from_lists(
            indices_NK, similarities_NK, of_tensors, **settings, device=device.cuda_device()
        )
    return on_cpu_neighbours.jaccard_from_lists(indices_NK, similarities_NK, similarities_of, **settings)


def jaccard_from_neighbours(
    indices_NK: Any, similarities_NK: Any, features_ND: Any, *, k1: int, k2: int, keep: float, counts_itself: bool
) -> Any:
    """`reidray.neighbours.jaccard_from_neighbours`: sparse distances [N, N], SciPy's or `reidray.cuda.jaccard`'s."""
    settings: dict[str, Any] = {"k1": k1, "k2": k2, "keep": keep, "counts_itself": counts_itself}
    if on_gpu(features_ND):
        from reidray.cuda import device, jaccard

        return jaccard.jaccard_from_neighbours(
            indices_NK, similarities_NK, features_ND, **settings, device=device.cuda_device()
        )
    return on_cpu_neighbours.jaccard_from_neighbours(indices_NK, similarities_NK, features_ND, **settings)


def dbscan(distances_NN: Any, *, eps: float, min_samples: int, dense_mb: float) -> Any:
    """`reidray.labelling.dbscan` of what `jaccard_from_neighbours` returned: labels [N].

    dense_mb: what a dense distance matrix may take on a GPU, in MB (10^6 bytes); where it fits, cuML clusters, if it is
    installed. The labels are the same either way.
    """
    if not on_gpu(getattr(distances_NN, "ends_N1", None)):
        return on_cpu_labelling.dbscan(distances_NN, eps=eps, min_samples=min_samples)
    from reidray.cuda import dbscan as on_gpu_dbscan
    from reidray.cuda import device

    return on_gpu_dbscan.dbscan(
        distances_NN, eps=eps, min_samples=min_samples, dense_bytes=int(dense_mb * 1e6), device=device.cuda_device()
    )


def as_scipy(distances_NN: Any) -> Any:
    """What `jaccard_from_neighbours` returned, as SciPy's CSR in this process's memory."""
    return distances_NN.to_scipy() if on_gpu(getattr(distances_NN, "ends_N1", None)) else distances_NN


def difficulty(global_neighbours_NK: Any, part_neighbours_LNK: Iterable[Any]) -> Any:
    """`reidray.memory.difficulty`: alphas [N, L]."""
    if on_gpu(global_neighbours_NK):
        from reidray.cuda import device
        from reidray.cuda.difficulty import difficulty as on_gpu_difficulty

        return on_gpu_difficulty(global_neighbours_NK, part_neighbours_LNK, device=device.cuda_device())
    return on_cpu_memory.difficulty(global_neighbours_NK, part_neighbours_LNK)


def parse_grams(grams_BPP: Any, **settings: Any) -> Parsing:
    """`reidray.parsing.parse_grams`."""
    if on_gpu(grams_BPP):
        from reidray.cuda import device, parsing

        return parsing.parse_grams(grams_BPP, **settings, device=device.cuda_device())
    return on_cpu_parsing.parse_grams(grams_BPP, **settings)
