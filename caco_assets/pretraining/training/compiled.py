"""Compiled encoders: torch.compile for the two networks that take nearly all of a step's time."""

from __future__ import annotations

import os
import shutil

from torch import nn

from caco_assets.core.errors import UserError


def compile_encoders(objective: nn.Module, backend: str = "inductor") -> None:
    """Compile `encoder_q` and, where there is one, `encoder_k` in place, at their first call; names of weights stay.

    Raises:
        UserError: no C compiler, without which nothing can be compiled on any device.
    """
    if backend == "inductor" and not any(shutil.which(name) for name in (os.environ.get("CC") or "cc", "gcc", "clang")):
        raise UserError(
            "pretraining.compile=true: this machine has no C compiler (cc, gcc or clang); install one, or set it to false"
        )
    for name in ("encoder_q", "encoder_k"):
        network = getattr(objective, name, None)
        if isinstance(network, nn.Module):
            network.compile(backend=backend)
