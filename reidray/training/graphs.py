"""Features made anew graph by graph (`Search.transformed`), the same bits whoever does it.

N = images, G = graphs, B = images of a graph, R = images of a piece, S = vectors of a feature, D = their width.

Matrix products of different sizes may differ in their last bits. So the work is always divided into the same pieces,
whether one labeller does all of them or many share them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from reidray.arrays import Array, Floats, Ints
from reidray.methods.method import Method
from reidray.training.state import new_modules


def pieces(order_N: Ints, graph: int, count: int, at_once: int) -> list[Ints]:
    """Whole graphs that are transformed together, of about `at_once` images; the last graph alone where it is smaller.

    Args:
      order_N: see `Search.transformed`.
      graph: images of a graph.
      count: of all images.
      at_once: images of a piece, at most, unless a graph has more.

    Raises:
      ValueError: the order does not have every image once, or a graph has no image.
    """
    if graph < 1 or len(order_N) != count or not (np.bincount(order_N, minlength=count) == 1).all():
        raise ValueError(f"graphs must have at least one image each, and all {count} images once")
    whole = count - count % graph
    step = max(at_once // graph, 1) * graph
    found = [order_N[start : min(start + step, whole)] for start in range(0, whole, step)]
    return [*found, order_N[whole:]] if whole < count else found


class GraphTransform:
    """`Method.transform` with the modules of the run.

    Args:
      method: the method.
      tensors: of its modules, see `Inputs.modules`.
      device: where it computes.
    """

    def __init__(self, method: Method, tensors: Mapping[str, Array], device: torch.device) -> None:
        self._method, self._device = method, device
        self._modules: nn.Module | None = new_modules(method)
        if self._modules is not None:
            self._modules.load_state_dict({name: torch.from_numpy(np.array(rows)) for name, rows in tensors.items()})
            self._modules.to(device).eval()

    @torch.no_grad()
    def of(self, feature: str, rows_RSD: Floats, graph: int) -> Floats:
        """The new rows [R, S, D'] of a piece, whose first `graph` images are a graph, and so on."""
        graph = min(graph, len(rows_RSD))
        rows_GBSD = torch.from_numpy(rows_RSD).view(-1, graph, *rows_RSD.shape[1:]).to(self._device)
        made = self._method.transform(feature, rows_GBSD, self._modules)
        if made.shape[:2] != rows_GBSD.shape[:2] or made.ndim != 4:
            raise ValueError(
                f"{type(self._method).__name__}.transform must give a row for each image of each graph as "
                f"[{len(rows_GBSD)}, {graph}, S, D], got shape {tuple(made.shape)}"
            )
        found: Floats = made.float().flatten(0, 1).cpu().numpy()
        return found
