"""Assigns images to parts: by the authors' lists if they lie next to the data, else by a seeded stratified split."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from caco_assets.core.errors import UserError

PARTS = ("train", "val", "test")
# Both names are used for the same lists.
_LIST_NAMES = ("split-{}.txt", "eurosat-{}.txt")
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
        suffix: file suffix of the images; lists made for another format of the same patches are read with this suffix.

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
    for part, file in files.items():
        lines = [line.strip() for line in file.read_text().splitlines() if line.strip()]
        if not lines:
            raise UserError(f"{file}: the list is empty; fetch it again, or remove all lists for a seeded split")
        names = tuple(PurePosixPath(line).with_suffix(suffix).name for line in lines)
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


def _find(folder: Path, part: str) -> Path | None:
    return next((file for pattern in _LIST_NAMES if (file := folder / pattern.format(part)).is_file()), None)
