"""Checks that a data set is complete, or matches the `subset.json` that declares it a subset (a twin, a sample).

Without a declaration a reader requires the published number of images, so that a half-extracted archive is never used by mistake;
with one it requires exactly what is declared. The user's split lists also declare a subset: every image they name must exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from caco_assets.core.errors import UserError, one_line
from caco_assets.core.foreign_files import read_object

FILE = "subset.json"
_SHOWN = 4


class IncompleteError(UserError):
    """A data set has fewer or more images than expected."""


@dataclass(frozen=True)
class Subset:
    """A declared subset of a data set."""

    counts: Mapping[str, int]
    """Class, or part, → number of images; empty if only the total is declared."""
    images: int
    """Total over all classes or parts."""
    note: str
    """Origin, shown with scores."""


def read_subset(folder: Path) -> Subset | None:
    """The declaration in a folder: `{"counts": {"Beach": 12, …}, "note": "…"}` or `{"images": 100}`; None if there is none.

    Raises:
        UserError: it cannot be read.
    """
    file = folder / FILE
    if not file.exists():
        return None
    try:
        fields = read_object(file)
        counts = {str(name): int(count) for name, count in fields.get("counts", {}).items()}
        images = int(fields["images"]) if "images" in fields else sum(counts.values())
        if images < 1 or (counts and sum(counts.values()) != images):
            raise ValueError(f"{images} images declared, {sum(counts.values())} in its counts")
        return Subset(counts, images, str(fields.get("note", "no note")))
    except (UserError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        example = '{"counts": {"<class>": <images>}, "note": "…"} or {"images": <images>, "note": "…"}'
        raise UserError(f"{file}: not readable ({one_line(error, 150)}); write {example}") from error


def check_whole(root: Path, found: Mapping[str, int], whole: Mapping[str, int], *, sample: Mapping[str, int] | None = None) -> str:
    """Compare the images found with the published data set, or with the declared subset.

    Args:
        root: the data's folder, or its archive: the declaration lies in the folder, or next to the archive.
        found: class, or part, → number of images found.
        whole: the same for the published data set.
        sample: the same for a published subset.

    Returns:
        Text for the note of a score; empty for the complete data set.

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
    """Compare the number of images found in each class or part with the expected number.

    Raises:
        IncompleteError: a class is missing or has fewer or more.
    """
    names = [*wanted, *(name for name in found if name not in wanted)]
    pairs = {name: (found.get(name, 0), wanted.get(name, 0)) for name in names}
    wrong = [
        f"{name} {one} of {other}" if one < other else f"{name} {one} instead of {other}"
        for name, (one, other) in pairs.items()
        if one != other
    ]
    if wrong:
        total, whole = sum(found.values()), sum(wanted.values())
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        shown = f" ({', '.join(wrong[:_SHOWN])}{more})" if len(wanted) > 1 else ""
        file = (root if root.is_dir() else root.parent) / FILE
        declare = f'declare the part in {file} ({{"images": <images>, "note": "…"}})'
        if total > whole:
            raise IncompleteError(f"{root}: too many images: {total}, where {whole} belong{shown}; remove the others, or {declare}")
        kind = "not complete" if total < whole else "other counts"
        raise IncompleteError(
            f"{root}: {kind}: {total} of {whole} images{shown}; fetch the archive again and extract all of it, or {declare}"
        )
