"""What a twin declares about itself: it has fewer images than the data set that it stands for, and says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from caco_assets.core.atomic import write_atomic

NOTE = "twin drawn from the embedded Earth"


def declare(folder: Path, counts: Mapping[str, int], note: str = NOTE) -> None:
    """Write `subset.json`, without which readers would take the twin for a half-extracted archive.

    Args:
        folder: of the twin.
        counts: class or part → images.
        note: where they come from, for readers of a score.
    """
    write_atomic(folder / "subset.json", json.dumps({"counts": counts, "note": note}, indent=1) + "\n")
