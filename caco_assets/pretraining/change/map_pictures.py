"""Pictures of the change maps: a histogram of the scores, and maps over the chips that they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from caco_assets.pretraining.change.change_map import place_score
from caco_assets.pretraining.change.estimate import CHANGED, Labelling
from caco_assets.pretraining.change.gallery import Stretched, pick_dates, shown_bands
from caco_assets.pretraining.pack.format import Pack

if TYPE_CHECKING:
    from caco_assets.pretraining.change.ground_truth import MaskTruth

_EACH = 4
"""Places shown of each kind."""
_BINS = 50


def draw_scores(path: Path, scores: NDArray[np.floating], labelling: Labelling) -> None:
    """Draw the place scores as a histogram on a logarithmic axis, with the threshold, and write a PNG to `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    positive = scores[scores > 0]
    if len(positive):
        bins = np.geomspace(positive.min(), max(positive.max(), positive.min() * 1.01), _BINS)
        changed = labelling.label[scores > 0] == CHANGED
        groups = [(positive[~changed], "0.65", "unchanged"), (positive[changed], "#c23b22", "changed")]
        for values, colour, name in groups:
            axes.hist(values, bins=bins.tolist(), color=colour, label=f"{name}: {len(values)}")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    threshold = float(np.exp(labelling.threshold))
    if np.isfinite(threshold):
        axes.axvline(threshold, color="k", linestyle="--", label=f"threshold {threshold:.3g}")
    axes.set_xlabel("change score of a place (times the change of its seasons)")
    axes.set_ylabel("places")
    axes.legend()
    figure.savefig(path, dpi=100, metadata={"Software": None})


def draw_map_gallery(
    path: Path,
    pack: Pack,
    maps: list[tuple[int, NDArray[np.float32]]],
    threshold: float,
    truth: MaskTruth | None,
) -> None:
    """Draw early and late chip, change map and, where known, the true mask of some places, and write a PNG to `path`.

    Shown are the highest scores, the scores next to the threshold on both sides, and, with truth, what was missed and what was
    called changed wrongly.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    blocks = _blocks(pack, maps, threshold, truth)
    rows = [(title if not number else "", *one) for title, ones in blocks for number, one in enumerate(ones)]
    columns = 3 if truth is None else 4
    figure = Figure(figsize=(2.0 * columns + 0.2, 2.25 * max(len(rows), 1) + 0.3), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    bands = shown_bands(pack.bands)
    channels = [pack.bands.index(band) for band in bands]
    if rows:
        pairs = [_pair(pack, place, channels) for _, place, _ in rows]
        stretched = Stretched.of([image for pair in pairs for image in pair])
        grid: Any = figure.subplots(len(rows), columns, squeeze=False)
        top = max(2 * threshold if np.isfinite(threshold) else 0.0, 1e-6)
        for line, (title, place, cells), pair in zip(grid, rows, pairs, strict=True):
            name = pack.location_id[place]
            pictures = [stretched(pair[0]), stretched(pair[1])]
            for axes, picture, label in zip(line, pictures, (f"{title}\n{name} early", "late"), strict=False):
                axes.imshow(picture, interpolation="nearest")
                axes.set_title(label, fontsize=8, loc="left")
            line[2].imshow(cells, cmap="inferno", vmin=0, vmax=top, interpolation="nearest")
            line[2].set_title(f"map, score {place_score(cells):.2f}", fontsize=8, loc="left")
            if truth is not None:
                height, width = cells.shape
                mask = truth.mask(name, (height, width))
                if mask is not None:
                    line[3].imshow(mask, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                line[3].set_title(f"truth: {truth.kind.get(name) or 'no change'}", fontsize=8, loc="left")
            for axes in line:
                axes.set_axis_off()
    figure.set_dpi(80)
    canvas.draw()
    # a palette fitted to the colours cuts the size to a third: the event log and the report embed the file
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).quantize(256, kmeans=1).save(path, "PNG", optimize=True)


def _blocks(
    pack: Pack, maps: list[tuple[int, NDArray[np.float32]]], threshold: float, truth: MaskTruth | None
) -> list[tuple[str, list[tuple[int, NDArray[np.float32]]]]]:
    """Title and places of each group of the gallery; a place is shown once."""
    ranked = sorted(maps, key=lambda one: -place_score(one[1]))
    blocks = [("highest scores", ranked[:_EACH])]
    if truth is None:
        near = sorted(ranked[_EACH:], key=lambda one: abs(np.log(max(place_score(one[1]), 1e-6) / max(threshold, 1e-6))))
        return [*blocks, ("nearest to the threshold", near[:_EACH])] if np.isfinite(threshold) else blocks
    known = [one for one in ranked[_EACH:] if pack.location_id[one[0]] in truth.changed]
    missed = [one for one in known if truth.changed[pack.location_id[one[0]]] and place_score(one[1]) <= threshold]
    wrong = [one for one in known if not truth.changed[pack.location_id[one[0]]] and place_score(one[1]) > threshold]
    return [*blocks, ("missed", missed[::-1][:_EACH]), ("called changed wrongly", wrong[:_EACH])]


def _pair(pack: Pack, place: int, channels: list[int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    early, late = pick_dates(pack.valid[place])
    return pack.image(place, 0, early)[:, :, channels], pack.image(place, 1, late)[:, :, channels]
