"""A STAC item with the machine-learning-model extension, which describes the network's input and output to other tools."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import pystac
from pystac.extensions.file import FileExtension
from pystac.extensions.mlm import (
    AssetGeneralMLMExtension,
    InputStructure,
    ItemMLMExtension,
    MLMExtension,
    ModelBand,
    ModelInput,
    ModelOutput,
    ResultStructure,
    TaskType,
)
from pystac.extensions.raster import DataType

from caco_assets.pretraining.encoder.encoder import Encoder

WORLD = {"type": "Polygon", "coordinates": [[[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]]}
_INPUT = (
    "Surface reflectance × 10 000 (0 to 65 535) of the bands in this order, at the ground resolution of the training data. "
    "Stretch, mean and deviation are inside the network: do not normalise."
)


def write_item(
    path: Path, encoder: Encoder, assets: Mapping[str, tuple[Path, str]], *, name: str, when: datetime, about: str
) -> None:
    """Write the item.

    Args:
        path: of the item, in the folder of the assets.
        encoder: the described encoder.
        assets: key → file and artifact type (`mlm:artifact_type`); those of type `onnx` and `torch.export` take reflectance.
        name: of the model and its version; the item's id.
        when: reference date of the training data, with a time zone.
        about: one sentence for the description.
    """
    wanted = encoder.preprocessing
    shape = [-1, len(wanted.bands), wanted.size, wanted.size]
    item = pystac.Item(name, WORLD, [-180, -90, 180, 90], when, {"description": about})
    item.stac_extensions.append(MLMExtension.get_schema_uri())
    weights = sum(parameter.numel() for parameter in encoder.backbone.parameters())
    taken = ModelInput.create(
        name="surface reflectance",
        bands=[ModelBand.create(band) for band in wanted.bands],
        input=InputStructure.create(shape, ["batch", "bands", "height", "width"], DataType.INT32),
        description=_INPUT,
    )
    given = ModelOutput.create(
        name="features",
        tasks=[TaskType.SIMILARITY_SEARCH],  # the extension has no task for feature extraction
        result=ResultStructure.create([-1, encoder.width], ["batch", "features"], DataType.FLOAT32),
        description="One vector per image, before any classifier.",
    )
    ItemMLMExtension(item).apply(
        name=name,
        architecture=encoder.architecture,
        tasks=given.tasks,
        input=[taken],
        output=[given],
        framework="PyTorch",
        framework_version=version("torch"),
        total_parameters=weights,
        memory_size=4 * weights,
        pretrained=True,
        pretrained_source="self-supervised pretraining; see the model card",
        batch_size_suggestion=64,
    )
    for key, (file, kind) in assets.items():
        asset = pystac.Asset(f"./{file.name}", title=file.name, roles=["mlm:model", "mlm:weights"])
        item.add_asset(key, asset)
        # a multihash: 0x12 is sha256, 0x20 its 32 bytes
        checksum = "1220" + hashlib.sha256(file.read_bytes()).hexdigest()
        FileExtension.ext(asset, add_if_missing=True).apply(checksum=checksum, size=file.stat().st_size)
        AssetGeneralMLMExtension.ext(asset).apply(artifact_type=kind)
    item.set_self_href(str(path))
    item.save_object(include_self_link=False)
