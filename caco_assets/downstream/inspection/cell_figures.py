"""Plots for one cell of the evaluation matrix: confusion, per-class scores, and example masks of a decoder."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from caco_assets.downstream.datasets.image_decoding import IGNORE
from caco_assets.downstream.datasets.segmentation import DenseImages
from caco_assets.pretraining.encoder.preprocessing import RGB, PixelFormat

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIMIT = 150_000
"""Maximum bytes of a plot: the event log stores it as base64, which is a third longer."""
_DPI = 90
_COUNTS_SHOWN = 15
"""Above this number of classes, counts do not fit into their cells."""
_PALETTE = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#edc948", "#b07aa1", "#9c755f", "#ff9da7", "#bab0ac")
_NOT_COUNTED = "#e5e7eb"
_FOUND, _INVENTED, _MISSED, _CALM = "#ffffff", "#e15759", "#4e79a7", "#111827"
"""Change: true positive, false positive, false negative, true negative."""


def confusion_picture(counts: np.ndarray, classes: Sequence[str], title: str) -> bytes:
    """PNG of a confusion (K, K): truth in rows, prediction in columns; shares of the truth as shades, counts as numbers."""
    from matplotlib.figure import Figure

    size, shares = len(classes), counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.6 + 0.42 * size
    figure = Figure(figsize=(max(side + 0.6, 4.6), side), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(shown, ax=axes, shrink=0.7, label="share of the true class")
    axes.set_xticks(range(size), [str(name) for name in classes], rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(size), [str(name) for name in classes], fontsize=8)
    axes.set(xlabel="predicted", ylabel="true")
    figure.suptitle(title, fontsize=9)
    if size <= _COUNTS_SHOWN:
        for i, j in np.ndindex(size, size):
            if counts[i, j]:
                axes.text(
                    j,
                    i,
                    _short(int(counts[i, j])),
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white" if shares[i, j] > 0.6 else "black",
                )
    return small_png(figure)


def classes_picture(records: Sequence[Mapping[str, Any]], figure_name: str, title: str) -> bytes:
    """PNG bar chart: one score per class, with the number of its test images."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 1.2 + 0.24 * len(records)), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    values = [record[figure_name] for record in records]
    axes.barh(range(len(records)), [value or 0.0 for value in values], color=_PALETTE[0])
    axes.set_yticks(range(len(records)), [f"{record['class']} ({record['images']})" for record in records], fontsize=7)
    for place, value in enumerate(values):
        axes.text((value or 0) + 0.01, place, "no test image" if value is None else f"{value:.2f}", va="center", fontsize=7)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.12), xlabel=figure_name.replace("_", " "))
    axes.set_title(title, fontsize=9)
    return small_png(figure)


def masks_picture(data: DenseImages, answers: Mapping[str, np.ndarray], cache: Path, title: str) -> bytes | None:
    """PNG of a few test tiles: image (two for change), truth, and prediction.

    Args:
        data: the task's, cut into tiles.
        answers: name of a tile → (H, W) uint8 classes.
        cache: folder of decoded tiles (see `DenseImages.arrays`).
        title: of the plot.

    Returns:
        None when none of the tiles is in the test part.
    """
    from matplotlib.figure import Figure

    images, masks = data.arrays("test", cache)
    position = {tile.name: number for number, tile in enumerate(data.parts["test"])}
    known = [name for name in answers if name in position]
    if not known:
        return None
    headings = [*(("before", "after") if data.dates == 2 else ("image",)), "truth", "prediction"]
    figure = Figure(figsize=(1.9 * len(headings), 2.0 * len(known) + 0.9), dpi=_DPI, layout="constrained")
    panels = np.asarray(figure.subplots(len(known), len(headings), squeeze=False))
    for line, name in enumerate(known):
        truth = np.asarray(masks[position[name]])
        shown = [*natural_colors(np.asarray(images[position[name]]), data.pixel_format), *_masks(data, truth, answers[name])]
        for panel, picture in zip(panels[line], shown, strict=True):
            panel.imshow(picture, interpolation="nearest")
            panel.set_axis_off()
        label = {"facecolor": "black", "alpha": 0.6, "pad": 1.5, "linewidth": 0}
        place = {"transform": panels[line][0].transAxes, "va": "bottom"}
        panels[line][0].text(0.02, 0.02, name, fontsize=6, color="white", bbox=label, **place)
    for panel, heading in zip(panels[0], headings, strict=True):
        panel.set_title(heading, fontsize=8)
    _legend(figure, data)
    figure.suptitle(title, fontsize=9)
    return small_png(figure)


def natural_colors(images: np.ndarray, fmt: PixelFormat) -> np.ndarray:
    """(T, H, W, 3) uint8 of (T, C, H, W): RGB if there are such bands, else the first; all dates alike."""
    bands = RGB if all(band in fmt.bands for band in RGB) else (fmt.bands * 3)[:3]
    chosen = images[:, [fmt.bands.index(band) for band in bands]].astype(np.float32)
    low, high = np.percentile(chosen, [2, 98])
    scaled = (chosen - low) / max(high - low, 1e-6)
    return (np.clip(scaled, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)


def small_png(figure: Figure) -> bytes:
    """A figure as PNG of at most `LIMIT` bytes, with fewer colours, then fewer pixels, if needed."""
    for dpi in (_DPI, 76, 64, 54, 45, 38, 32):
        stream = io.BytesIO()
        figure.savefig(stream, dpi=dpi, format="png", metadata={"Software": None})
        png = stream.getvalue() if stream.tell() <= LIMIT else _fewer_colors(stream)
        if len(png) <= LIMIT:
            break
    return png


def _fewer_colors(stream: io.BytesIO) -> bytes:
    """Reduce to 256 colours, always including those of the legend."""
    from PIL import Image

    image, palette, smaller = Image.open(stream).convert("RGB"), Image.new("P", (1, 1)), io.BytesIO()
    fixed = [int(part) for color in (*_PALETTE, _NOT_COUNTED, _FOUND, _INVENTED, _MISSED, _CALM) for part in _rgb(color)]
    free = 256 - len(fixed) // 3
    palette.putpalette([*(image.quantize(free).getpalette() or [])[: 3 * free], *fixed])
    image.quantize(palette=palette, dither=Image.Dither.NONE).save(smaller, "PNG", optimize=True)
    return smaller.getvalue()


def _masks(data: DenseImages, truth: np.ndarray, answer: np.ndarray) -> list[np.ndarray]:
    """Truth and prediction as colours (H, W, 3) uint8."""
    if data.dates == 2:
        drawn = np.where(truth[..., None] == 1, _rgb(_FOUND), _rgb(_CALM)).astype(np.uint8)
        compared = np.full((*truth.shape, 3), _rgb(_CALM), np.uint8)
        compared[(answer == 1) & (truth == 1)] = _rgb(_FOUND)
        compared[(answer == 1) & (truth == 0)] = _rgb(_INVENTED)
        compared[(answer == 0) & (truth == 1)] = _rgb(_MISSED)
    else:
        table = np.array([_rgb(_PALETTE[number % len(_PALETTE)]) for number in range(256)], np.uint8)
        drawn, compared = table[truth], table[answer]
    for mask in (drawn, compared):
        mask[truth == IGNORE] = _rgb(_NOT_COUNTED)
    return [drawn, compared]


def _legend(figure: Figure, data: DenseImages) -> None:
    from matplotlib.patches import Patch

    if data.dates == 2:
        named = [("change, found", _FOUND), ("not found", _MISSED), ("found where there is none", _INVENTED), ("no change", _CALM)]
    else:
        named = [(name, _PALETTE[number % len(_PALETTE)]) for number, name in enumerate(data.classes)]
    named.append(("not counted", _NOT_COUNTED))
    patches = [Patch(facecolor=color, edgecolor="#6b7280", linewidth=0.4, label=name) for name, color in named]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, fontsize=7, frameon=False)


def _rgb(color: str) -> np.ndarray:
    return np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)], np.uint8)


def _short(count: int) -> str:
    """A count in at most four characters: 983, 9.8k, 12M."""
    for size, letter in ((10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.0f}{letter}" if count >= 10 * size else f"{count / size:.1f}{letter}"
    return str(count)
