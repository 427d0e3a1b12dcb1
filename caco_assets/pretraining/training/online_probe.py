"""The probe during training: nearest-neighbour accuracy of the current features on a few labelled images.

A probe set is one self-contained file: images as stored in their data set, their pixel format, labels, and two parts. It is
written by `caco_assets/downstream/scoring/probe_set.py`; training only reads it, and only to report a metric.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from caco_assets.core.errors import UserError
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.pretraining.encoder.preprocessing import PixelFormat, Preprocessing

Probe = Callable[[nn.Module], float]

NEIGHBOURS = 20
TRAIN, VALIDATION = 0, 1
_BATCH = 128


@dataclass(frozen=True)
class ProbeSet:
    """Labelled images in two parts: neighbours come from the training part, queries from the validation part."""

    images: NDArray[np.integer]
    """uint8 or uint16 (N, C, H, W), as stored in the data set."""
    labels: NDArray[np.int64]
    """(N,)."""
    part: NDArray[np.uint8]
    """(N,): `TRAIN` or `VALIDATION`."""
    pixel_format: PixelFormat
    source: str
    """Task and version of the data, for display."""

    def write(self, path: Path) -> None:
        """Write the file; the same set gives the same bytes."""
        fmt = self.pixel_format
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            np.savez(
                stream,
                images=self.images,
                labels=self.labels,
                part=self.part,
                bands=np.array(fmt.bands),
                reflectance_per_dn=np.float64(fmt.reflectance_per_dn),
                offset=np.float64(fmt.offset),
                source=np.array(self.source),
            )

    @classmethod
    def read(cls, path: Path) -> ProbeSet:
        """Read the output of `write`. Nothing is unpickled.

        Raises:
            UserError: the file is missing or damaged, or a part is empty.
        """
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                bands = tuple(str(band) for band in file["bands"])
                fmt = PixelFormat(bands, float(file["reflectance_per_dn"]), float(file["offset"]))
                found = cls(file["images"], file["labels"], file["part"], fmt, str(file["source"]))
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            line = " ".join(str(error).split())[:150]
            raise UserError(f"{path}: not a readable probe set ({line}); make it again with `caco probe-set`") from error
        sizes = [int((found.part == part).sum()) for part in (TRAIN, VALIDATION)]
        if min(sizes) == 0 or not len(found.images) == len(found.labels) == len(found.part) == sum(sizes):
            raise UserError(f"{path}: not a sound probe set ({len(found.images)} images, parts of {sizes}); make it again")
        return found


def load_probe(path: Path, architecture: str, preprocessing: Preprocessing) -> Probe:
    """A probe for backbones: accuracy on the validation part of its 20 nearest neighbours by cosine similarity.

    Args:
        path: a probe set.
        architecture: of the backbones, a timm name.
        preprocessing: the encoder's own: bands, stretch, mean and deviation, side.

    Returns:
        Backbone (B, C, H, W) → (B, D), on any device → accuracy in [0, 1]. It draws no random numbers, and leaves weights,
        statistics and the training mode unchanged.

    Raises:
        UserError: the file is not a probe set, or its images lack a band of the encoder.
    """
    probe_set = ProbeSet.read(path)
    try:
        probe_set.pixel_format.select(preprocessing.bands)
    except UserError as error:
        raise UserError(f"pretraining.probe_task: {error}; name a task with these bands, or set probe_every to 0") from error
    train, validation = (probe_set.part == part for part in (TRAIN, VALIDATION))

    def judge(network: nn.Module) -> float:
        from sklearn.neighbors import KNeighborsClassifier

        training = [module.training for module in network.modules()]
        # the same weights, with the encoder's own preprocessing
        encoder = Encoder(architecture, preprocessing, network).to(next(network.parameters()).device)
        try:
            features = encoder.features(probe_set.images, probe_set.pixel_format, batch_size=_BATCH)
        finally:
            for module, mode in zip(network.modules(), training, strict=True):
                module.training = mode
        neighbours = min(NEIGHBOURS, int(train.sum()))
        nearest = KNeighborsClassifier(neighbours, metric="cosine", algorithm="brute").fit(features[train], probe_set.labels[train])
        return float(nearest.score(features[validation], probe_set.labels[validation]))

    return judge
