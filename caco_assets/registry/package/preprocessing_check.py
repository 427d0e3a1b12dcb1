"""A picture stored with an encoder, and what its preprocessing made of it: the registered one must make the same, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.pretraining.encoder.encoder import ARCHIVE, Encoder

ROUND_TRIP = "round_trip.safetensors"
"""In a registered model: a picture, and what the encoder's preprocessing made of it when it was registered."""


def write_round_trip(encoder: Encoder, path: Path) -> Path:
    """Store a picture and the tensor that `encoder` makes of it: `pixels` uint16 (2, C, S, S), `tensor` float32 of the same shape.

    The picture has the encoder's own side, so that nothing is resized: what is left is exact on every machine.
    """
    from safetensors.numpy import save_file

    wanted = encoder.preprocessing
    pixels = np.random.default_rng(0).integers(0, 10_000, (2, len(wanted.bands), wanted.size, wanted.size), dtype=np.uint16)
    tensor = encoder.preprocess(pixels, replace(ARCHIVE, bands=wanted.bands)).cpu().numpy()
    save_file({"pixels": pixels, "tensor": np.ascontiguousarray(tensor)}, path)
    return path


def same_tensor(encoder: Encoder, path: Path) -> bool:
    """Whether `encoder` makes the stored tensor of the stored picture, bit for bit; a file that is no such pair: no."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        stored = load_file(path)
        made = encoder.preprocess(stored["pixels"], replace(ARCHIVE, bands=encoder.preprocessing.bands)).cpu().numpy()
    except (SafetensorError, KeyError, UserError):
        return False
    return made.shape == stored["tensor"].shape and made.tobytes() == stored["tensor"].tobytes()
