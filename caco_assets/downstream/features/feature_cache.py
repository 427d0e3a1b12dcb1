"""Runs a frozen encoder once per image and keeps the features, keyed by everything that could change them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from caco_assets.core.progress import Progress
from caco_assets.downstream.datasets.classification import LabelledImages, key, save_array
from caco_assets.downstream.features.device import accelerated
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.pretraining.encoder.preprocessing import PixelFormat

_BATCH = 128
# Images encoded between two progress checks.
_CHUNK = 1024
# Larger decoded arrays are not kept on disk: they are decoded again for the next encoder.
_KEEP_BYTES = 4 << 30


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
    """Pixels and features of data sets, on disk below one folder; the folder can be deleted at any time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def pixels(self, data: LabelledImages, part: str) -> np.ndarray:
        """(N, C, H, W) as stored by the authors, memory-mapped."""
        return data.pixels(part, self.folder / "pixels")

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
        if data.whole is not None:
            everything = self.features(source, identity, data.whole, "all", size)
            position = {name: i for i, name in enumerate(data.whole.parts["all"].names)}
            return everything[[position[name] for name in data.parts[part].names]]
        file = self.file("features", identity, data.version, part, size)
        if not file.exists():
            # reading fewer bands changes no feature, so it is not part of the key
            wanted = data.for_bands(source.preprocessing.bands if isinstance(source, Encoder) else None)
            progress = Progress(f"encode {data.task} {part} at {size} px", len(data.parts[part]), "image")
            chunks = []
            with accelerated(source):
                for chunk in self.decoded(wanted, part):
                    chunks.append(source.features(chunk, wanted.pixel_format, size, batch_size=_BATCH))
                    progress.advance(len(chunk))
            progress.close()
            save_array(file, np.concatenate(chunks))
        return np.load(file)

    def decoded(self, data: LabelledImages, part: str) -> Iterator[np.ndarray]:
        """The images of a part in chunks (n, C, H, W). Decoded once if they fit on disk, else on demand."""
        names = data.parts[part].names
        if data.bytes_of(len(names)) > _KEEP_BYTES:
            yield from (images for _, images in data.stream(names))
            return
        pixels = self.pixels(data, part)
        for start in range(0, len(pixels), _CHUNK):
            yield np.asarray(pixels[start : start + _CHUNK])

    def file(self, kind: str, *parts: object) -> Path:
        """Path of the array identified by `parts`."""
        return self.folder / kind / f"{key(*parts)}.npy"
