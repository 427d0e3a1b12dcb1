"""Output files of a change-aware run in the encoder's folder: table, histogram, gallery and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from caco_assets.core.products import Facts
from caco_assets.pretraining.change.estimate import ChangeState, draw_histogram
from caco_assets.pretraining.change.gallery import draw_gallery
from caco_assets.pretraining.change.ground_truth import ChangeTruth
from caco_assets.pretraining.pack.format import Pack

ESTIMATES, HISTOGRAM, GALLERY = "change_estimates.parquet", "change_histogram.png", "change_gallery.png"


def write_change(folder: Path, state: ChangeState, pack: Pack, truth: ChangeTruth | None = None) -> Facts:
    """Write table, histogram and gallery into the existing folder `folder`.

    Returns:
        `ChangeState.summary` of the last labels.
    """
    write_estimates(folder / ESTIMATES, state, pack.location_id)
    draw_histogram(folder / HISTOGRAM, state)
    draw_gallery(folder / GALLERY, state, pack, truth)
    return state.summary()


def write_estimates(path: Path, state: ChangeState, location_id: Sequence[str]) -> None:
    """Write one row per place and period.

    Columns: `location_id`; `period` int8 (0 early, 1 late); `long`, `short`, `ratio` float32, moving averages; `last_long`,
    `last_ratio` float32, last observed values; `label` int8 (−1 unseen, 0 unchanged, 1 changed); `seen` int64, observations.
    """
    names = ("long", "short", "ratio", "last_long", "last_ratio", "label", "seen")
    columns = {name: getattr(state, name).cpu().numpy() for name in names}
    table = {
        "location_id": np.repeat(np.array(location_id), 2),
        "period": np.tile(np.array([0, 1], np.int8), len(location_id)),
        **columns,
        "label": columns["label"].astype(np.int8),
    }
    pq.write_table(pa.table(table), path)
