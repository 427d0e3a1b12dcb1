"""Momentum contrast: a moving average of the encoder makes the keys; a queue of past keys provides the negatives.

Sources: MoCo v2 (Chen et al. 2020), SeCo (Mañas et al. 2021), CACo (Mall et al. 2023) and their public implementations.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from caco_assets.pretraining.objectives.base import Objective, StepOutput
from caco_assets.pretraining.objectives.config import ObjectiveConfig
from caco_assets.pretraining.objectives.ema import follow, frozen_copy
from caco_assets.pretraining.objectives.queue import KeyQueue


class Contrastive(Objective):
    """Base of the momentum-contrast objectives."""

    queued = True

    def __init__(self, config: ObjectiveConfig, backbone: nn.Module, features: int) -> None:
        """See `Objective`."""
        super().__init__(config, backbone, features)
        self.encoder_k = frozen_copy(self.encoder_q)
        self.heads_k = frozen_copy(self.heads_q)
        self.queue = KeyQueue(self.spaces, config.embedding_dim, config.queue_size)

    def before_step(self) -> None:
        """Update the key encoder's moving average."""
        follow(self.encoder_k, self.encoder_q, self.config.momentum)
        follow(self.heads_k, self.heads_q, self.config.momentum)

    def forward(self, views: Tensor, slots: Tensor) -> StepOutput:
        """See `Objective`."""
        output = super().forward(views, slots)
        if not self.config.switches.enqueue_after_backward:
            self.absorb(output)
        return output

    def after_step(self, output: StepOutput) -> None:
        """Write the keys to the queue and the distances to the change estimate."""
        if self.config.switches.enqueue_after_backward:
            self.absorb(output)

    def absorb(self, output: StepOutput) -> None:
        """Update the queue from one step."""
        super().absorb(output)
        self.queue.enqueue(output.keys)

    @torch.no_grad()
    def embed_keys(self, images: list[Tensor]) -> Tensor:
        """(E, V-1, n, C) from the key encoder, without gradient."""
        # one pass per view: batch-norm statistics must not mix views
        seen = [self.encoder_k(image) for image in images]
        return torch.stack([torch.stack([self.embed_key(i, features) for features in seen]) for i in range(self.spaces)])

    def embed_key(self, space: int, features: Tensor) -> Tensor:
        """Unit vectors (n, C) of key features (n, D) in one space."""
        return F.normalize(self.heads_k[space](features).float(), dim=1)

    def negatives(self, space: int) -> Tensor:
        """The queue's columns (C, K) of one space, unaffected by an enqueue before the backward pass."""
        columns = self.queue.columns[space]
        return columns if self.config.switches.enqueue_after_backward else columns.clone()
