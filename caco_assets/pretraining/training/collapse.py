"""Early signs of collapse: effective rank of the embeddings, similarity of the queue's keys, and norm of the weights."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)


# Spread of the embeddings (1: they fill the sphere) below which the encoder no longer distinguishes images.
COLLAPSED_BELOW = 0.05
# Spread and directions below any observed in a run that still learns; warned once per consecutive series of such epochs.
_SPREAD_WARNING, _DIRECTIONS_WARNING = 0.2, 2.0


@torch.no_grad()
def health(objective: nn.Module) -> dict[str, float]:
    """Metrics of one epoch: `weight_norm`, and for objectives with a queue `queue_rank` and `queue_cosine`.

    The queue metrics are those of the worst embedding space. Cost: one C × C product of the queue per space.
    """
    encoder: nn.Module = objective.encoder_q  # pyright: ignore[reportAssignmentType]
    weights: list[Tensor] = [p for p in encoder.parameters() if p.requires_grad]
    norms = torch.stack(torch._foreach_norm(weights))  # pyright: ignore[reportPrivateImportUsage] - as in torch's own clipping
    figures = {"weight_norm": float(torch.linalg.vector_norm(norms))}
    queue = getattr(objective, "queue", None)
    if queue is not None:
        spaces = [queue_figures(columns.float()) for columns in queue.columns]
        figures["queue_rank"] = min(rank for rank, _ in spaces)
        figures["queue_cosine"] = max(cosine for _, cosine in spaces)
    return figures


def queue_figures(columns: Tensor) -> tuple[float, float]:
    """Effective rank and mean cosine of unit vectors (C, K).

    rank = exp(−Σ pᵢ ln pᵢ), pᵢ the shares of the eigenvalues of the keys' second moments (Roy and Vetterli 2007): from 1 (all on
    one line) to C (all directions equal). cosine: mean over all pairs of different keys, from the length of their sum:
    ‖Σ k‖² = K + K (K − 1) · cosine.
    """
    count = columns.shape[1]
    moments = columns @ columns.T / count  # (C, C), trace 1
    shares = torch.linalg.eigvalsh(moments.double().cpu()).clamp_min(0)
    shares = shares / shares.sum()
    entropy = -torch.special.xlogy(shares, shares).sum()
    total = columns.double().sum(dim=1).square().sum()
    return float(entropy.exp()), float((total - count) / (count * (count - 1)))


class CollapseWarning:
    """Warns when an epoch's metrics indicate collapse, and again only after they have recovered."""

    def __init__(self) -> None:
        self._logged = False

    def check(self, epoch: int, values: dict[str, float]) -> None:
        """Check `values` of the finished `epoch` (from 0)."""
        spread, rank = values["epoch_embedding_std"], values.get("queue_rank", float("inf"))
        low = spread < _SPREAD_WARNING or rank < _DIRECTIONS_WARNING
        if low and not self._logged:
            shown = f", the queue's keys in {rank:.1f} directions" if rank < _DIRECTIONS_WARNING else ""
            logger.warning(
                f"pretrain: after epoch {epoch + 1} the embeddings look like collapse: spread {spread:.3f} of 1{shown} "
                f"(below {COLLAPSED_BELOW} the encoder is refused); a lower learning rate or a larger queue helps"
            )
        self._logged = low
