"""Accuracy of the change estimates where true change is known; for metrics only, nothing trains on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from caco_assets.core.errors import UserError
from caco_assets.pretraining.change.estimate import CHANGED, ChangeState


@dataclass(frozen=True)
class ChangeTruth:
    """Known change of the places of a pack, in the pack's order."""

    changed: NDArray[np.bool_]
    """(places,): the place has truly changed between the periods; False where unknown."""
    known: NDArray[np.bool_]
    """(places,): whether the table names the place."""

    @classmethod
    def read(cls, path: Path, location_id: Sequence[str]) -> ChangeTruth:
        """Read a table with the columns `location_id` (string) and `changed` (boolean); other columns are ignored.

        Args:
            path: a parquet file.
            location_id: the places of the pack, in its order.

        Raises:
            UserError: the table has other columns or types, or names no place of the pack.
        """
        try:
            table = pq.read_table(path, columns=["location_id", "changed"])
            truth = dict(zip(table["location_id"].to_pylist(), table["changed"].to_pylist(), strict=True))
        except (OSError, KeyError, pa.ArrowInvalid) as error:
            line = " ".join(str(error).split())[:150]
            raise UserError(f"{path}: not a table of true change with `location_id` and `changed` ({line})") from error
        known = np.array([truth.get(place) is not None for place in location_id])
        if not known.any():
            raise UserError(f"{path}: names none of the {len(location_id)} places of the pack; it belongs to other imagery")
        return cls(np.array([bool(truth.get(place)) for place in location_id]), known)

    def figures(self, state: ChangeState) -> dict[str, float]:
        """Accuracy of the current estimates and labels, over the place-periods seen so far.

        Returns:
            `change_auroc_<estimate>`: the probability that a changed place-period has a higher estimate than an unchanged one
            (0.5: chance level); `change_precision`, `change_recall` of the label. Undefined metrics (only one class, nothing
            labelled) are left out.
        """
        from sklearn.metrics import roc_auc_score

        truth = np.repeat(self.changed, 2)
        judged = np.repeat(self.known, 2) & (state.seen.cpu().numpy() > 0)
        figures: dict[str, float] = {}
        if len(np.unique(truth[judged])) == 2:
            for name, values in state.estimates.items():
                figures[f"change_auroc_{name}"] = float(roc_auc_score(truth[judged], values.cpu().numpy()[judged]))
        labelled = (state.label.cpu().numpy() == CHANGED) & judged
        right = int((labelled & truth).sum())
        if labelled.any():
            figures["change_precision"] = right / int(labelled.sum())
        if truth[judged].any():
            figures["change_recall"] = right / int(truth[judged].sum())
        return figures
