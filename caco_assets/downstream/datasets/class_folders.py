"""The layout `<anything>/<Class>/<Class>_<n><suffix>`, checked before any pixel is read, and its split into parts."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from caco_assets.core.errors import UserError, one_line
from caco_assets.downstream.datasets.classification import Part
from caco_assets.downstream.datasets.completeness import check_whole
from caco_assets.downstream.datasets.members import Store
from caco_assets.downstream.datasets.published_splits import source_of
from caco_assets.downstream.datasets.splits import list_files, list_sha256, read_lists, stratified


def index_members(store: Store, classes: tuple[str, ...], suffix: str, stem: Callable[[str], str] = str) -> dict[str, str]:
    """File name → member name of every image.

    Args:
        store: the archive or folder.
        classes: the class folders that must exist, exactly.
        suffix: of the images; other files (previews, catalogs) are left alone.
        stem: how the class appears in a file name.

    Raises:
        UserError: no image, an unknown or missing class folder, a file in another class's folder, or the same name twice.
    """
    members: dict[str, str] = {}
    for member in store.names():
        path = PurePosixPath(member)
        if path.suffix.lower() != suffix or path.name.startswith(".") or "__MACOSX" in path.parts:
            continue
        folder = path.parent.name
        if folder not in classes:
            close = difflib.get_close_matches(folder, classes, n=1)
            hint = f"did you mean {close[0]}?" if close else f"the classes are {', '.join(classes)}"
            raise UserError(f"{store.root}: {member} lies in an unknown class folder {folder!r}; {hint}")
        if path.stem.rpartition("_")[0] != stem(folder):
            name = f"{stem(folder)}_<number>{suffix}"
            raise UserError(f"{store.root}: {member} is not named {name}; put it in the folder of its class")
        # lists and results name `Forest_1.JPG` as they name `Forest_1.jpg`
        name = path.stem + suffix
        if name in members:
            raise UserError(f"{store.root}: {name} is there twice ({members[name]}, {member}); remove one")
        members[name] = member
    if not members:
        raise UserError(f"{store.root}: no <Class>/<Class>_<number>{suffix} in it; is this the right archive or folder?")
    found = Counter(PurePosixPath(member).parent.name for member in members.values())
    if missing := [name for name in classes if not found[name]]:
        raise UserError(f"{store.root}: no image of {', '.join(missing)}; all {len(classes)} classes are needed, fetch it again")
    return members


def decode_jpg(store: Store, members: Mapping[str, str], side: int, data_set: str, name: str) -> np.ndarray:
    """(3, side, side) uint8 of an image, in RGB order.

    Args:
        store: the archive or folder.
        members: see `index_members`.
        side: of every image of the data set, pixels.
        data_set: its name, for the message.
        name: of the image's file.

    Raises:
        UserError: the file is damaged, or not an RGB image of that size.
    """
    data = store.read(members[name])
    try:
        # some copies hold PNGs under the names of the authors' JPEGs
        with Image.open(BytesIO(data), formats=("JPEG", "PNG")) as image:
            if image.size != (side, side) or image.mode != "RGB":
                width, height = image.size
                raise UserError(f"{store.root}: {members[name]} is {width}×{height} {image.mode}; {data_set} has {side}×{side} RGB")
            return np.asarray(image).transpose(2, 0, 1)
    except UserError:
        raise
    # damaged bytes raise nearly every kind of exception in Pillow's readers
    except Exception as error:
        line = one_line(error, 120) or type(error).__name__
        raise UserError(f"{store.root}: {members[name]} is damaged ({line}); fetch the data set again") from error


def cut_parts(
    root: Path, members: dict[str, str], suffix: str, whole: Mapping[str, int], sample: Mapping[str, int] | None = None
) -> tuple[dict[str, Part], str, str]:
    """Parts from the lists next to the data, else a seeded stratified split of the complete data set or of a declared part.

    Args:
        root: archive or folder; the lists lie in the folder, else next to it.
        members: see `index_members`.
        suffix: of the images.
        whole: class → number of images in the published data set; the order defines the labels.
        sample: the same for a published subset.

    Returns:
        The parts, one sha256 over all lists, and a note for readers of a score with the sha256 of every list.

    Raises:
        IncompleteError: there are no lists, and the number of images differs from the complete data set or the declared part.
        UserError: see `read_lists` and `source_of`; or the training part lacks a class.
    """
    classes, lists_folder = tuple(whole), root if any(root.glob("*-train.txt", case_sensitive=False)) else root.parent
    labels = {name: classes.index(PurePosixPath(member).parent.name) for name, member in members.items()}
    lists = read_lists(lists_folder, labels, suffix)
    part_note = ""
    if lists:
        source = source_of("eurosat", list_files(lists_folder))
    else:
        found = Counter(PurePosixPath(member).parent.name for member in members.values())
        part_note = check_whole(root, found, whole, sample=sample)
        lists, source = stratified(labels), "no split lists: stratified 60/20/20 split, seed 0"
    parts = {part: Part(names, np.array([labels[name] for name in names], np.int64)) for part, names in lists.items()}
    if absent := sorted(set(range(len(classes))) - set(parts["train"].labels.tolist())):
        raise UserError(f"{lists_folder}: no training image of {', '.join(classes[i] for i in absent)}; use other split lists")
    hashes = {part: list_sha256(names) for part, names in lists.items()}
    note = f"{source} (sha256 {', '.join(f'{part} {digest}' for part, digest in hashes.items())}){part_note}"
    if unlisted := len(members) - sum(len(names) for names in lists.values()):
        note += f"; {unlisted} images are in no list and not used"
    return parts, list_sha256(tuple(hashes.values())), note
