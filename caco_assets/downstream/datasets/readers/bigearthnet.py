"""BigEarthNet-S2, first version: one folder for each patch with twelve tifs and `<patch>_labels_metadata.json`; 19 labels.

torchgeo's class is not used: it needs the Sentinel-1 half or downloads, lists files with a glob per sample and resamples through
rasterio, which the GPU image lacks. A test compares the two readers on the embedded twin.

Lists: `train.csv`, `val.csv`, `test.csv` as the authors publish them (the patch's name in the first column), also as
`bigearthnet-train.csv` (torchgeo) or `train.txt` (SeCo). Patches with seasonal snow or with cloud and shadow are dropped
if the authors' two lists lie next to the data; patches without any of the 19 labels are always dropped.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from caco_assets.core.errors import UserError
from caco_assets.core.foreign_files import read_object, read_text
from caco_assets.downstream.datasets.classification import LabelledImages, Part
from caco_assets.downstream.datasets.completeness import FILE, check_whole
from caco_assets.downstream.datasets.content_hash import FRESH, Hashes
from caco_assets.downstream.datasets.members import DataAbsentError
from caco_assets.downstream.datasets.names import by_fold, find_file, find_first, fold
from caco_assets.downstream.datasets.published_splits import source_of
from caco_assets.downstream.datasets.readers.bigearthnet_labels import CLASSES, of_43
from caco_assets.downstream.datasets.readers.bigearthnet_pixels import BANDS, FORMAT, SIDE, check_bands, read_patch
from caco_assets.downstream.datasets.splits import list_sha256

FOLDERS = ("BigEarthNet-v1.0", "BigEarthNet-S2-v1.0")
PARTS = ("train", "val", "test")
_LIST_NAMES = ("{}.csv", "bigearthnet-{}.csv", "{}.txt", "bigearthnet-{}.txt")
_DROP_LISTS = ("patches_with_seasonal_snow.csv", "patches_with_cloud_and_shadow.csv")
PATCHES = 590_326
"""Patches in the published set (Sumbul et al. 2019), including those with snow, cloud and shadow."""
_SHARES = (0.6, 0.2, 0.2)
_THREADS = 8


def read(path: Path, hashes: Hashes = FRESH) -> LabelledImages:
    """Check lists, folders and labels; no pixel is decoded yet.

    Args:
        path: the folder that holds the patches' folders, or the one that holds `BigEarthNet-v1.0/` and the lists. The lists lie in
        that folder or next to it. Without lists: a seeded 60/20/20 split, and all 590 326 patches must exist, or as many as
        `subset.json` in either folder declares.
        hashes: cache of content hashes.

    Raises:
        IncompleteError: no lists, and fewer or more patches than published or declared.
        UserError: no data (`DataAbsentError`), an archive that is not extracted, a list that names a missing patch, a patch
            without a tif or its labels, an unknown label.
    """
    root = _patches(path)
    there = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    if not there:
        raise UserError(f"{root}: no patch folder in it; extract BigEarthNet-S2-v1.0.tar.gz here (tar xzf)")
    lists, source = _lists(root, there)
    dropped, drop_note = _dropped(root)
    kept = {part: [name for name in names if fold(name) not in dropped] for part, names in lists.items()}
    names = [name for part in kept.values() for name in part]
    with ThreadPoolExecutor(_THREADS) as pool:
        labels = dict(zip(names, pool.map(partial(_labels, root), names), strict=True))
    unlabelled = sum(not row.any() for row in labels.values())
    parts = {}
    for part, wanted in kept.items():
        members = [name for name in wanted if labels[name].any()]
        if not members:
            raise UserError(f"{root}: no patch of the part {part} is left after dropping snow, cloud and unlabelled patches")
        parts[part] = Part(tuple(members), np.stack([labels[name] for name in members]))
    check_bands(root, partial(_decode, root, BANDS), parts)
    return LabelledImages(
        task="bigearthnet",
        classes=CLASSES,
        pixel_format=FORMAT,
        shape=(len(BANDS), SIDE, SIDE),
        dtype="uint16",
        parts=parts,
        version=version_of(root, parts, hashes),
        note=f"{source}; {drop_note}; {unlabelled} patches without any of the 19 labels dropped",
        decode=partial(_decode, root, BANDS),
        decode_bands=partial(_decode, root),
    )


def version_of(root: Path, parts: dict[str, Part], hashes: Hashes) -> str:
    """Hash of names and labels, and of every byte below `root`."""
    digest = hashlib.sha256()
    for part, members in parts.items():
        digest.update(f"{part} {list_sha256(members.names)}".encode())
        digest.update(np.ascontiguousarray(members.labels).tobytes())
    return f"labels-{digest.hexdigest()}/data-{hashes.of(root)}"


def _patches(path: Path) -> Path:
    """The folder that holds the patches' folders."""
    if not path.exists():
        raise DataAbsentError(f"data={path}: there is nothing there")
    if path.is_file():
        raise UserError(f"data={path}: a file; extract the archive (tar xzf) and give the folder")
    for name in FOLDERS:
        if (path / name).is_dir():
            return path / name
    if (archives := sorted(path.glob("*.tar.gz*"))) and not any(entry.is_dir() for entry in path.iterdir()):
        raise UserError(f"data={path}: {archives[0].name} is not extracted yet; run tar xzf on it here")
    return path


def _lists(root: Path, there: list[str]) -> tuple[dict[str, tuple[str, ...]], str]:
    """Names of each part, and their origin."""
    files = {part: file for part in PARTS if (file := _find(root, [name.format(part) for name in _LIST_NAMES])) is not None}
    if not files:
        place = root if (root / FILE).is_file() or root.name not in FOLDERS else root.parent
        part_note = check_whole(place, {"patches": len(there)}, {"patches": PATCHES})
        return _seeded(there), f"no split lists: 60/20/20 split, seed 0{part_note}"
    if missing := [part for part in ("train", "val") if part not in files]:
        raise UserError(f"{next(iter(files.values())).parent}: no list of the part {missing[0]}; put all lists there, or none")
    known, seen = by_fold(there, root), {}
    lists: dict[str, tuple[str, ...]] = {}
    for part, file in files.items():
        names = tuple(known.get(fold(name), name) for name in _first_column(file))
        if not names:
            raise UserError(f"{file}: the list is empty; fetch it again")
        for name in names:
            if fold(name) not in known:
                raise UserError(f"{file}: lists {name}, which is not in {root}; extract the whole archive, or correct the list")
            if name in seen:
                raise UserError(f"{file}: lists {name}, which {seen[name]} has too; a patch belongs to one part only")
            seen[name] = file.name
        lists[part] = names
    hashes = ", ".join(f"{part} {list_sha256(names)}" for part, names in lists.items())
    return lists, f"{source_of('bigearthnet', files)} (sha256 {hashes})"


def _seeded(there: list[str]) -> dict[str, tuple[str, ...]]:
    """A fixed split; at least one patch in each part where there are three."""
    if len(there) < len(PARTS):
        raise UserError(f"{len(there)} patches are too few for a split; at least {len(PARTS)} are needed")
    order = np.random.default_rng(0).permutation(there).tolist()
    first, second = np.rint(np.cumsum(_SHARES)[:-1] * len(there)).astype(int)
    first = min(first, len(there) - 2)
    second = min(max(second, first + 1), len(there) - 1)
    cut = {"train": order[:first], "val": order[first:second], "test": order[second:]}
    return {part: tuple(sorted(names)) for part, names in cut.items()}


def _dropped(root: Path) -> tuple[set[str], str]:
    """Patches on the authors' lists of snow and of cloud and shadow , by compared names, and a note for scores."""
    names: set[str] = set()
    found = []
    for name in _DROP_LISTS:
        file = _find(root, [name])
        if file is not None:
            names |= {fold(name) for name in _first_column(file)}
            found.append(name)
    if not found:
        return names, "no lists of snow and cloud beside the data, none dropped for it"
    return names, f"patches of {' and '.join(found)} dropped"


def _find(root: Path, names: list[str]) -> Path | None:
    places = (root, root.parent, root / "splits", root.parent / "splits")
    return find_first(places, names)


def _first_column(file: Path) -> list[str]:
    return [name for line in read_text(file).splitlines() if (name := line.split(",")[0].strip().strip('"'))]


def _labels(root: Path, name: str) -> np.ndarray:
    """uint8 (19,) of a patch; also checks that all its tifs exist."""
    there = {fold(entry.name) for entry in (root / name).iterdir()}
    if missing := [band for band in BANDS if fold(f"{name}_{band}.tif") not in there]:
        raise UserError(f"{root / name}: {', '.join(missing)} missing; extract the archive again")
    wanted = f"{name}_labels_metadata.json"
    file = find_file(root / name, wanted) or root / name / wanted
    labels = read_object(file, "extract the archive again").get("labels")
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise UserError(f"{file}: not readable (no list of labels); extract the archive again")
    return of_43(labels, str(file))


def _decode(root: Path, bands: tuple[str, ...], name: str) -> np.ndarray:
    return read_patch(root / name, bands)
