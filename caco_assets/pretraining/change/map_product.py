"""The product `change_maps`: a change map, a score and a label for each place of a pack, pictures, and figures against truth."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from caco_assets.core.errors import UserError
from caco_assets.core.products import Facts
from caco_assets.core.progress import Progress
from caco_assets.pretraining.change.change_map import STRIDE, first_level, map_change, pixel_baselines, place_images, place_score
from caco_assets.pretraining.change.estimate import CHANGED, Labelling, label_changes
from caco_assets.pretraining.change.ground_truth import MaskTruth
from caco_assets.pretraining.change.map_figures import cell_average_precision, cell_f1, place_auroc
from caco_assets.pretraining.change.map_pictures import draw_map_gallery, draw_scores
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.pretraining.pack.format import Pack

logger = logging.getLogger(__name__)

TABLE, TAR, FIGURES, GALLERY, HISTOGRAM = "change_maps.parquet", "maps.tar", "figures.json", "gallery.png", "histogram.png"
OURS, BASELINES = "change_map", ("pixel_mean", "pixel_min")
SCHEMA = pa.schema(
    {
        "location_id": pa.string(),
        "lon": pa.float64(),
        "lat": pa.float64(),
        "score": pa.float32(),
        "score_low": pa.float32(),
        "score_high": pa.float32(),
        "label": pa.int8(),
        "early_dates": pa.int8(),
        "late_dates": pa.int8(),
        "pixel_mean": pa.float32(),
        "pixel_min": pa.float32(),
        "offset": pa.int64(),
        "length": pa.int64(),
        "reason": pa.string(),
    }
)
"""Of the table, one row per place. `label`: 1 changed, 0 unchanged, -1 without a map, and then `reason` says why. `offset` and
`length` locate the place's GeoTIFF in the tar; null if its chips have no georeference."""
WriteTar = Callable[[Path, Mapping[str, NDArray[np.float32]]], Mapping[str, tuple[int, int]]]
"""Writes maps (location_id → cells) as a tar of GeoTIFFs; returns offset and length of each."""


@dataclass(frozen=True)
class Mapped:
    """One place."""

    place: int
    """Its row in the pack."""
    cells: NDArray[np.float32]
    """(h, w) change map."""
    interval: tuple[float, float]
    pixels: Mapping[str, NDArray[np.float32]]
    """Maps of the pixel baselines, on the same cells."""
    pixel_scores: Mapping[str, float]


def write_change_maps(
    folder: Path, encoder: Encoder, pack: Pack, *, truth: MaskTruth | None, write_tar: WriteTar, seed: int
) -> Facts:
    """Write table, tar of maps, figures and pictures into the new folder `folder`.

    Args:
        folder: created.
        encoder: its first feature level makes the maps; an architecture without feature levels leaves them to the pixels, which is
            logged and recorded.
        pack: source of the pixels.
        truth: for the figures; nothing else reads it.
        write_tar: writes the maps as GeoTIFFs.
        seed: of the mixture and of the intervals.

    Returns:
        Counts, threshold and, with truth, the figures.

    Raises:
        UserError: the pack lacks a band of the encoder, or a mask of the truth cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    levels = _with_levels(encoder, pack)
    mapped, reasons = _map_places(levels, pack, pack.channels(encoder.preprocessing.bands))
    scores = np.array([place_score(one.cells) for one in mapped])
    # scores are ratios: their logarithm is closer to two normal distributions
    labelling = label_changes(np.log(np.maximum(scores, 1e-6)), np.ones(len(scores), bool), seed=seed, monotone=True)
    threshold = float(np.exp(labelling.threshold))
    ranges = write_tar(folder / TAR, {pack.location_id[one.place]: one.cells for one in mapped})
    pixel_scores = {name: np.array([one.pixel_scores[name] for one in mapped]) for name in BASELINES}
    pq.write_table(_table(pack, mapped, scores, labelling, pixel_scores, ranges, reasons), folder / TABLE)
    figures: dict[str, Any] = {"threshold": threshold if np.isfinite(threshold) else None}
    if truth is not None and mapped:
        figures |= _figures(truth, pack, mapped, scores, pixel_scores, threshold, seed)
    (folder / FIGURES).write_text(json.dumps(figures, indent=1) + "\n")
    draw_scores(folder / HISTOGRAM, scores, labelling)
    draw_map_gallery(folder / GALLERY, pack, [(one.place, one.cells) for one in mapped], threshold, truth)
    changed = int((labelling.label == CHANGED).sum())
    counts = {"places": pack.count, "mapped": len(mapped), "changed": changed, "georeferenced": len(ranges)}
    for reason in sorted(set(reasons.values())):
        logger.warning(f"change maps: {list(reasons.values()).count(reason)} of {pack.count} places have none: {reason}")
    flat = {name: value["value"] for name, value in figures.items() if isinstance(value, dict) and "value" in value}
    plain = {name: value for name, value in figures.items() if isinstance(value, float)}
    return {"source": "pixels" if levels is None else "encoder", **counts, **plain, **flat}


def _with_levels(encoder: Encoder, pack: Pack) -> Encoder | None:
    """The encoder, or None if its architecture has no feature levels."""
    try:
        first_level(encoder.eval(), np.zeros((1, len(encoder.preprocessing.bands), pack.chip_size, pack.chip_size), np.uint8))
    except UserError as error:
        logger.warning(f"change maps: made from pixels, not from the encoder: {error}")
        return None
    return encoder


def _map_places(encoder: Encoder | None, pack: Pack, channels: list[int]) -> tuple[list[Mapped], dict[int, str]]:
    """The places that can be mapped, and the reason for each other one."""
    mapped, reasons = [], {}
    progress = Progress("change maps", pack.count, "places")
    for place in range(pack.count):
        images, period = place_images(pack, place, channels)
        found = map_change(encoder, images, period)
        if found is None:
            reasons[place] = "a period without a date, or no period with two dates: seasons cannot be told from change"
        else:
            plain = pixel_baselines(images, period)
            pixels = {name: _on_cells(one.pixels) for name, one in plain.items()}
            pixel_scores = {name: one.score for name, one in plain.items()}
            mapped.append(Mapped(place, found.cells, (found.low, found.high), pixels, pixel_scores))
        progress.advance()
    progress.close()
    return mapped, reasons


def _on_cells(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    return F.avg_pool2d(torch.from_numpy(pixels)[None, None], STRIDE)[0, 0].numpy()


def _table(
    pack: Pack,
    mapped: list[Mapped],
    scores: NDArray[np.float64],
    labelling: Labelling,
    pixel_scores: Mapping[str, NDArray[np.float64]],
    ranges: Mapping[str, tuple[int, int]],
    reasons: Mapping[int, str],
) -> pa.Table:
    at = {one.place: number for number, one in enumerate(mapped)}
    rows = []
    for place, location_id in enumerate(pack.location_id):
        early, late = (int(count) for count in pack.valid[place].sum(1))
        row: dict[str, Any] = {"location_id": location_id, "early_dates": early, "late_dates": late, "label": -1}
        row["lon"], row["lat"] = pack.lonlat[place].tolist()
        row["reason"] = reasons.get(place)
        if (number := at.get(place)) is not None:
            row |= {"score": scores[number], "label": int(labelling.label[number])}
            row["score_low"], row["score_high"] = mapped[number].interval
            row |= {name: values[number] for name, values in pixel_scores.items()}
            row["offset"], row["length"] = ranges.get(location_id, (None, None))
        rows.append(row)
    return pa.Table.from_pylist(rows, SCHEMA)


def _figures(
    truth: MaskTruth,
    pack: Pack,
    mapped: list[Mapped],
    scores: NDArray[np.float64],
    pixel_scores: Mapping[str, NDArray[np.float64]],
    threshold: float,
    seed: int,
) -> dict[str, Any]:
    """AUROC of places and average precision and F1 of cells, beside the pixel baselines; AUROC by kind of event."""
    known = np.array([pack.location_id[one.place] in truth.changed for one in mapped])
    names = [pack.location_id[one.place] for one, there in zip(mapped, known, strict=True) if there]
    changed = np.array([truth.changed[name] for name in names], bool)
    ours = scores[known]
    places = place_auroc(changed, {OURS: ours, **{name: values[known] for name, values in pixel_scores.items()}}, seed)
    figures: dict[str, Any] = {f"place_auroc_{name}": asdict(value) for name, value in places.items()}
    called = ours > threshold
    figures["place_precision"] = float(changed[called].mean()) if called.any() else 0.0
    figures["place_recall"] = float(called[changed].mean()) if changed.any() else 0.0
    kinds = np.array([truth.kind.get(name, "") for name in names])
    figures["kinds"] = {
        kind: {"places": int((kinds == kind).sum()), "found": float(called[kinds == kind].mean())}
        for kind in sorted({str(kind) for kind in kinds[changed]} - {""})
    }
    masked = [(one, mask) for one in mapped if (mask := truth.mask(pack.location_id[one.place], _shape(one))) is not None]
    if masked:
        masks = [mask for _, mask in masked]
        maps = {OURS: [one.cells for one, _ in masked]}
        maps |= {name: [one.pixels[name] for one, _ in masked] for name in pixel_scores}
        precision = cell_average_precision(masks, maps, seed)
        figures |= {f"cell_ap_{name}": asdict(value) for name, value in precision.items()}
        figures["cell_f1"] = cell_f1(masks, maps[OURS], threshold)
    return figures


def _shape(one: Mapped) -> tuple[int, int]:
    height, width = one.cells.shape
    return height, width
