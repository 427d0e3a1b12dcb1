"""Per-class scores and confusion counts from a per-item table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def confusion_of(items: Path, classes: int) -> np.ndarray | None:
    """(classes, classes) int64 counts of images or pixels: truth in rows, prediction in columns; None for several labels."""
    import pandas as pd
    from sklearn.metrics import confusion_matrix

    table = pd.read_parquet(items)
    if "truth_0_predicted_0" in table:
        sums = [[int(table[f"truth_{i}_predicted_{j}"].to_numpy().sum()) for j in range(classes)] for i in range(classes)]
        return np.array(sums, np.int64)
    if "prediction" not in table:
        return None
    return confusion_matrix(table["label"], table["prediction"], labels=np.arange(classes))


def figures_of(items: Path, classes: tuple[str, ...], scored: tuple[int, ...] | None = None) -> list[dict[str, Any]]:
    """One record for each class.

    Args:
        items: per-item table of a row.
        classes: their names.
        scored: for pixel labels: the scored classes.

    Returns:
        `class`, `items`, and of one label `recall`, `precision`, `f1`; of several `average_precision`; of pixels `iou` too. An
        undefined figure (class absent from truth and prediction) is None.
    """
    import pandas as pd

    table = pd.read_parquet(items)
    if "score" in table:
        return _several_labels(table, classes)
    counts = confusion_of(items, len(classes))
    if counts is None:
        return []
    pixels = "truth_0_predicted_0" in table
    records = []
    for number, name in enumerate(classes):
        right, there, said = counts[number, number], counts[number].sum(), counts[:, number].sum()
        record = {"class": name, "pixels" if pixels else "images": int(there)}
        record |= {"recall": _share(right, there), "precision": _share(right, said), "f1": _share(2 * right, there + said)}
        if pixels:
            record |= {"iou": _share(right, there + said - right), "counts": scored is None or number in scored}
        records.append(record)
    return records


def _several_labels(table: pd.DataFrame, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    from sklearn.metrics import average_precision_score

    labels, scores = (np.stack(list(table[name])) for name in ("label", "score"))
    return [
        {
            "class": name,
            "images": int(labels[:, k].sum()),
            "average_precision": round(float(average_precision_score(labels[:, k], scores[:, k])), 4)
            if labels[:, k].any()
            else None,
        }
        for k, name in enumerate(classes)
    ]


def _share(part: int, whole: int) -> float | None:
    return round(float(part / whole), 4) if whole else None
