"""True change of places where it is known, and the accuracy of the change estimates; for metrics only, nothing trains on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from caco_assets.core.errors import UserError, one_line
from caco_assets.pretraining.change.estimate import CHANGED, ChangeState


@dataclass(frozen=True)
class MaskTruth:
    """Known change of some places, as masks."""

    changed: Mapping[str, bool]
    """`location_id` → whether the place has truly changed."""
    kind: Mapping[str, str]
    """`location_id` → kind of its largest event; empty where nothing changed or kinds are not known."""
    masks: Mapping[str, Path]
    """`location_id` → npz file with the boolean array `change` (H, W) on the chip's grid."""

    @classmethod
    def read(cls, table: Path) -> MaskTruth:
        """Read a table with `location_id` and `changed`, optionally `kind` and `mask` (a file beside the table).

        Raises:
            UserError: it has other columns or types.
        """
        try:
            columns = [name for name in ("location_id", "changed", "kind", "mask") if name in pq.read_schema(table).names]
            rows = pq.read_table(table, columns=columns).to_pylist()
            changed = {str(row["location_id"]): row["changed"] for row in rows if row["changed"] is not None}
            if odd := next((value for value in changed.values() if not isinstance(value, bool)), None):
                raise ValueError(f"changed={odd!r} is not true or false")
        except (OSError, KeyError, ValueError) as error:
            raise UserError(f"{table}: not a table of true change with `location_id` and `changed` ({one_line(error)})") from error
        kind = {str(row["location_id"]): row.get("kind") or "" for row in rows}
        named = {str(row["location_id"]): table.parent / Path(row["mask"]).name for row in rows if row.get("mask")}
        return cls(changed, kind, {place: path for place, path in named.items() if path.is_file()})

    def mask(self, location_id: str, shape: tuple[int, int]) -> NDArray[np.bool_] | None:
        """The place's mask on a grid of cells (h, w): a cell has changed if at least half of its pixels have; None if unknown.

        Raises:
            UserError: the file is not a mask whose size is a multiple of `shape`.
        """
        if location_id not in self.masks:
            return None
        path = self.masks[location_id]
        try:
            # numpy leaves a damaged archive open when it opens the path itself
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                mask = file["change"]
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise UserError(f"{path}: not a mask of true change ({one_line(error)})") from error
        if mask.dtype != bool or mask.ndim != 2 or any(size % cells for size, cells in zip(mask.shape, shape, strict=True)):
            raise UserError(f"{path}: holds {mask.dtype} {mask.shape}; a boolean mask of a multiple of {shape} is needed")
        (height, width), (h, w) = mask.shape, shape
        return mask.reshape(h, height // h, w, width // w).mean((1, 3)) >= 0.5


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
        truth = MaskTruth.read(path).changed
        known = np.array([place in truth for place in location_id])
        if not known.any():
            raise UserError(f"{path}: names none of the {len(location_id)} places of the pack; it belongs to other imagery")
        return cls(np.array([truth.get(place, False) for place in location_id]), known)

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
