"""Classification of features into clusters, with targets refined by the difficulty of the parts.

B = images, C = clusters, L = parts. Targets are distributions over clusters; no gradient flows into them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def refined_part_targets(labels_B: Tensor, alphas_BL: Tensor, num_clusters: int) -> Tensor:
    """alpha y + (1 - alpha) uniform, for each part: SCWM eq. 13.

    Returns: [B, L, C].
    """
    onehot_B1C = F.one_hot(labels_B, num_clusters).to(alphas_BL.dtype).unsqueeze(1)
    alphas_BL1 = alphas_BL.unsqueeze(-1)
    return alphas_BL1 * onehot_B1C + (1 - alphas_BL1) / num_clusters


def distilled_global_targets(labels_B: Tensor, alphas_BL: Tensor, part_logits_BLC: Tensor, *, beta: float) -> Tensor:
    """beta y + (1 - beta) sum_k softmax_k(alpha) q_k, the parts' predictions detached: SCWM eq. 14.

    Returns: [B, C].
    """
    onehot_BC = F.one_hot(labels_B, part_logits_BLC.shape[-1]).to(part_logits_BLC.dtype)
    shares_BL = torch.softmax(alphas_BL, dim=1)
    predictions_BC = torch.einsum("bl,blc->bc", shares_BL, part_logits_BLC.detach().softmax(-1))
    return beta * onehot_BC + (1 - beta) * predictions_BC


def identity_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """-sum_c y_c log q_c over the last axis: one term of SCWM eq. 15.

    Args:
      logits: [..., C]; q is their softmax.
      targets: [..., C], distributions.

    Returns: [...].
    """
    return -(targets * logits.log_softmax(-1)).sum(-1)
