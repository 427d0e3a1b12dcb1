"""What all momentum-contrast objectives share: two encoders, one projection head per embedding space, a queue, and one step.

Sources: MoCo v2 (Chen et al. 2020), SeCo (Mañas et al. 2021), CACo (Mall et al. 2023) and their public implementations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from caco_assets.pretraining.objectives.config import ObjectiveConfig
from caco_assets.pretraining.objectives.infonce import accuracy, embedding_std, infonce
from caco_assets.pretraining.objectives.momentum import follow, frozen_copy
from caco_assets.pretraining.objectives.queue import KeyQueue
from caco_assets.pretraining.views import ViewPlan


class StepOutput(NamedTuple):
    """One step's result; all tensors stay on the device."""

    loss: Tensor
    """Scalar: the sum over embedding spaces."""
    logits: list[Tensor]
    """Per space (N, 1 + negatives), divided by τ; column 0 is the positive."""
    metrics: dict[str, Tensor]
    """Scalars to log, detached."""
    keys: Tensor
    """(E, N, C): what the queue takes, view i under head i."""
    slots: Tensor
    """(N,) int64."""
    distances: Tensor | None = None
    """(2, N): long-term and short-term distance, for objectives that estimate change."""


@dataclass(frozen=True)
class EpochReport:
    """What an objective has to say at the end of an epoch."""

    values: dict[str, float] = field(default_factory=dict)
    """Figures to log."""


def projection_head(features: int, dim: int) -> nn.Sequential:
    """MoCo v2's head: a hidden layer as wide as the features."""
    return nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, dim))


class Contrastive(nn.Module):
    """Base of the objectives; a subclass says its view plan, its number of spaces and which columns are negatives.

    A step is `before_step()`, `forward(views, slots)`, backward and optimiser, `after_step(output)`.
    """

    plan: ClassVar[ViewPlan]
    spaces: ClassVar[int]

    def __init__(self, config: ObjectiveConfig, backbone: nn.Module, features: int) -> None:
        """`backbone` maps images (N, bands, H, W) to vectors (N, `features`)."""
        super().__init__()
        self.config = config
        self.encoder_q = backbone
        self.heads_q = nn.ModuleList(projection_head(features, config.embedding_dim) for _ in range(self.spaces))
        self.encoder_k = frozen_copy(self.encoder_q)
        self.heads_k = frozen_copy(self.heads_q)
        self.queue = KeyQueue(self.spaces, config.embedding_dim, config.queue_size)
        if config.switches.channels_last:
            self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing in the stubs

    def before_step(self) -> None:
        """Let the key encoder follow; the first thing in a step."""
        follow(self.encoder_k, self.encoder_q, self.config.momentum)
        follow(self.heads_k, self.heads_q, self.config.momentum)

    def forward(self, views: Tensor, slots: Tensor) -> StepOutput:
        """One batch. `views` (V, N, C, H, W): the query, then the keys; `slots` (N,) int64."""
        layout = torch.channels_last if self.config.switches.channels_last else torch.contiguous_format
        images = [view.contiguous(memory_format=layout) for view in views]
        features = self.encoder_q(images[0])  # (N, D)
        queries = torch.stack([F.normalize(head(features).float(), dim=1) for head in self.heads_q])  # (E, N, C)
        with torch.no_grad():
            # one pass per view: batch-norm statistics must not mix views
            seen = [self.encoder_k(image) for image in images[1:]]
            keys = torch.stack([torch.stack([self.embed_key(i, f) for f in seen]) for i in range(self.spaces)])  # (E, V-1, N, C)
            distances = self.distances(images[0], keys)
        # similarities are divided by a small τ: bfloat16 would round away differences that matter
        with torch.autocast(views.device.type, enabled=False):
            logits = [self.similarities(i, queries[i], keys[i], slots) for i in range(self.spaces)]
            losses = torch.stack([infonce(space) for space in logits])  # (E,)
        loss = losses.sum()
        output = StepOutput(
            loss,
            logits,
            self._metrics(loss, losses, logits, queries),
            keys.diagonal(dim1=0, dim2=1).permute(2, 0, 1),
            slots,
            distances,
        )
        if not self.config.switches.enqueue_after_backward:
            self.absorb(output)
        return output

    def after_step(self, output: StepOutput) -> None:
        """Take what the step has left: keys into the queue, distances into the change estimate."""
        if self.config.switches.enqueue_after_backward:
            self.absorb(output)

    def end_epoch(self, seed: int) -> EpochReport:  # noqa: ARG002 - objectives that label use it
        """Called after each epoch with a seed of its own."""
        return EpochReport()

    def absorb(self, output: StepOutput) -> None:
        """Update queue and state from one step."""
        self.queue.enqueue(output.keys)

    def embed_key(self, space: int, features: Tensor) -> Tensor:
        """Unit vectors (N, C) of key features (N, D) in one space."""
        return F.normalize(self.heads_k[space](features).float(), dim=1)

    def negatives(self, space: int) -> Tensor:
        """The queue's columns (C, K) of one space, safe from an enqueue before the backward pass."""
        columns = self.queue.columns[space]
        return columns if self.config.switches.enqueue_after_backward else columns.clone()

    def similarities(self, space: int, query: Tensor, keys: Tensor, slots: Tensor) -> Tensor:
        """Logits (N, 1 + negatives) of one space from the query (N, C) and all key views (V-1, N, C) under this space's head."""
        raise NotImplementedError

    def distances(self, query_image: Tensor, keys: Tensor) -> Tensor | None:  # noqa: ARG002 - see caco
        """(2, N) long-term and short-term distances, for objectives that estimate change; without gradient."""
        return None

    def _metrics(self, loss: Tensor, losses: Tensor, logits: list[Tensor], queries: Tensor) -> dict[str, Tensor]:
        metrics = {"loss": loss.detach(), "embedding_std": embedding_std(queries.detach())}
        for i, space in enumerate(logits):
            metrics |= {f"loss_{i}": losses[i].detach(), f"accuracy_{i}": accuracy(space)}
        return metrics
