"""The common form of data sets with image labels: named parts, one pixel format, one version."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from caco_assets.core.atomic import replacing
from caco_assets.core.progress import Progress
from caco_assets.pretraining.encoder.preprocessing import PixelFormat

# PIL, zlib and tifffile release the GIL while decoding, so a few threads help even on two cores.
_THREADS = 4
_CHUNK = 256


@dataclass(frozen=True)
class Part:
    """Images of one split, in a fixed order."""

    names: tuple[str, ...]
    """File names; the keys of paired tests."""
    labels: np.ndarray
    """(N,) int64, index into the classes; of a multi-label data set (N, classes) uint8, 1 where the class is present."""

    def take(self, index: np.ndarray) -> Part:
        """The images at the given positions."""
        return Part(tuple(self.names[i] for i in index), self.labels[index])

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class LabelledImages:
    """A data set whose files have been checked but not yet decoded."""

    task: str
    classes: tuple[str, ...]
    pixel_format: PixelFormat
    shape: tuple[int, int, int]
    """Bands, height and width of every image."""
    dtype: str
    parts: Mapping[str, Part]
    """`train` and `val`, and `test` if the split has one."""
    version: str
    """Hash of the bytes and of the split lists: two rows with the same version saw the same images."""
    note: str
    """Note on the split, shown with scores."""
    decode: Callable[[str], np.ndarray]
    """File name → (C, H, W) array; raises UserError naming the file when it is damaged or of another shape."""
    decode_bands: Callable[[tuple[str, ...], str], np.ndarray] | None = None
    """The same for a subset of bands, if each band is a separate file; None: images are read as a whole."""
    folds: tuple[Mapping[str, Part], ...] = ()
    """Several splits of the same images, if scores average over splits; `parts` is then the first."""
    images_version: str = ""
    """Hash of the images alone, for tasks that split the same images: caches of all images serve every split."""
    whole: LabelledImages | None = None
    """All images of all splits as one part `all`, so that each is encoded only once."""

    def fold(self, seed: int) -> LabelledImages:
        """The data in the split of a seed (seeds cycle through the splits); itself if there is only one split."""
        if not self.folds:
            return self
        number = seed % len(self.folds)
        parts = [part for fold in self.folds for part in fold.values()]
        labels = {name: label for part in parts for name, label in zip(part.names, part.labels, strict=True)}
        names = tuple(sorted(labels))
        everything = Part(names, np.array([labels[name] for name in names]))
        # of the same images, whatever the split
        version = f"{self.images_version}/images-{key(*names)}" if self.images_version else self.version
        return replace(
            self,
            parts=self.folds[number],
            folds=(),
            version=f"{self.version}/split-{number}",
            note=f"split {number + 1} of {len(self.folds)}; {self.note}",
            whole=replace(self, parts={"all": everything}, folds=(), version=version),
        )

    def for_bands(self, bands: tuple[str, ...] | None) -> LabelledImages:
        """The same images with only these bands, in this order, if that saves reading; None: all bands."""
        if bands is None or self.decode_bands is None or bands == self.pixel_format.bands:
            return self
        self.pixel_format.select(bands)
        return replace(
            self,
            pixel_format=replace(self.pixel_format, bands=bands),
            shape=(len(bands), *self.shape[1:]),
            version=f"{self.version}/bands-{'-'.join(bands)}",
            decode=partial(self.decode_bands, bands),
            decode_bands=None,
        )

    def limited(self, limit: int | None, seed: int) -> LabelledImages:
        """At most `limit` images per part: a seeded choice that keeps the class shares."""
        splits = self.folds or (self.parts,)
        if limit is None or all(len(part) <= limit for parts in splits for part in parts.values()):
            return self
        rng = np.random.default_rng(seed)
        limited = tuple({name: part.take(_balanced(part.labels, limit, rng)) for name, part in parts.items()} for parts in splits)
        note = f"{self.note}; at most {limit} images per split (seed {seed})"
        version = f"{self.version}/limit-{limit}-{seed}"
        return replace(self, parts=limited[0], folds=limited if self.folds else (), version=version, note=note)

    def pixels(self, part: str, cache: Path) -> np.ndarray:
        """Decode every image of a part once.

        Args:
            part: a key of `parts`.
            cache: folder for the decoded array; it can be deleted at any time.

        Returns:
            (N, C, H, W), as stored by the data set's authors, memory-mapped.

        Raises:
            UserError: a file is damaged or not of the data set's shape; the message names it.
        """
        names = self.parts[part].names
        file = cache / f"{key(self.version, part, *names)}.npy"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            images = np.empty((len(names), *self.shape), self.dtype)
            progress = Progress(f"decode {self.task} {part}", len(names), "image")
            for start, chunk in self.stream(names):
                images[start : start + len(chunk)] = chunk
                progress.advance(len(chunk))
            progress.close()
            save_array(file, images)
        return np.load(file, mmap_mode="r")

    def stream(self, names: Sequence[str], chunk: int = _CHUNK) -> Iterator[tuple[int, np.ndarray]]:
        """Decode images a chunk at a time: position of the first, and (≤ chunk, C, H, W). Nothing is kept.

        Raises:
            UserError: as `pixels`.
        """
        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(names), chunk):
                wanted = names[start : start + chunk]
                images = np.empty((len(wanted), *self.shape), self.dtype)
                for offset, image in enumerate(pool.map(self.decode, wanted)):
                    images[offset] = image
                yield start, images

    def bytes_of(self, count: int) -> int:
        """Of so many decoded images."""
        return count * int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


def key(*parts: object) -> str:
    """A short cache file name derived from everything listed."""
    return hashlib.sha256("\n".join(str(part) for part in parts).encode()).hexdigest()[:32]


def save_array(file: Path, array: np.ndarray) -> None:
    """Write an array atomically."""
    with replacing(file) as scratch, scratch.open("wb") as stream:
        np.save(stream, array)


def _balanced(labels: np.ndarray, limit: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of at most `limit` images, taken in turn from shuffled classes in proportion to their size, sorted."""
    if len(labels) <= limit:
        return np.arange(len(labels))
    order = rng.permutation(len(labels))
    if labels.ndim == 2:
        # several classes per image: a random choice keeps their shares
        return np.sort(order[:limit])
    # the position of each image in its class, as a fraction: the smallest fractions of all classes come first
    rank = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.sort(np.argsort(rank, kind="stable")[:limit])
