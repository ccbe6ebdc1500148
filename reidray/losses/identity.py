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
    exact = torch.promote_types(part_logits_BLC.dtype, torch.float32)
    predictions_BLC = part_logits_BLC.detach().softmax(-1, dtype=exact)
    shares_BL = alphas_BL.softmax(1, dtype=exact)
    with torch.autocast(predictions_BLC.device.type, enabled=False):  # probabilities of many classes: no bfloat16
        refined_BC = torch.einsum("bl,blc->bc", shares_BL, predictions_BLC)
    onehot_BC = F.one_hot(labels_B, predictions_BLC.shape[-1]).to(refined_BC.dtype)
    return beta * onehot_BC + (1 - beta) * refined_BC


def identity_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """-sum_c y_c log q_c over the last axis: one term of SCWM eq. 15.

    Args:
      logits: [..., C]; q is their softmax.
      targets: [..., C], distributions.

    Returns: [...].
    """
    return -(targets * logits.log_softmax(-1)).sum(-1)
