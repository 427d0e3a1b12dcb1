"""Assigns images to parts: by the authors' lists if they lie next to the data, else by a seeded stratified split."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.core.foreign_files import read_text
from caco_assets.downstream.datasets.names import by_fold, find_first, fold

PARTS = ("train", "val", "test")
# Both names are used for the same lists.
_LIST_NAMES = ("split-{}.txt", "eurosat-{}.txt")
_SUFFIXES = (".jpg", ".jpeg", ".tif", ".tiff", ".png")
# Of the stratified split: the published EuroSAT lists have the same shares.
_SHARES = (0.6, 0.2, 0.2)
_SEED = 0


def list_files(folder: Path) -> dict[str, Path]:
    """Part → its list in a folder; empty if there are no lists."""
    return {part: file for part in PARTS if (file := _find(folder, part)) is not None}


def read_lists(folder: Path, known: Mapping[str, int], suffix: str) -> dict[str, tuple[str, ...]]:
    """Read `split-train.txt`, `split-val.txt` and, if it exists, `split-test.txt`.

    Args:
        folder: where the lists lie.
        known: file name → label of every existing image.
        suffix: file suffix of the images; lists made for another format of the same patches are read with this suffix. Names are
            compared without upper and lower case.

    Returns:
        Part → file names in the list's order; empty when there is no list at all.

    Raises:
        UserError: a list is missing or empty, names a missing image, or an image is listed twice.
    """
    files = list_files(folder)
    if not files:
        return {}
    for part in ("train", "val"):
        if part not in files:
            raise UserError(f"{folder}: there is a split list but no split-{part}.txt; put all lists there, or none")
    lists: dict[str, tuple[str, ...]] = {}
    seen: dict[str, str] = {}
    there = by_fold(known, folder)
    for part, file in files.items():
        lines = [line.strip() for line in read_text(file).splitlines() if line.strip()]
        if not lines:
            raise UserError(f"{file}: the list is empty; fetch it again, or remove all lists for a seeded split")
        listed = [_listed(line, suffix) for line in lines]
        names = tuple(there.get(fold(name), name) for name in listed)
        for name in names:
            if name not in known:
                raise UserError(f"{file}: lists {name}, which is not in the data; fetch the complete data set, or correct the list")
            if name in seen:
                raise UserError(f"{file}: lists {name}, which split-{seen[name]}.txt has too; an image belongs to one part only")
            seen[name] = part
        lists[part] = names
    return lists


def stratified(known: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """A fixed 60/20/20 split of every class, the same on every machine.

    Args:
        known: file name → label.
    """
    rng = np.random.default_rng(_SEED)
    names = np.array(sorted(known))
    labels = np.array([known[name] for name in names])
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    for label in np.unique(labels):
        members = rng.permutation(names[labels == label])
        bounds = np.rint(np.cumsum(_SHARES)[:-1] * len(members)).astype(int)
        for part, chunk in zip(PARTS, np.split(members, bounds), strict=True):
            parts[part].extend(chunk.tolist())
    return {part: tuple(sorted(chosen)) for part, chosen in parts.items()}


def list_sha256(names: tuple[str, ...]) -> str:
    """sha256 of a list as its file would be written: one name per line."""
    return hashlib.sha256("".join(f"{name}\n" for name in names).encode()).hexdigest()


def _listed(line: str, suffix: str) -> str:
    """File name of a line, with the suffix of the images."""
    name = PurePosixPath(line).name
    return PurePosixPath(name).stem + suffix if PurePosixPath(name).suffix.lower() in _SUFFIXES else name + suffix


def _find(folder: Path, part: str) -> Path | None:
    return find_first((folder,), [pattern.format(part) for pattern in _LIST_NAMES])
