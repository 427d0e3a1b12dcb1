"""Queue of past keys that serve as negatives (MoCo, He et al. 2020): a ring of columns, one per embedding space."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class KeyQueue(nn.Module):
    """A ring of `size` unit vectors in each of `spaces` embedding spaces.

    Keys enter in the order of the batch. With paired batches (even rows early, odd rows late) and an even batch, even columns
    therefore hold early keys and odd columns late ones.
    """

    columns: Tensor
    position: Tensor

    def __init__(self, spaces: int, dim: int, size: int) -> None:
        """Initialise with random unit vectors, drawn from torch's generator like the weights."""
        super().__init__()
        self.register_buffer("columns", F.normalize(torch.randn(spaces, dim, size), dim=1))  # (E, C, K)
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Replace the oldest columns with `keys` (E, N, C). The position stays on the device: no synchronisation."""
        size, count = self.columns.shape[2], keys.shape[1]
        index = (self.position + torch.arange(count, device=keys.device)) % size
        self.columns.index_copy_(2, index, keys.mT.to(self.columns.dtype))
        self.position.add_(count).remainder_(size)
