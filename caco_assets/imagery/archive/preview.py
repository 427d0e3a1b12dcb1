"""A preview of the archive: chips of a few places over their dates."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

PLACES = 6
NATURAL = (("B04", "B03", "B02"), ("red", "green", "blue"))


def rgb_bands(bands: Sequence[str]) -> list[str]:
    """The bands to show as red, green and blue."""
    natural = next((names for names in NATURAL if set(names) <= set(bands)), None)
    return list(natural or (bands[:3] if len(bands) >= 3 else [bands[0]] * 3))


def chips_preview(archive: Path, places: int = PLACES) -> bytes:
    """Chips of some places (rows, spread over the archive) over their dates (columns), as PNG bytes.

    Red, green and blue where the archive has them, else its first three bands, else its first in grey; every row is stretched as
    a whole (2nd to 98th percentile of all its dates), so that a change between dates is seen and not stretched away.
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from caco_assets.imagery.archive.shard import band_names, read_chip, read_index, shard_folders

    columns = ["location_id", "period", "season", "datetime", "offset", "length", "sha256"]
    owners: dict[str, list[tuple[Path, dict]]] = {}
    for shard in shard_folders(archive):
        for row in read_index(shard, columns).to_pylist():
            owners.setdefault(row["location_id"], []).append((shard, row))
    names = sorted(owners)
    shown = [names[index] for index in sorted(set(np.linspace(0, len(names) - 1, min(places, len(names))).astype(int).tolist()))]
    dates = sorted({(row["period"], row["season"]) for name in shown for _, row in owners[name]})
    figure = Figure(figsize=(1.3 * max(len(dates), 1) + 0.6, 1.45 * max(len(shown), 1)), dpi=110, layout="constrained")
    if not shown:
        figure.text(0.5, 0.5, "no chips", ha="center")
    grid = figure.subplots(len(shown), len(dates), squeeze=False) if shown else np.empty((0, 0))
    for line, name in zip(grid, shown, strict=True):
        bands = band_names(owners[name][0][0])
        rgb = rgb_bands(bands)
        chips = {(row["period"], row["season"]): (row, read_chip(shard, row, rgb)) for shard, row in owners[name]}
        low, high = np.percentile(np.stack([pixels for _, pixels in chips.values()]), [2, 98])
        line[0].set_ylabel(name, fontsize=6)
        for axes, date in zip(line, dates, strict=True):
            axes.set(xticks=[], yticks=[])
            if date in chips:
                row, pixels = chips[date]
                axes.imshow(np.clip((pixels.transpose(1, 2, 0) - low) / max(high - low, 1), 0, 1))
                axes.set_title(f"{row['datetime']:%Y-%m-%d}", fontsize=6, pad=2)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
