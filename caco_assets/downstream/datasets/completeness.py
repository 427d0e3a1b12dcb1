"""Whether a data set is there as a whole, and `subset.json` beside one that is meant to be a part of it (a twin, a sample).

Without a declaration a reader wants the published number of images, so that a half-extracted archive is never judged on by mistake;
with one it wants exactly what is declared. Split lists that the user brings declare a part too: every image that they name must be
there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from caco_assets.core.errors import UserError

FILE = "subset.json"
_SHOWN = 4


class IncompleteError(UserError):
    """Images of a data set are missing, or there are more than there should be."""


@dataclass(frozen=True)
class Subset:
    """A declared part of a data set."""

    counts: Mapping[str, int]
    """Class, or part, → number of images; empty where only the number of all is declared."""
    images: int
    """Of all classes or parts."""
    note: str
    """Where it comes from, for readers of a score."""


def read_subset(folder: Path) -> Subset | None:
    """The declaration in a folder: `{"counts": {"Beach": 12, …}, "note": "…"}` or `{"images": 100}`; None where there is none.

    Raises:
        UserError: it is not readable.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        fields = json.loads(file.read_text())
        counts = {str(name): int(count) for name, count in fields.get("counts", {}).items()}
        images = int(fields["images"]) if "images" in fields else sum(counts.values())
        if images < 1 or (counts and sum(counts.values()) != images):
            raise ValueError(f"{images} images declared, {sum(counts.values())} in its counts")
        return Subset(counts, images, str(fields.get("note", "no note")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        example = '{"counts": {"<class>": <images>}, "note": "…"} or {"images": <images>, "note": "…"}'
        raise UserError(f"{file}: not readable ({error}); write {example}") from error


def check_whole(root: Path, found: Mapping[str, int], whole: Mapping[str, int], *, sample: Mapping[str, int] | None = None) -> str:
    """Compare the images that are there with the published data set, or with the part that is declared beside it.

    Args:
        root: the data's folder, or its archive: the declaration lies in the folder, or beside the archive.
        found: class, or part, → images that are there.
        whole: the same of the published data set.
        sample: the same of a part of it that is published as such.

    Returns:
        What the note of a score must say: nothing of the whole.

    Raises:
        IncompleteError: some class or part has fewer or more images.
        UserError: the declaration is not readable.
    """
    declared = read_subset(root if root.is_dir() else root.parent)
    total, everything = sum(found.values()), sum(whole.values())
    if declared is None:
        if sample is not None and found == sample:
            return f"; a published sample: {total} of {everything} images"
        check_counts(root, found, whole)
        return ""
    check_counts(root, found if declared.counts else {"all": total}, declared.counts or {"all": declared.images})
    return f"; a declared part: {total} of {everything} images: {declared.note}"


def check_counts(root: Path, found: Mapping[str, int], wanted: Mapping[str, int]) -> None:
    """Compare the images found in each class or part with those that should be there.

    Raises:
        IncompleteError: some class has fewer or more, or is not there at all.
    """
    names = [*wanted, *(name for name in found if name not in wanted)]
    wrong = [f"{name} {found.get(name, 0)} of {wanted.get(name, 0)}" for name in names if found.get(name, 0) != wanted.get(name, 0)]
    if wrong:
        total, whole = sum(found.values()), sum(wanted.values())
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        shown = f" ({', '.join(wrong[:_SHOWN])}{more})" if len(wanted) > 1 else ""
        file = (root if root.is_dir() else root.parent) / FILE
        raise IncompleteError(
            f"{root}: {'not complete' if total <= whole else 'too much'}: {total} of {whole} images{shown}; fetch the archive "
            f'again and extract all of it, or declare the part in {file} ({{"images": <images>, "note": "…"}})'
        )
