"""Caches preprocessed images on disk for training that reads them many times."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from caco_assets.core.atomic import make_missing
from caco_assets.core.progress import Progress
from caco_assets.downstream.datasets.classification import LabelledImages
from caco_assets.downstream.features.feature_cache import FeatureCache
from caco_assets.pretraining.encoder.encoder import Encoder


@dataclass(frozen=True)
class Inputs:
    """Preprocessed images of a part, or of several."""

    arrays: tuple[np.ndarray, ...]
    """float16 (all images, C, size, size), memory-mapped: the rounding is far below one of the 256 pixel levels."""
    which: np.ndarray
    """(N,) the array that holds each image."""
    index: np.ndarray
    """(N,) its position there."""

    def __len__(self) -> int:
        return len(self.index)

    def take(self, positions: np.ndarray) -> Inputs:
        """Some of the images."""
        return Inputs(self.arrays, self.which[positions], self.index[positions])

    def batch(self, positions: np.ndarray) -> torch.Tensor:
        """float32 (B, C, size, size) of positions in the part."""
        images = np.empty((len(positions), *self.arrays[0].shape[1:]), np.float32)
        for number, array in enumerate(self.arrays):
            own = self.which[positions] == number
            images[own] = array[self.index[positions[own]]]
        return torch.from_numpy(images)


def preprocessed(encoder: Encoder, data: LabelledImages, part: str, size: int, cache: FeatureCache) -> Inputs:
    """The images of a part through the encoder's own preprocessing at a side of `size` pixels.

    Args:
        encoder: whose preprocessing is used.
        data: checked data set.
        part: a key of its parts.
        size: side of the input, pixels.
        cache: where arrays are kept; one array serves every encoder with the same preprocessing.
    """
    source, name = (data, part) if data.whole is None else (data.whole, "all")
    wanted = encoder.preprocessing
    file = cache.file("inputs", json.dumps(wanted.to_dict(), sort_keys=True), source.version, name, size)
    names = source.parts[name].names

    def make(scratch: Path) -> None:
        shape = (len(names), len(wanted.bands), size, size)
        images = np.lib.format.open_memmap(scratch, mode="w+", dtype=np.float16, shape=shape)
        read = source.for_bands(wanted.bands)
        progress = Progress(f"prepare {data.task} {part} at {size} px", len(names), "image")
        done = 0
        with torch.no_grad():
            for chunk in cache.decoded(read, name):
                images[done : done + len(chunk)] = encoder.preprocess(chunk, read.pixel_format, size).cpu().numpy()
                done += len(chunk)
                progress.advance(len(chunk))
        progress.close()
        images.flush()

    make_missing([file], make)
    position = {image: i for i, image in enumerate(names)}
    index = np.array([position[image] for image in data.parts[part].names])
    return Inputs((np.load(file, mmap_mode="r"),), np.zeros(len(index), np.int64), index)


def joined(one: Inputs, other: Inputs) -> Inputs:
    """Two parts as one, without copying."""
    which = np.concatenate([one.which, other.which + len(one.arrays)])
    return Inputs((*one.arrays, *other.arrays), which, np.concatenate([one.index, other.index]))
