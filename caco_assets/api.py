"""Public API for notebooks and services: `from caco_assets import load_encoder`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from caco_assets.pretraining.encoder import Encoder


def load_encoder(uri: str = "models:/caco-resnet18@champion", profile: str = "embedded") -> Encoder:
    """Load a registered encoder with its preprocessing: `load_encoder().features(pixels, pixel_format)`.

    Args:
        uri: `models:/name@champion`, `models:/name/3`, or the folder of an encoder.
        profile: the profile whose tracking server is used.

    Raises:
        UserError: the model, alias, version or folder does not exist or is damaged.
    """
    from caco_assets.registry.package.mlflow_model import load_encoder_of
    from caco_assets.settings import load_settings

    return load_encoder_of(load_settings(profile), uri)
