"""Known sources of weights, with their preprocessing and attribution."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caco_assets.core.errors import UserError
from caco_assets.core.foreign_files import read_object
from caco_assets.pretraining.encoder.preprocessing import RGB, Preprocessing
from caco_assets.pretraining.encoder.stretch import REFLECTANCE_SCALE, Stretch

_SIDE = 224
TORCHGEO = "torchgeo:"


@dataclass(frozen=True)
class Source:
    """A source of weights."""

    name: str
    text: str
    """Authors, publication and licence, for users of the encoder."""
    preprocess: Callable[[], Preprocessing]
    """Preprocessing that the weights were trained with."""


def _seco() -> Preprocessing:
    return Preprocessing.of_pack(RGB, "seco", _SIDE)


def _photographs() -> Preprocessing:
    # EuroSAT's stretch makes Sentinel-2 look most like the photographs of ImageNet
    return Preprocessing.of_pack(RGB, "eurosat", _SIDE)


SOURCES = {
    source.name: source
    for source in (
        Source("seco", "SeCo, Mañas et al., ICCV 2021 (github.com/ServiceNow/seasonal-contrast); licence: see there", _seco),
        Source("caco", "CACo, Mall et al., CVPR 2023 (github.com/utkarshmall13/CACo), MIT", _seco),
        Source(
            "imagenet", "trained on ImageNet, as torchvision and timm publish it; licence: that of the weights' page", _photographs
        ),
    )
}


def find_source(name: str) -> Source:
    """A source by name: `seco`, `caco`, `imagenet`, or `torchgeo:ResNet18_Weights.SENTINEL2_RGB_MOCO`.

    Raises:
        UserError: unknown source.
    """
    if name.startswith(TORCHGEO):
        return _torchgeo(name.removeprefix(TORCHGEO))
    if name not in SOURCES:
        choices = ", ".join((*SOURCES, f"{TORCHGEO}<name of its weights>"))
        raise UserError(f"--source {name}: there is no such source of weights; choose one of {choices}")
    return SOURCES[name]


def torchgeo_file(name: str) -> Path:
    """Path in torch's cache of torchgeo's named weights; nothing is downloaded.

    Raises:
        UserError: unknown weights.
    """
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / Path(_weights(name).url).name


def torchgeo_of(file: str) -> str | None:
    """The source whose weights are published under this file name, or None."""
    if importlib.util.find_spec("torchgeo") is None:
        return None
    import torchgeo.models

    for collection in dir(torchgeo.models):
        if collection.endswith("_Weights"):
            for weights in getattr(torchgeo.models, collection):
                if Path(str(weights.url)).name == file:
                    return f"{TORCHGEO}{collection}.{weights.name}"
    return None


def from_json(path: Path) -> Preprocessing:
    """A preprocessing from a JSON file: the object `preprocessing` of an `encoder.json`, or such an object alone.

    Raises:
        UserError: the file holds no valid preprocessing.
    """
    try:
        fields = read_object(path, "give the object `preprocessing` of an encoder.json")
        inner = fields.get("preprocessing", fields)
        return Preprocessing.from_dict(inner if isinstance(inner, dict) else {})
    except UserError as error:
        raise UserError(f"--preprocessing {path}: not a preprocessing as encoder.json holds it ({error})") from error


def _weights(name: str) -> Any:
    if importlib.util.find_spec("torchgeo") is None:
        raise UserError(f"--source {TORCHGEO}{name}: torchgeo, which knows these weights, is not installed; pip install torchgeo")
    import torchgeo.models

    try:
        return torchgeo.models.get_weight(name)
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(f"--source {TORCHGEO}{name}: torchgeo has no such weights; see torchgeo.models.list_models()") from error


def _torchgeo(name: str) -> Source:
    weights = _weights(name)
    meta = weights.meta
    text = f"{name} of torchgeo ({meta.get('dataset')}, {meta.get('publication')}, {meta.get('repo')}); licence: see there"
    return Source(f"{TORCHGEO}{name}", text, lambda: _torchgeo_preprocessing(name, meta, weights.transforms))


def _torchgeo_preprocessing(name: str, meta: dict[str, Any], transforms: Any) -> Preprocessing:
    """Bands and normalisation from torchgeo's metadata; a crop after resizing is left out, the image side is kept."""
    bands = tuple(_band(band) for band in meta.get("bands") or ())
    if meta.get("ssl_method") == "seco" and bands == RGB:
        # torchgeo's transforms are equivalent except for a factor of 255 between the two normalisations
        return _seco()
    mean, std = _composed(transforms, max(len(bands), 1))
    # a deviation this large is only possible for reflectance × 10 000
    if not bands or min(std) < 500:
        raise UserError(
            f"--source {TORCHGEO}{name}: these weights are for other numbers than Sentinel-2's reflectance × 10 000; say with "
            "--preprocessing FILE what they want to see"
        )
    scaled = [tuple(value / REFLECTANCE_SCALE for value in values) for values in (mean, std)]
    return Preprocessing(bands, Stretch.named("reflectance", bands), scaled[0], scaled[1], _SIDE)


def _composed(transforms: Any, bands: int) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation, per band, of several normalisations in sequence."""
    mean, std = [0.0] * bands, [1.0] * bands
    for step in transforms.modules():
        if type(step).__name__ == "Normalize":
            for band in range(bands):
                own_mean, own_std = (float(values[band % len(values)]) for values in (step.mean, step.std))
                mean[band] += std[band] * own_mean
                std[band] *= own_std
    return mean, std


def _band(name: str) -> str:
    """Our name of a Sentinel-2 band: B4 → B04, B8a → B8A."""
    number = name.upper().removeprefix("B")
    return f"B{int(number):02d}" if number.isdigit() else name.upper()
