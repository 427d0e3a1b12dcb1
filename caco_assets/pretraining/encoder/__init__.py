"""The encoder: backbone, preprocessing and weights. `from caco_assets.pretraining.encoder import Encoder, PixelFormat`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from caco_assets.pretraining.encoder.encoder import ARCHIVE, Encoder, PixelFormat

__all__ = ["ARCHIVE", "Encoder", "PixelFormat"]


def __getattr__(name: str) -> Any:
    """Public names, imported on first use: they import torch, which other modules of this folder do not need."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from caco_assets.pretraining.encoder import encoder

    return getattr(encoder, name)
