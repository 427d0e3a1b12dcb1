"""The layout of building-change data: `A` (before), `B` (after) and `label`, the same file name in each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.downstream.datasets.archives import Archives
from caco_assets.downstream.datasets.image_decoding import expect, read_image, side_of
from caco_assets.downstream.datasets.masks import read_change
from caco_assets.downstream.datasets.tiles import Scene

CLASSES = ("no change", "change")
FOLDERS = ("A", "B", "label")


def folder_of(name: str) -> str:
    """The folder that a name means, in upper or lower case."""
    return {"a": "A", "b": "B"}.get(name.lower(), name.lower())


@dataclass(frozen=True)
class Pair:
    """Member names of one image."""

    before: str
    after: str
    mask: str

    @classmethod
    def of(cls, archives: Archives, name: str, found: Mapping[str, str]) -> Pair:
        """A pair from its members by folder.

        Raises:
            UserError: one of the three is missing.
        """
        for folder in FOLDERS:
            if folder not in found:
                there = next(iter(found.values()))
                raise UserError(f"{archives.root}: {name} has no file in {folder}/ ({there} is there); fetch the data set again")
        return cls(*(found[folder] for folder in FOLDERS))


def scene(archives: Archives, name: str, pair: Pair) -> Scene:
    """Image size, from the headers.

    Raises:
        UserError: the three sizes differ.
    """
    side = side_of(archives, pair.mask)
    for other in (pair.before, pair.after):
        if (found := side_of(archives, other)) != side:
            raise UserError(
                f"{archives.root}: {other} has {found} rows and columns, {pair.mask} has {side}; one is not the authors'"
            )
    return Scene(name, *side)


def same_size(archives: Archives, scenes: Mapping[str, tuple[Scene, ...]], published: int) -> str:
    """A note if the images do not have the published size.

    Raises:
        UserError: their sizes differ.
    """
    sides = {(scene.height, scene.width): scene.name for part in scenes.values() for scene in part}
    if len(sides) > 1:
        (one, first), (other, second), *_ = sides.items()
        raise UserError(f"{archives.root}: {first} has {one} rows and columns, {second} has {other}; all images have one size")
    (height, width) = next(iter(sides))
    return "" if (height, width) == (published, published) else f"; images of {height}×{width}, the authors' have {published}"


def decode(archives: Archives, pairs: Mapping[str, Pair], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(2, 3, H, W) uint8 and (H, W) uint8."""
    pair = pairs[name]
    mask = read_change(archives, pair.mask)
    images = [expect(archives, each, read_image(archives, each), (3, *mask.shape), "uint8") for each in (pair.before, pair.after)]
    return np.stack(images), mask
