"""`subset.json` beside a data set that is meant to be a part of it (an embedded twin, a sample): what it says it holds.

Without it a reader wants the complete data set, so that a half-extracted archive is never judged on by mistake; with it the reader
wants exactly what is declared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from caco_assets.errors import UserError

FILE = "subset.json"


@dataclass(frozen=True)
class Subset:
    """A declared part of a data set."""

    counts: Mapping[str, int]
    """Class, or part, → number of images."""
    note: str
    """Where it comes from, for readers of a score."""


def read_subset(folder: Path) -> Subset | None:
    """The declaration in a folder: `{"counts": {"Beach": 12, …}, "note": "…"}`; None where there is none.

    Raises:
        UserError: it is not readable.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        fields = json.loads(file.read_text())
        counts = {str(name): int(count) for name, count in fields["counts"].items()}
        return Subset(counts, str(fields["note"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f'{file}: not readable ({error}); write {{"counts": {{"<class>": <images>}}, "note": "…"}}') from error


def check_counts(root: Path, found: Mapping[str, int], wanted: Mapping[str, int]) -> None:
    """Compare the images found in each class with those that should be there.

    Raises:
        UserError: some class has fewer or more, or is not there at all.
    """
    names = [*wanted, *(name for name in found if name not in wanted)]
    wrong = [f"{name} {found.get(name, 0)} of {wanted.get(name, 0)}" for name in names if found.get(name, 0) != wanted.get(name, 0)]
    if wrong:
        shown = ", ".join(wrong[:4]) + (f" and {len(wrong) - 4} more classes" if len(wrong) > 4 else "")
        raise UserError(
            f"{root}: not complete: {shown} images; extract the archive again, or declare a part of it in {root / FILE} "
            '({"counts": {"<class>": <images>}, "note": "…"})'
        )
