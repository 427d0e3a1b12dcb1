"""SeCo with longer temporal contrast ("teco" in the CACo study, Mall et al. 2023): a place years apart is a negative of itself.

A batch holds both periods of each place as neighbours: row 2p early, row 2p+1 late. Views and spaces are SeCo's, drawn inside
one period. Logits come even rows first. The queue does not mix periods: each row uses only the queue columns of its own
period; the other period enters through the cross block, the N/2 keys of view i of the other period.
"""

from __future__ import annotations

import torch
from torch import Tensor

from caco_assets.pretraining.distributed import mine
from caco_assets.pretraining.objectives.seco import Seco
from caco_assets.pretraining.views.view_plans import PLANS


def early_first(rows: Tensor) -> Tensor:
    """Even rows, then odd rows, of a paired batch (N, …)."""
    return torch.cat([rows[0::2], rows[1::2]])


class Teco(Seco):
    """Negatives: the queue of the own period, the cross block, and in spaces 1 and 2 all keys of the other two views."""

    plan = PLANS["teco"]

    def similarities(self, space: int, query: Tensor, keys: Tensor, slots: Tensor) -> Tensor:  # noqa: ARG002
        """Logits (n, 1 + K/2 + N/2 [+ 2N]), early rows first: positive, queue, cross, other views."""
        query = mine(query)
        positive, queue = self.own_period(space, query, mine(keys[space]))
        blocks = [positive, queue, self.cross(query, keys[space]), *self.other_views(space, early_first(query), keys)]
        return torch.cat(blocks, dim=1) / self.config.temperature

    def own_period(self, space: int, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Positive (n, 1) and queue (n, K/2) similarities of own rows, early rows first."""
        queue = self.negatives(space)  # (C, K): even columns early, odd columns late
        positive = (query * key).sum(dim=1, keepdim=True)
        return early_first(positive), torch.cat([query[0::2] @ queue[:, 0::2], query[1::2] @ queue[:, 1::2]])

    def cross(self, query: Tensor, key: Tensor) -> Tensor:
        """Similarities (n, N/2) of own queries to the other period's keys (N, C) of the batch, early rows first."""
        return torch.cat([query[0::2] @ key[1::2].T, query[1::2] @ key[0::2].T])
