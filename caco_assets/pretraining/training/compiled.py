"""Applies torch.compile to the encoders, which take nearly all of a step's time."""

from __future__ import annotations

import os
import shutil

from torch import nn

from caco_assets.core.errors import UserError


def compile_encoders(objective: nn.Module, backend: str = "inductor") -> None:
    """Compile `encoder_q` and, if present, `encoder_k` in place, at their first call; weight names are unchanged.

    Raises:
        UserError: no C compiler, which compilation requires on any device.
    """
    if backend == "inductor" and not any(shutil.which(name) for name in (os.environ.get("CC") or "cc", "gcc", "clang")):
        raise UserError(
            "pretraining.compile=true: this machine has no C compiler (cc, gcc or clang); install one, or set it to false"
        )
    for name in ("encoder_q", "encoder_k"):
        network = getattr(objective, name, None)
        if isinstance(network, nn.Module):
            network.compile(backend=backend)
