"""The round-trip check: a registered encoder's preprocessing must reproduce the stored tensor of a stored image, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.pretraining.encoder.encoder import ARCHIVE, Encoder

ROUND_TRIP = "round_trip.safetensors"
"""File of a registered model: an image, and its tensor by the encoder's preprocessing at registration."""


def write_round_trip(encoder: Encoder, path: Path) -> Path:
    """Store an image and its preprocessed tensor: `pixels` uint16 (2, C, S, S), `tensor` float32 of the same shape.

    The image has the encoder's own size, so nothing is resized and the result is exact on every machine.
    """
    from safetensors.numpy import save_file

    wanted = encoder.preprocessing
    pixels = np.random.default_rng(0).integers(0, 10_000, (2, len(wanted.bands), wanted.size, wanted.size), dtype=np.uint16)
    tensor = encoder.preprocess(pixels, replace(ARCHIVE, bands=wanted.bands)).cpu().numpy()
    save_file({"pixels": pixels, "tensor": np.ascontiguousarray(tensor)}, path)
    return path


def same_tensor(encoder: Encoder, path: Path) -> bool:
    """Whether `encoder` turns the stored image into the stored tensor, bit for bit; False for an invalid file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        stored = load_file(path)
        made = encoder.preprocess(stored["pixels"], replace(ARCHIVE, bands=encoder.preprocessing.bands)).cpu().numpy()
    except (SafetensorError, KeyError, UserError):
        return False
    return made.shape == stored["tensor"].shape and made.tobytes() == stored["tensor"].tobytes()
