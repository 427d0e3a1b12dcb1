"""The common form of data sets with pixel labels: named parts of tiles cut from large images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from caco_assets.core.atomic import make_missing
from caco_assets.core.errors import UserError
from caco_assets.core.progress import Progress
from caco_assets.downstream.datasets.classification import key
from caco_assets.downstream.datasets.tiles import Scene, Tile, cut, grid
from caco_assets.pretraining.encoder.preprocessing import RGB, PixelFormat

PHOTOGRAPH = PixelFormat(RGB, 0.275 / 255)
"""A natural-colour image without radiometry: white counts as reflectance 0.275, as in EuroSAT RGB."""
_THREADS = 4
_STEP = 32
"""Pixels per pixel of an encoder's deepest level."""


Decode = Callable[[str], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class DenseImages:
    """A data set whose files have been checked but not yet decoded."""

    task: str
    classes: tuple[str, ...]
    """The value of a mask is an index into it, or `image_decoding.IGNORE`."""
    scored: tuple[int, ...]
    """Classes that the mean IoU is taken over; the others are learned and appear in the confusion, but are not scored."""
    pixel_format: PixelFormat
    dates: int
    """Images of each scene: 1, or 2 for change detection."""
    dtype: str
    scenes: Mapping[str, tuple[Scene, ...]]
    """`train` and `test`, and `val` if the authors have one."""
    version: str
    """Hash of the bytes and of the split lists: two rows with the same version saw the same pixels."""
    note: str
    """Note on the split, shown with scores."""
    decode: Decode
    """Scene → (T, C, H, W) images and (H, W) uint8 mask; raises UserError naming the file when it is damaged."""
    tile: int = 0
    """Side of the tiles, pixels; 0: not yet cut."""
    parts: Mapping[str, tuple[Tile, ...]] = field(default_factory=dict)
    """As `scenes`, in tiles; empty until cut."""
    folds: tuple[()] = ()

    def tiled(self, side: int) -> DenseImages:
        """Cut into tiles of `side` pixels, or of the largest multiple of 32 (at least 32) that fits into every scene."""
        smallest = min(min(scene.height, scene.width) for scenes in self.scenes.values() for scene in scenes)
        side = min(side, max(_STEP, smallest // _STEP * _STEP))
        parts = {part: tuple(tile for scene in scenes for tile in grid(scene, side)) for part, scenes in self.scenes.items()}
        return replace(self, tile=side, parts=parts, version=f"{self.version}/tile-{side}")

    def limited(self, limit: int | None, seed: int) -> DenseImages:
        """At most `limit` tiles per part, a seeded choice."""
        parts = self.parts
        if limit is None or all(len(part) <= limit for part in parts.values()):
            return self
        rng = np.random.default_rng(seed)
        chosen = {name: tuple(part[i] for i in sorted(rng.permutation(len(part))[:limit].tolist())) for name, part in parts.items()}
        note = f"{self.note}; at most {limit} tiles per split (seed {seed})"
        return replace(self, parts=chosen, version=f"{self.version}/limit-{limit}-{seed}", note=note)

    def fold(self, seed: int) -> DenseImages:
        """There is only one split."""
        del seed
        return self

    def validated(self, share: float, seed: int) -> DenseImages:
        """With a `val` part: the authors', else a seeded share of the groups of `train`, at least one.

        Raises:
            UserError: the training part is a single group.
        """
        parts = self.parts
        if "val" in parts:
            return replace(self, note=f"{self.note}; validated on the authors' val")
        groups = sorted({tile.group for tile in parts["train"]})
        if len(groups) < 2:
            # a single mosaic: its last tiles, in reading order, form a separate block
            cut = max(1, round(share * len(parts["train"])))
            if cut >= len(parts["train"]):
                raise UserError(f"{self.task}: the training part is a single tile, none is left to validate on; use more images")
            held = set(parts["train"][-cut:])
            how = f"the last {cut} of {len(parts['train'])} training tiles"
        else:
            order = np.random.default_rng(seed).permutation(groups)
            chosen = set(order[: max(1, round(share * len(groups)))].tolist())
            held = {tile for tile in parts["train"] if tile.group in chosen}
            how = f"{len(chosen)} of {len(groups)} training images (seed {seed})"
        train = tuple(tile for tile in parts["train"] if tile not in held)
        val = tuple(tile for tile in parts["train"] if tile in held)
        return replace(self, parts={**parts, "train": train, "val": val}, note=f"{self.note}; no val: validated on {how}")

    def arrays(self, part: str, cache: Path) -> tuple[np.ndarray, np.ndarray]:
        """Decode every scene of a part once and cut its tiles.

        Args:
            part: a key of `parts`.
            cache: folder for the decoded arrays; it can be deleted at any time.

        Returns:
            (N, T, C, tile, tile) as stored by the authors and (N, tile, tile) uint8 masks, memory-mapped.

        Raises:
            UserError: a file is damaged or not of the data set's shape; the message names it.
        """
        tiles, channels = self.parts[part], len(self.pixel_format.bands)
        stem = key(self.task, self.version, part, self.tile, *(tile.name for tile in tiles))
        files = [cache / f"{stem}-{kind}.npy" for kind in ("images", "masks")]

        def decode(images_file: Path, masks_file: Path) -> None:
            shape = (len(tiles), self.dates, channels, self.tile, self.tile)
            images = np.lib.format.open_memmap(images_file, "w+", np.dtype(self.dtype), shape)
            masks = np.lib.format.open_memmap(masks_file, "w+", np.dtype("uint8"), (len(tiles), self.tile, self.tile))
            self._fill(tiles, images, masks, Progress(f"decode {self.task} {part}", len(tiles), "tile"))
            images.flush()
            masks.flush()

        make_missing(files, decode)
        images, masks = (np.load(file, mmap_mode="r") for file in files)
        return images, masks

    def _fill(self, tiles: tuple[Tile, ...], images: np.ndarray, masks: np.ndarray, progress: Progress) -> None:
        """Decode every scene once, a few at a time."""
        wanted: dict[str, list[int]] = {}
        for position, tile in enumerate(tiles):
            wanted.setdefault(tile.scene, []).append(position)
        names = list(wanted)
        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(names), _THREADS):
                for name, (image, mask) in zip(
                    names[start : start + _THREADS], pool.map(self.decode, names[start : start + _THREADS]), strict=True
                ):
                    for position in wanted[name]:
                        images[position], masks[position] = cut(image, mask, tiles[position], self.tile)
                    progress.advance(len(wanted[name]))
        progress.close()
