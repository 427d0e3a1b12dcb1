"""Creates timm networks for any bands and image size, and extracts their feature levels."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import timm
import torch
from timm.models import is_model_in_modules
from torch import Tensor, nn
from torch.nn import functional as F

from caco_assets.core.errors import UserError, one_line

# timm's modules of plain vision transformers: they require the image side
_TRANSFORMERS = ["vision_transformer", "deit"]
_STRIDES = (2, 4, 8, 16, 32)
"""Strides of the pyramid's levels."""


def backbone(name: str, bands: int, size: int | None = None, **options: Any) -> nn.Module:
    """A timm backbone without classifier: (B, `bands`, H, W) → (B, D), freshly initialised from torch's global generator.

    The last batch norms of residual networks are initialised to 1, as in torchvision and the published baselines; timm's default
    is 0. Vision transformers have positions for images of side `size` and interpolate them for others.

    Raises:
        UserError: timm has no such architecture, or its patches do not fit an image of that size.
    """
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "see timm.list_models()"
        raise UserError(f"backbone={name}: timm has no such architecture; {hint}")
    if is_model_in_modules(architecture, ["resnet"]):
        options.setdefault("zero_init_last", False)
    if is_model_in_modules(architecture, _TRANSFORMERS):
        options = {"img_size": size, "dynamic_img_size": True, **options}
    try:
        network = timm.create_model(name, num_classes=0, in_chans=bands, **options)
    except RuntimeError as error:
        if "pretrained tag" not in str(error):
            raise
        raise UserError(f"backbone={name}: {one_line(error, 120)}; leave out the part after the dot") from error
    if size is not None:
        check_side(network, name, size)
    return network


def outline(name: str, bands: int, size: int, weights: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that `backbone` would have, after `match_positions`; takes no memory for them.

    Args:
        name: the architecture.
        bands: of the input.
        size: side of its images.
        weights: name → shape of each tensor that is to be loaded.

    Raises:
        UserError: as `backbone`.
    """
    with torch.device("meta"):
        network = backbone(name, bands, size)
        if "pos_embed" in weights:
            match_positions(network, {"pos_embed": torch.empty(weights["pos_embed"])})
    return {tensor: tuple(value.shape) for tensor, value in network.state_dict().items()}


def check_side(network: nn.Module, name: str, side: int) -> None:
    """Reject an image side that is not a multiple of a vision transformer's patch side.

    Raises:
        UserError: names valid sides.
    """
    patch = _patch(network)
    if patch and side % patch:
        below = max(side // patch, 1) * patch
        raise UserError(f"image size {side}: {name} cuts images into patches of {patch} pixels; take {below} or {below + patch}")


def match_positions(network: nn.Module, weights: dict[str, Tensor]) -> None:
    """Resize the network's positions to those in `weights`: the size it was built for can differ from its preprocessing's."""
    theirs, ours = weights.get("pos_embed"), getattr(network, "pos_embed", None)
    resize: Callable[..., None] | None = getattr(network, "set_input_size", None)
    if theirs is None or ours is None or resize is None or theirs.shape == ours.shape:
        return
    cells = theirs.shape[1] - int(getattr(network, "num_prefix_tokens", 0)) if theirs.ndim == ours.ndim else 0
    if cells < 1:  # no positions of images: the shapes differ, which the loading of the weights reports
        return
    side = round(cells**0.5) * _patch(network)
    resize(img_size=(side, side))


def pyramid(network: nn.Module, name: str, images: Tensor, count: int = len(_STRIDES)) -> list[Tensor]:
    """The first `count` feature levels of preprocessed images: see `Encoder.pyramid`."""
    levels = getattr(network, "feature_info", [])
    strides = tuple(level["reduction"] for level in levels)
    extract: Callable[..., list[Tensor]] | None = getattr(network, "forward_intermediates", None)
    if extract is not None and strides == _STRIDES:
        return extract(images, indices=list(range(count)), stop_early=True, intermediates_only=True)
    if extract is None or not _patch(network) or len(levels) < len(_STRIDES):
        raise UserError(f"backbone={name}: has no five feature levels (strides {list(strides)}); use a ResNet or a plain ViT here")
    blocks = [(i + 1) * len(levels) // len(_STRIDES) - 1 for i in range(count)]
    maps = extract(images, indices=blocks, norm=True, stop_early=True, intermediates_only=True)
    height, width = images.shape[-2:]
    return [_resampled(level, (height // stride, width // stride)) for level, stride in zip(maps, _STRIDES, strict=False)]


def _patch(network: nn.Module) -> int:
    """Side of a plain vision transformer's patches, pixels; 0 for other networks."""
    size = getattr(getattr(network, "patch_embed", None), "patch_size", (0,)) if hasattr(network, "pos_embed") else (0,)
    return int(size[0])


def _resampled(level: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, D, h, w) → (B, D, *size): bilinear interpolation to enlarge, averaging to reduce."""
    if size[0] > level.shape[-2]:
        return F.interpolate(level, size=size, mode="bilinear", align_corners=False)
    return F.adaptive_avg_pool2d(level, size)
