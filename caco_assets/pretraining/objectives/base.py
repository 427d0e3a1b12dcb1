"""Base class of the objectives: a backbone, one projection head per embedding space, and the order of calls in a step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from caco_assets.pretraining import distributed
from caco_assets.pretraining.objectives.config import ObjectiveConfig
from caco_assets.pretraining.objectives.infonce import accuracy, embedding_std, infonce
from caco_assets.pretraining.views.view_plans import ViewPlan


class StepOutput(NamedTuple):
    """One step's result; all tensors stay on the device. The global batch has N rows, this process n ≤ N of them."""

    loss: Tensor
    """Scalar: the sum over embedding spaces and any pretext tasks; each term is the mean over own rows."""
    logits: list[Tensor]
    """Per space (own rows, 1 + negatives), divided by τ; column 0 is the positive."""
    metrics: dict[str, Tensor]
    """Scalars to log, detached; their mean over processes is the value of the global batch."""
    keys: Tensor
    """(E, N, C): view i under head i, of the global batch."""
    slots: Tensor
    """(N,) int64, of the global batch."""
    distances: Tensor | None = None
    """(2, N): long-term and short-term distance of the global batch, for objectives that estimate change."""


@dataclass(frozen=True)
class EpochReport:
    """Result of an objective at the end of an epoch."""

    values: dict[str, float] = field(default_factory=dict)
    """Metrics to log."""


def projection_head(features: int, dim: int) -> nn.Sequential:
    """MoCo v2's and SimCLR's head: a hidden layer as wide as the features."""
    return nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, dim))


class Objective(nn.Module):
    """Base of the objectives; a subclass defines its view plan, number of spaces, keys and negatives.

    A step is `before_step()`, `forward(views, slots)`, backward and optimizer, `after_step(output)`.
    """

    plan: ClassVar[ViewPlan]
    spaces: ClassVar[int]
    queued: ClassVar[bool] = False
    """Whether negatives come from a queue of past keys."""
    everyones_gradient: ClassVar[bool] = False
    """Whether a loss passes gradient to rows of other processes: see `distributed.share`."""

    def __init__(self, config: ObjectiveConfig, backbone: nn.Module, features: int) -> None:
        """`backbone` maps images (N, bands, H, W) to vectors (N, `features`)."""
        super().__init__()
        self.config = config
        self.encoder_q = backbone
        self.heads_q = nn.ModuleList(projection_head(features, config.embedding_dim) for _ in range(self.spaces))

    def before_step(self) -> None:
        """Called at the start of each step."""

    def forward(self, views: Tensor, slots: Tensor) -> StepOutput:
        """One batch, or this process's slice of it. `views` (V, n, C, H, W): the query, then the keys; `slots` (n,) int64."""
        layout = torch.channels_last if self.config.switches.channels_last else torch.contiguous_format
        images = [view.contiguous(memory_format=layout) for view in views]
        features = self.encoder_q(images[0])  # (N, D)
        queries = torch.stack([F.normalize(head(features).float(), dim=1) for head in self.heads_q])  # (E, n, C)
        keys = self.embed_keys(images[1:])  # (E, V-1, n, C)
        with torch.no_grad():
            distances = self.distances(images[0], queries, keys)
            distances = None if distances is None else distributed.gather(distances, 1)  # (2, N)
        queries, keys = distributed.share([queries, keys], everyones_gradient=self.everyones_gradient)  # (E, N, C), (E, V-1, N, C)
        everyone = distributed.gather(slots)  # (N,)
        # similarities are divided by a small τ: bfloat16 would round away significant differences
        with torch.autocast(views.device.type, enabled=False):
            logits = [self.similarities(i, queries[i], keys[i], everyone) for i in range(self.spaces)]
            losses = {f"loss_{i}": infonce(space) for i, space in enumerate(logits)}
            pretext, figures = self.pretext(features.float(), slots)
        loss = torch.stack([*losses.values(), *pretext.values()]).sum()
        metrics = {"loss": loss, "embedding_std": embedding_std(queries.detach()), **losses, **pretext, **figures}
        metrics |= {f"accuracy_{i}": accuracy(space) for i, space in enumerate(logits)}
        metrics = {name: value.detach() for name, value in metrics.items()}
        return StepOutput(loss, logits, metrics, keys.diagonal(dim1=0, dim2=1).permute(2, 0, 1), everyone, distances)

    def after_step(self, output: StepOutput) -> None:
        """Called after the optimizer step, with the step's output."""
        self.absorb(output)

    def end_epoch(self, seed: int) -> EpochReport:  # noqa: ARG002 - used by objectives with labels
        """Called after each epoch with an epoch-specific seed."""
        return EpochReport()

    def absorb(self, output: StepOutput) -> None:
        """Update queue and state from one step's output."""

    def embed_keys(self, images: list[Tensor]) -> Tensor:
        """Unit vectors (E, V-1, n, C) of the key views under each head."""
        raise NotImplementedError

    def similarities(self, space: int, query: Tensor, keys: Tensor, slots: Tensor) -> Tensor:
        """Logits (own rows, 1 + negatives) of one space from the query (N, C) and all key views (V-1, N, C) under this head.

        All arguments cover the global batch; the result has only the rows of `distributed.mine`.
        """
        raise NotImplementedError

    def pretext(self, features: Tensor, slots: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:  # noqa: ARG002 - see gssl
        """Further losses on the query's features (n, D), which are added, and metrics to log; each a mean over own rows."""
        return {}, {}

    def distances(self, query_image: Tensor, queries: Tensor, keys: Tensor) -> Tensor | None:  # noqa: ARG002 - see caco
        """(2, n) long-term and short-term distances of own rows, for objectives that estimate change; without gradient."""
        return None
