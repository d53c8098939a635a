"""Full softmax cross entropy over the catalogue, in chunks of bounded memory.

Shape suffixes: N moments, D width, V items, L events of history.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Scores held at once; about three times as many bytes x 4 are alive in a chunk.
CHUNK_SCORES = 2_000_000


def chunks(moments: int, items: int) -> list[slice]:
    """Slices of the moments whose scores over the catalogue fit into a chunk."""
    step = max(1, CHUNK_SCORES // max(items, 1))
    return [slice(start, min(start + step, moments)) for start in range(0, moments, step)]


def scores_of(vector_ND: Tensor, matrix_VD: Tensor, bias_V: Tensor, pull_NL: Tensor, place_NL: Tensor) -> Tensor:
    """vector . item + bias, plus the pull at the catalogue places that it names, (N, V) float32."""
    scores_NV = torch.addmm(bias_V.to(vector_ND.dtype), vector_ND, matrix_VD.T).float()
    return scores_NV.scatter_add_(1, place_NL, pull_NL.float())


class CatalogueLoss(torch.autograd.Function):
    """Sum of the cross entropies; the gradients are made chunk by chunk with it, so no (N, V) tensor stays."""

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917
        ctx: Any,
        vector_ND: Tensor,
        matrix_VD: Tensor,
        bias_V: Tensor,
        pull_NL: Tensor,
        place_NL: Tensor,
        target_N: Tensor,
        weight_N: Tensor | None,
    ) -> Tensor:
        grad_vector_ND, grad_matrix_VD = torch.zeros_like(vector_ND), torch.zeros_like(matrix_VD)
        grad_bias_V, grad_pull_NL = torch.zeros_like(bias_V), torch.zeros_like(pull_NL)
        loss = torch.zeros((), device=vector_ND.device)
        for part in chunks(len(vector_ND), len(matrix_VD)):
            scores_NV = scores_of(vector_ND[part], matrix_VD, bias_V, pull_NL[part], place_NL[part])
            target_N1 = target_N[part].unsqueeze(1)
            log_sum_N1 = scores_NV.logsumexp(1, keepdim=True)
            loss_N1 = log_sum_N1 - scores_NV.gather(1, target_N1)
            weight_N1 = None if weight_N is None else weight_N[part].unsqueeze(1)
            loss += (loss_N1 if weight_N1 is None else loss_N1 * weight_N1).sum()
            grad_NV = scores_NV.sub_(log_sum_N1).exp_()
            grad_NV.scatter_add_(1, target_N1, torch.full_like(log_sum_N1, -1.0))
            if weight_N1 is not None:
                grad_NV *= weight_N1
            grad_pull_NL[part] = grad_NV.gather(1, place_NL[part]).to(pull_NL.dtype)
            grad_bias_V += grad_NV.sum(0).to(bias_V.dtype)
            grad_NV = grad_NV.to(vector_ND.dtype)
            grad_vector_ND[part] = grad_NV @ matrix_VD
            grad_matrix_VD += grad_NV.T @ vector_ND[part]
        ctx.save_for_backward(grad_vector_ND, grad_matrix_VD, grad_bias_V, grad_pull_NL)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        return *(made * grad.to(made.dtype) for made in ctx.saved_tensors), None, None, None


def catalogue_loss(
    vector_ND: Tensor,
    matrix_VD: Tensor,
    bias_V: Tensor,
    pull_NL: Tensor,
    place_NL: Tensor,
    target_N: Tensor,
    weight_N: Tensor | None = None,
) -> Tensor:
    """Sum over the moments of -log softmax(scores)[target], each times its weight (None: 1), a scalar in nats.

    `place_NL` are catalogue places (0..V-1) of the pulls; a pull of 0 may name any place.
    """
    return CatalogueLoss.apply(vector_ND, matrix_VD, bias_V, pull_NL, place_NL, target_N, weight_N)


@torch.no_grad()
def ranks(
    vector_ND: Tensor, matrix_VD: Tensor, bias_V: Tensor, pull_NL: Tensor, place_NL: Tensor, target_N: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross entropy and rank of each target (1 + the other items that score at least as high), both (N,)."""
    losses, found = [], []
    for part in chunks(len(vector_ND), len(matrix_VD)):
        scores_NV = scores_of(vector_ND[part], matrix_VD, bias_V, pull_NL[part], place_NL[part])
        own_N1 = scores_NV.gather(1, target_N[part].unsqueeze(1))
        losses.append(scores_NV.logsumexp(1) - own_N1.squeeze(1))
        found.append((scores_NV >= own_N1).sum(1))
    if not losses:
        return vector_ND.new_zeros(0), target_N.new_zeros(0)
    return torch.cat(losses), torch.cat(found)
