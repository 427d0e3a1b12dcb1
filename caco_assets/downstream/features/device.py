"""Selects the device for scoring: a GPU if there is one, in full float32, so that scores do not depend on the machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from caco_assets.pretraining.encoder.encoder import Encoder


def default_device() -> torch.device:
    """The current GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def accelerated(source: object) -> Iterator[None]:
    """Within the block an encoder is on the device, and convolutions and products use full float32; other sources are unchanged."""
    if not isinstance(source, Encoder) or (where := default_device()).type == "cpu":
        yield
        return
    home = source.mean.device
    cudnn, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    source.to(where)
    try:
        yield
    finally:
        source.to(home)
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = cudnn, products
