"""Finds the backbone in a state dict, renames its tensors to timm's names, and detects the architecture from shapes."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import timm
import torch
from torch import Tensor, nn

from caco_assets.core.errors import UserError
from caco_assets.pretraining.encoder.backbones import outline

logger = logging.getLogger(__name__)

# Prefixes of the query encoder or the backbone in common training modules; unprefixed names are tried last.
_PREFIXES = (
    "module.encoder_q.", "encoder_q.", "model.encoder_q.", "module.backbone.", "backbone.", "encoder.backbone.", "encoder.",
    "module.", "model.", "net.", "",
    # MoCo v3, BYOL and its kin, DINO (whose teacher is the network that its authors evaluate), lightly, mmselfsup
    "module.base_encoder.", "base_encoder.", "online_network.backbone.", "online_network.", "online_encoder.", "online_backbone.",
    "teacher.backbone.", "teacher_backbone.", "teacher.", "student.backbone.", "student_backbone.", "student.",
    "model.backbone.", "model.encoder.", "module.encoder.", "module.model.", "trunk.", "feature_extractor.",
)  # fmt: skip
# What torch.compile puts before the names of the module that it compiles, at any depth.
_COMPILED = "_orig_mod."
# `nn.Sequential(*list(resnet.children())[:-1])`, as SeCo and CACo cut their ResNets: relu, maxpool and pooling have no tensors.
_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_HEADS = ("fc.", "head.", "classifier.", "heads.", "head_dist.")
_INPUTS = ("conv1.weight", "patch_embed.proj.weight")
_RESNETS: dict[tuple[str, tuple[int, ...]], str] = {
    ("conv2", (2, 2, 2, 2)): "resnet18",
    ("conv2", (3, 4, 6, 3)): "resnet34",
    ("conv3", (3, 4, 6, 3)): "resnet50",
    ("conv3", (3, 4, 23, 3)): "resnet101",
    ("conv3", (3, 8, 36, 3)): "resnet152",
}
_VITS = {(192, 12): "tiny", (384, 12): "small", (768, 12): "base", (1024, 24): "large"}
_SHOWN = 6


@dataclass(frozen=True)
class Backbone:
    """The tensors of one network, named as timm names them."""

    tensors: dict[str, Tensor]
    prefix: str
    """Common prefix of the original names."""
    sequential: bool
    """Whether the tensors were numbered, as in SeCo and CACo."""
    head: tuple[int, ...]
    """Shape of the classifier's weight, which is not loaded; empty: the file has none."""

    @property
    def whole(self) -> bool:
        """Whether it has blocks too: the parts of a network have names of their own that end like its first tensor's."""
        return any(name.startswith(("layer1.0.", "blocks.0.")) for name in self.tensors)

    @property
    def bands(self) -> int:
        """Number of input channels."""
        return next(self.tensors[name].shape[1] for name in _INPUTS if name in self.tensors)


def find_backbone(tensors: Mapping[str, Tensor]) -> Backbone:
    """The backbone among the tensors of a file; other parts (key encoder, queue, projection heads) are ignored.

    A prefix that is not a usual one is found if the tensors of only one network begin with it.

    Raises:
        UserError: no known names, or several networks; lists some of the names in the file.
    """
    tensors = {name.replace(_COMPILED, ""): tensor for name, tensor in tensors.items()}
    for prefix in _PREFIXES:
        if found := _under(prefix, tensors):
            return found
    ends = tuple(f".{name}" for name in (*_INPUTS, "0.weight"))
    prefixes = sorted({name[: name.rindex(end) + 1] for name in tensors for end in ends if name.endswith(end)})
    networks = [found for prefix in prefixes if (found := _under(prefix, tensors)) and found.whole]
    if len(networks) == 1:
        logger.info(f"weights: the network is under {networks[0].prefix} in the file")
        return networks[0]
    if networks:
        raise UserError(
            f"weights: several networks ({', '.join(found.prefix for found in networks[:_SHOWN])}); name one with --prefix"
        )
    raise UserError(
        f"weights: no ResNet or ViT by its names ({_some(list(tensors))}); known are torchvision's, timm's, and "
        "encoder_q.… as SeCo, CACo and MoCo save them; --prefix names what stands before them in the file"
    )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> Backbone | None:
    """The network whose names begin with a prefix; None: there is none."""
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    for sequential in (False, True):
        named = {_renamed(name): tensor for name, tensor in own.items()} if sequential else own
        if any(name in named and named[name].ndim == 4 for name in _INPUTS):
            body = {name: tensor for name, tensor in named.items() if not name.startswith(_HEADS)}
            heads = [tuple(tensor.shape) for name, tensor in named.items() if name in ("fc.weight", "head.weight")]
            return Backbone(body, prefix, sequential, heads[0] if heads else ())
    return None


def architecture_of(found: Backbone) -> str:
    """The timm name, detected from the number and kind of the blocks.

    Raises:
        UserError: unknown architecture.
    """
    names = found.tensors
    if "patch_embed.proj.weight" in names:
        width, patch = names["patch_embed.proj.weight"].shape[0], names["patch_embed.proj.weight"].shape[2]
        depth = len({name.split(".")[1] for name in names if name.startswith("blocks.")})
        cells = names["pos_embed"].shape[1] - 1 if "pos_embed" in names and names["pos_embed"].ndim == 3 else 0
        side = math.isqrt(max(cells, 0)) * patch
        guess = f"vit_{_VITS.get((width, depth), '?')}_patch{patch}_{side}"
    else:
        blocks = [{match[1] for name in names if (match := re.match(rf"layer{i}\.(\d+)\.", name))} for i in range(1, 5)]
        kind = "conv3" if any(name.endswith(".conv3.weight") for name in names) else "conv2"
        guess = _RESNETS.get((kind, tuple(len(block) for block in blocks)), "?")
    if "?" in guess or not timm.is_model(guess):
        raise UserError(f"weights: their shapes are of no usual architecture ({guess}); name the timm architecture with --backbone")
    return guess


def check_fits(found: Backbone, architecture: str, bands: int, size: int) -> None:
    """Compare the tensors with those of an architecture, before memory is taken for it; names and shapes must match exactly.

    Args:
        found: the tensors.
        architecture: by timm's name.
        bands: of the input.
        size: side of the input, pixels.

    Raises:
        UserError: missing or unexpected tensors, wrong shapes, or values that are not finite; names them.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in found.tensors.items()}
    wanted = outline(architecture, bands, size, shapes)
    problems = {
        "missing": sorted(set(wanted) - set(shapes) - _counters(wanted)),
        "unexpected": sorted(set(shapes) - set(wanted)),
        "of another shape": sorted(
            f"{name} {shapes[name]}, not {wanted[name]}" for name in set(wanted) & set(shapes) if wanted[name] != shapes[name]
        ),
    }
    if wrong := [f"{what}: {_some(names)}" for what, names in problems.items() if names]:
        raise UserError(f"weights: not those of a {architecture} ({'; '.join(wrong)}); name the architecture with --backbone")
    if bad := [name for name, tensor in found.tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]:
        raise UserError(f"weights: not finite in {_some(bad)}; this network has diverged, or the file is damaged")


def fill(network: nn.Module, found: Backbone) -> None:
    """Load the tensors into a network that they fit; see `check_fits`."""
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name in found.tensors:
                tensor.copy_(found.tensors[name])


def _counters(names: Iterable[str]) -> set[str]:
    """Counters that torch versions before 0.4.1 did not store, and that inference does not read."""
    return {name for name in names if name.endswith("num_batches_tracked")}


def _renamed(name: str) -> str:
    number, dot, rest = name.partition(".")
    return f"{_CHILDREN.get(number, number)}{dot}{rest}"


def _some(names: list[str]) -> str:
    more = f", … ({len(names)} in all)" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
