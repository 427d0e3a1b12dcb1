"""Runs a frozen encoder once per image and keeps the features, keyed by everything that could change them."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from caco_assets.downstream.datasets.labelled import LabelledImages, key, save_array
from caco_assets.pretraining.pixels import PixelFormat
from caco_assets.progress import Progress, Say

_BATCH = 128
# Encoded between two looks at the clock for a line of progress.
_CHUNK = 1024


class FeatureSource(Protocol):
    """Anything that turns pixels into one vector per image: an `Encoder`, or plain statistics."""

    @property
    def identity(self) -> str:
        """Two sources with the same identity give the same features."""
        ...

    def features(self, pixels: np.ndarray, fmt: PixelFormat, size: int | None = None, batch_size: int = 256) -> np.ndarray:
        """(N, C, H, W) integers → (N, D) float32."""
        ...


class FeatureCache:
    """Pixels and features of data sets, on disk below one folder; deleting the folder only costs time."""

    def __init__(self, folder: Path, say: Say) -> None:
        self.folder = folder
        self.say = say

    def pixels(self, data: LabelledImages, part: str) -> np.ndarray:
        """(N, C, H, W) as stored by the authors, memory-mapped."""
        return data.pixels(part, self.folder / "pixels", self.say)

    def features(self, source: FeatureSource, identity: str, data: LabelledImages, part: str, size: int) -> np.ndarray:
        """Features of a part of a data set, in evaluation mode.

        Args:
            source: the encoder.
            identity: its `identity`, computed once by the caller because it hashes every weight.
            data: checked data set.
            part: a key of its parts.
            size: side of the input, pixels.

        Returns:
            (N, D) float32.
        """
        file = self.file("features", identity, data.version, part, size)
        if not file.exists():
            pixels = self.pixels(data, part)
            progress = Progress(f"encode {data.task} {part} at {size} px", len(pixels), "image", self.say)
            chunks = []
            for start in range(0, len(pixels), _CHUNK):
                chunk = np.asarray(pixels[start : start + _CHUNK])
                chunks.append(source.features(chunk, data.pixel_format, size, batch_size=_BATCH))
                progress.advance(len(chunk))
            progress.close()
            save_array(file, np.concatenate(chunks))
        return np.load(file)

    def file(self, kind: str, *parts: object) -> Path:
        """Where the array that `parts` stand for is kept."""
        return self.folder / kind / f"{key(*parts)}.npy"
