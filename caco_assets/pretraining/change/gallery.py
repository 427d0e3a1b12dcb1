"""Gallery of the places that changed most and least, early beside late, to check the change estimate by eye."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from caco_assets.pretraining.change.estimate import CHANGED, UNSEEN, ChangeState
from caco_assets.pretraining.pack.format import Pack

if TYPE_CHECKING:
    from caco_assets.pretraining.change.ground_truth import ChangeTruth

_COLUMNS, _ROWS = 4, 3
"""Pairs of each kind: twelve show whether the order makes sense and fit a screen."""
# Percentiles of the shown pixels that become black and white: one stretch for all pictures, so that differences stay visible.
_DARK, _BRIGHT = 0.5, 99.5
_COLOURS = (("B04", "B03", "B02"), ("red", "green", "blue"))
_YES, _NO = "#c23b22", "0.35"
# Inches: figure width, headline, block title, row of pairs with its caption.
_WIDTH, _TOP, _TITLE, _PAIR = 13.0, 0.3, 0.42, 1.88


@dataclass(frozen=True)
class Pair:
    """One place of the gallery."""

    place: int
    """Its row in the pack."""
    estimate: float
    """Mean over its two periods."""
    label: str
    season: tuple[int, int]
    """The early and the late date."""


def shown_bands(bands: tuple[str, ...]) -> tuple[str, ...]:
    """Bands shown as red, green and blue: the true colours if the pack has them, else its first three, else one band as grey."""
    return next((colours for colours in _COLOURS if set(colours) <= set(bands)), bands[:3] if len(bands) > 2 else bands[:1])


def pick_dates(valid: NDArray[np.bool_]) -> tuple[int, int]:
    """An early and a late season of a place: the first in common, so that seasons do not look like change, else each first one.

    Args:
        valid: (2, seasons).
    """
    common = np.flatnonzero(valid[0] & valid[1])
    return (int(common[0]), int(common[0])) if len(common) else (int(valid[0].argmax()), int(valid[1].argmax()))


def rank(state: ChangeState, pack: Pack) -> list[Pair]:
    """All places seen in both periods, the most changed first."""
    by_place = state.estimate.cpu().numpy().reshape(-1, 2).mean(axis=1)
    label, seen = state.label.cpu().numpy().reshape(-1, 2), state.seen.cpu().numpy().reshape(-1, 2)
    places = np.flatnonzero((seen > 0).all(axis=1))
    order = places[np.argsort(-by_place[places], kind="stable")]
    return [Pair(int(place), float(by_place[place]), _word(label[place]), pick_dates(pack.valid[place])) for place in order]


def draw_gallery(path: Path, state: ChangeState, pack: Pack, truth: ChangeTruth | None = None) -> int:
    """Draw the most and the least changed places as pairs (left early, right late) and write a PNG to `path`.

    Args:
        path: of the PNG.
        state: estimates and labels of the pack's places.
        pack: source of the pixels.
        truth: written beside each pair where known.

    Returns:
        Number of pairs shown.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    ranked = rank(state, pack)
    each = min(_COLUMNS * _ROWS, len(ranked) // 2)
    blocks = [("most changed", ranked[:each]), ("least changed", ranked[len(ranked) - each :][::-1])]
    rows = max(-(-each // _COLUMNS), 1)
    figure = Figure(figsize=(_WIDTH, _TOP + 2 * (rows * _PAIR + _TITLE)))
    canvas = FigureCanvasAgg(figure)
    bands = shown_bands(pack.bands)
    channels = [pack.bands.index(band) for band in bands]
    height = figure.get_figheight()
    figure.text(0.01, 1 - 0.12 / height, _headline(bands, state, len(ranked)), fontsize=9.5, va="top")
    if each:
        scale = Stretched.of([_crop(pack, pair, period, channels) for _, pairs in blocks for pair in pairs for period in range(2)])
        for block, (title, pairs) in enumerate(blocks):
            top = height - _TOP - block * (rows * _PAIR + _TITLE)  # inches from the bottom
            figure.text(0.01, (top - 0.12) / height, title, fontsize=12, fontweight="bold", va="top")
            for number, pair in enumerate(pairs):
                row, column = divmod(number, _COLUMNS)
                left, bottom = 0.01 + column * 0.99 / _COLUMNS, (top - _TITLE - (row + 1) * _PAIR + 0.05) / height
                axes = figure.add_axes((left, bottom, 0.99 / _COLUMNS - 0.012, (_PAIR - 0.3) / height))
                early, late = (scale(_crop(pack, pair, period, channels)) for period in range(2))
                gap = np.ones((early.shape[0], max(early.shape[1] // 40, 1), 3))
                axes.imshow(np.concatenate([early, gap, late], axis=1), interpolation="nearest", aspect="auto")
                axes.set_axis_off()
                _caption(axes, pair, pack, truth)
    figure.set_dpi(80)
    canvas.draw()
    # a palette fitted to the colours cuts the size to a third: the event log and the report embed the file
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).quantize(256, kmeans=1).save(path, "PNG", optimize=True)
    return 2 * each


@dataclass(frozen=True)
class Stretched:
    """One linear stretch per band for all pictures."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def of(cls, images: list[NDArray[np.uint8]]) -> Stretched:
        """The stretch that suits all of `images`, each (H, W, bands)."""
        pixels = np.concatenate([image[::2, ::2].reshape(-1, image.shape[-1]) for image in images])
        low, high = np.percentile(pixels, (_DARK, _BRIGHT), axis=0)
        return cls(low, np.maximum(high, low + 1))

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(H, W, 3) in 0 … 1; one band becomes grey."""
        scaled = np.clip((image - self.low) / (self.high - self.low), 0, 1)
        return np.repeat(scaled, 3, axis=2) if scaled.shape[2] == 1 else scaled


def _crop(pack: Pack, pair: Pair, period: int, channels: list[int]) -> NDArray[np.uint8]:
    return pack.image(pair.place, period, pair.season[period])[:, :, channels]


def _word(label: NDArray[np.integer]) -> str:
    """One word for the labels of a place's two periods."""
    if (label == UNSEEN).any():
        return "unseen"
    early, late = (int(value) == CHANGED for value in label)
    if early == late:
        return "changed" if early else "unchanged"
    return f"changed ({'early' if early else 'late'})"


def _caption(axes: Any, pair: Pair, pack: Pack, truth: ChangeTruth | None) -> None:
    text = f"{pack.location_id[pair.place]}  {pair.estimate:.2f}  {pair.label}"
    if truth is not None and truth.known[pair.place]:
        text += f", truth: {'changed' if truth.changed[pair.place] else 'unchanged'}"
    axes.set_title(text, fontsize=8, color=_NO if pair.label == "unchanged" else _YES, loc="left", pad=2)
    early, late = pair.season
    if early != late:
        axes.text(0.01, 0.03, f"seasons {early} and {late}", transform=axes.transAxes, fontsize=6.5, color="white")


def _headline(bands: tuple[str, ...], state: ChangeState, count: int) -> str:
    name = "change ratio" if state.by_ratio else "long-term distance"
    colours = f"red, green, blue = {', '.join(bands)}" if len(bands) == 3 else f"grey = {bands[0]}"
    threshold = float(state.threshold)
    split = f"changed from {threshold:.2f} on" if np.isfinite(threshold) else "nothing is labelled changed"
    where = "same season unless said"
    return (
        f"{count} places by {name} (mean of both periods; {split}). Left early, right late, {where}; {colours}, one stretch for all"
    )
