"""A picture of where the places are."""

from __future__ import annotations

import io
from pathlib import Path


def world_map(locations: Path) -> bytes:
    """The places of `locations.parquet` on a map of the world (and, if they are near each other, enlarged), as PNG bytes."""
    import numpy as np
    import pyarrow.parquet as pq
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from caco_assets.sampling.land import coarse_land

    table = pq.read_table(locations, columns=["lon", "lat", "population"])
    lon, lat = (table[name].to_numpy() for name in ("lon", "lat"))
    figure = Figure(figsize=(12, 6), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(coarse_land(), extent=(-180, 180, -90, 90), cmap="Greys", vmin=0, vmax=4, interpolation="nearest")
    # many places need small, pale dots to show where they are dense
    size = float(np.clip(4000 / max(len(lon), 1), 0.5, 12))
    axes.scatter(lon, lat, s=size, c="#c2410c", linewidths=0, alpha=0.8)
    axes.set(xlim=(-180, 180), ylim=(-90, 90), xlabel="longitude (°)", ylabel="latitude (°)", title=f"{len(lon)} places")
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
