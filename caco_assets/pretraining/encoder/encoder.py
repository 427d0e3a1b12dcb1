"""The encoder: a timm backbone together with its preprocessing, so that callers never normalise pixels."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from timm.models import get_pretrained_cfg
from torch import Tensor, nn
from torch.nn import functional as F

from caco_assets.core.errors import UserError
from caco_assets.core.foreign_files import read_object
from caco_assets.pretraining.encoder.backbones import backbone, check_side, match_positions, outline, pyramid
from caco_assets.pretraining.encoder.preprocessing import ARCHIVE, EUROSAT_RGB, RGB, PixelFormat, Preprocessing

__all__ = ["ARCHIVE", "EUROSAT_RGB", "RGB", "Encoder", "PixelFormat", "Preprocessing", "WeightsUnavailable", "backbone"]

WEIGHTS, DESCRIPTION = "encoder.safetensors", "encoder.json"
_COPY = "copy both files again from one encoder"


class WeightsUnavailable(UserError):  # noqa: N818 - named after the condition
    """ImageNet weights are not in the local cache; they are never downloaded."""


class Encoder(nn.Module):
    """Pixels in, features out. Pixels enter only through `features` and `preprocess`."""

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: str, preprocessing: Preprocessing, network: nn.Module) -> None:
        super().__init__()
        self.architecture = architecture
        self.preprocessing = preprocessing
        self.backbone = network
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, -1, 1, 1), persistent=False)

    @classmethod
    def random(cls, architecture: str, preprocessing: Preprocessing, seed: int) -> Encoder:
        """Freshly initialised from `seed`; torch's global generator is unchanged."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(architecture, preprocessing, backbone(architecture, len(preprocessing.bands), preprocessing.size))

    @classmethod
    def imagenet(cls, architecture: str, preprocessing: Preprocessing) -> Encoder:
        """With timm's ImageNet weights from the local cache; the first convolution is adapted to the bands as timm does.

        Uses torchvision's weights (`<architecture>.tv_in1k`, those of the published baselines) where timm has them and no other tag
        is given, else timm's default.

        Raises:
            WeightsUnavailable: they are not in the local cache; they are not downloaded.
        """
        tagged = architecture
        if "." not in architecture and timm.is_model_pretrained(f"{architecture}.tv_in1k"):
            tagged = f"{architecture}.tv_in1k"
        file = _cached_weights(tagged)
        create = partial(backbone, tagged, pretrained=True, pretrained_cfg_overlay={"file": str(file)})
        with torch.random.fork_rng(devices=[]):
            return cls(architecture, preprocessing, create(len(preprocessing.bands), preprocessing.size))

    @property
    def width(self) -> int:
        """Number of features D."""
        return int(self.backbone.num_features)  # pyright: ignore[reportArgumentType]

    @property
    def identity(self) -> str:
        """SHA-256 of architecture, preprocessing and all weights: encoders with the same identity give the same features."""
        digest = hashlib.sha256(json.dumps([self.architecture, self.preprocessing.to_dict()], sort_keys=True).encode())
        for name, tensor in sorted(self.backbone.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def preprocess(self, pixels: np.ndarray, fmt: PixelFormat, size: int | None = None) -> Tensor:
        """float32 (B, C, size, size) on the encoder's device: select, stretch, scale, normalise, resize.

        Args:
            pixels: integers of any type, (B, bands of `fmt`, H, W).
            fmt: format of the pixels.
            size: side of the result, pixels; default the preprocessing's own.

        Raises:
            UserError: a band is missing, or the pixels do not match `fmt`.
        """
        return self.normalise(self.preprocessing.stretched(pixels, fmt), size)

    def normalise(self, stretched: np.ndarray, size: int | None = None) -> Tensor:
        """float32 (B, C, size, size) of uint8 (B, C, H, W) as a pack stores it: the second half of `preprocess`.

        Resizing is bilinear with antialiasing, after normalisation; skipped if the side already matches.
        """
        side = size or self.preprocessing.size
        check_side(self.backbone, self.architecture, side)
        images = torch.from_numpy(np.ascontiguousarray(stretched)).to(self.mean.device).float()
        images = (images / 255 - self.mean) / self.std
        if images.shape[-2:] == (side, side):
            return images
        return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True, align_corners=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) preprocessed → features (B, D)."""
        return self.backbone(images)

    def pyramid(self, images: Tensor, levels: int = 5) -> list[Tensor]:
        """The first of five feature levels of preprocessed images, strides 2, 4, 8, 16, 32, each (B, D_level, H/stride, W/stride).

        Residual networks have them. A plain vision transformer has one stride only: its levels are the outputs of five blocks,
        evenly spaced, normalised and resampled.

        Raises:
            UserError: the architecture has no such levels.
        """
        return pyramid(self.backbone, self.architecture, images, levels)

    @torch.inference_mode()
    def features(self, pixels: np.ndarray, fmt: PixelFormat, size: int | None = None, batch_size: int = 256) -> np.ndarray:
        """float32 (B, D) features of integer `pixels` (B, bands of `fmt`, H, W), in evaluation mode.

        Raises:
            UserError: see `preprocess`.
        """
        training = self.training
        self.eval()
        try:
            parts = [
                self(self.preprocess(pixels[start : start + batch_size], fmt, size)).float().cpu().numpy()
                for start in range(0, len(pixels), batch_size)
            ]
        finally:
            self.train(training)
        return np.concatenate(parts) if parts else np.empty((0, self.width), np.float32)

    def with_preprocessing(self, preprocessing: Preprocessing) -> Encoder:
        """The same weights (shared) with another preprocessing of the same number of bands."""
        if len(preprocessing.bands) != len(self.preprocessing.bands):
            wanted, got = len(self.preprocessing.bands), len(preprocessing.bands)
            raise UserError(f"preprocessing: {got} bands ({', '.join(preprocessing.bands)}), the backbone takes {wanted}")
        return Encoder(self.architecture, preprocessing, self.backbone).to(self.mean.device).train(self.training)

    def save(self, folder: Path, training_config: dict[str, Any], data: dict[str, Any]) -> None:
        """Write `encoder.safetensors` and `encoder.json`.

        Args:
            folder: created if missing.
            training_config: how it was trained, JSON-able; `recipe` in the file.
            data: what it was trained on, JSON-able.
        """
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.backbone.state_dict().items()}
        save_file(weights, folder / WEIGHTS)
        fields = {
            "architecture": self.architecture,
            "preprocessing": self.preprocessing.to_dict(),
            "identity": self.identity,
            "recipe": training_config,
            "data": data,
        }
        (folder / DESCRIPTION).write_text(json.dumps(fields, indent=1, sort_keys=True) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Encoder:
        """Read what `save` wrote. Nothing is unpickled.

        Raises:
            UserError: a file is missing or damaged, or weights and description do not match.
        """
        for name in (WEIGHTS, DESCRIPTION):
            if not (folder / name).is_file():
                raise UserError(f"{folder}: no encoder here ({name} is missing); pretrain one, or give the folder of one")
        architecture, identity, preprocessing = _description(folder / DESCRIPTION)
        try:
            check_tensors(folder / WEIGHTS, architecture, preprocessing)
        except UserError as error:
            raise UserError(f"{folder}: {error}; {_COPY}") from error
        encoder = cls.random(architecture, preprocessing, seed=0)
        try:
            weights = load_file(folder / WEIGHTS)
            match_positions(encoder.backbone, weights)
            encoder.backbone.load_state_dict(weights)
        except (SafetensorError, RuntimeError, OSError) as error:
            raise UserError(f"{folder / WEIGHTS}: not the weights of a {architecture} ({_line(error)})") from error
        if encoder.identity != identity:
            raise UserError(f"{folder}: {WEIGHTS} and {DESCRIPTION} do not belong together; copy both again from one encoder")
        return encoder.eval()


def _description(file: Path) -> tuple[str, str, Preprocessing]:
    """Architecture, identity and preprocessing in an `encoder.json`, which can be anybody's."""
    try:
        fields = read_object(file, _COPY)
        architecture, identity, preprocessing = (fields.get(name) for name in ("architecture", "identity", "preprocessing"))
        if not isinstance(architecture, str) or not isinstance(identity, str) or not isinstance(preprocessing, dict):
            raise UserError(f"{file}: architecture, identity or preprocessing is missing; {_COPY}")
        return architecture, identity, Preprocessing.from_dict(preprocessing)
    except UserError as error:
        said = str(error) if str(file) in str(error) else f"{file}: {error}"
        raise UserError(f"not the description of an encoder: {said}") from error


def check_tensors(file: Path, architecture: str, preprocessing: Preprocessing) -> None:
    """Compare the header of a safetensors file with an architecture, before memory is taken for either.

    Raises:
        UserError: unreadable, or other tensors than the architecture's; names one.
    """
    try:
        with safe_open(file, "pt") as tensors:
            found = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file.name}: not the weights of a {architecture} ({_line(error)})") from error
    wanted = outline(architecture, len(preprocessing.bands), preprocessing.size, found)
    if found != wanted:
        name = next(name for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name))
        shapes = [" ".join(map(str, each[name])) if name in each else "none" for each in (found, wanted)]
        raise UserError(
            f"{file.name}: not the weights of a {architecture} for {', '.join(preprocessing.bands)}: {name} is {shapes[0]}, "
            f"not {shapes[1]}"
        )


def _cached_weights(tagged: str) -> Path:
    """The local file of timm's pretrained weights; no server is contacted."""
    config = get_pretrained_cfg(tagged)
    if config is None or not config.has_weights:
        raise WeightsUnavailable(f"ImageNet weights of {tagged}: timm has none for this architecture")
    hub, url = config.hf_hub_id, config.url
    for filename in ("model.safetensors", "pytorch_model.bin"):
        if isinstance(hub, str) and isinstance(found := try_to_load_from_cache(hub, filename), str):
            return Path(found)
    if isinstance(url, str) and (file := Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name).is_file():
        return file
    raise WeightsUnavailable(f"ImageNet weights of {tagged}: not in the local cache ({hub}), and none are downloaded")


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
