"""Figures of the places: a map, and their distribution over countries, latitudes and distances to their city."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from caco_assets.sampling.sphere import Floats

DOTS = 20_000
"""More places than this are counted in cells: dots would hide each other, and a million take long to draw."""
CELL_DEGREES = 0.5
CLOSE_UP_DEGREES = 12.0
"""Places that span less than this are shown a second time, enlarged."""
TOP_COUNTRIES = 20
_PLACE, _BAR, _REST = "#c2410c", "#0f766e", "#94a3b8"


def world_map(locations: Path) -> bytes:
    """The places of `locations.parquet` on a map of the world (and, if they are close together, enlarged), as PNG bytes."""
    from matplotlib.figure import Figure

    from caco_assets.sampling.land import coarse_land

    lon, lat = (_read(locations, "lon", "lat")[name] for name in ("lon", "lat"))
    figure = Figure(figsize=(12, 6), dpi=100, layout="constrained")
    near = np.ptp(lon) < CLOSE_UP_DEGREES and np.ptp(lat) < CLOSE_UP_DEGREES
    axes = figure.add_subplot(1, 3, (1, 2)) if near else figure.add_subplot()
    axes.imshow(coarse_land(), extent=(-180, 180, -90, 90), cmap="Greys", vmin=0, vmax=4, interpolation="nearest")
    if len(lon) > DOTS:
        _density(figure, axes, lon, lat)
    else:
        # many places need small, pale dots to show where they are dense
        axes.scatter(lon, lat, s=float(np.clip(4000 / len(lon), 0.5, 12)), c=_PLACE, linewidths=0, alpha=0.8)
    axes.set(xlim=(-180, 180), ylim=(-90, 90), xlabel="longitude (°)", ylabel="latitude (°)", title=f"{len(lon):,} places")
    if near:
        _close_up(figure.add_subplot(1, 3, 3), lon, lat)
    return _png(figure)


def spread(locations: Path) -> bytes:
    """Places by country, by latitude (compared with equal density on the sphere) and by distance to their city, as PNG."""
    from matplotlib.figure import Figure

    table = _read(locations, "lat", "country", "distance_km")
    figure = Figure(figsize=(12, 5.4), dpi=100, layout="constrained")
    country, latitude, distance = figure.subplots(1, 3, width_ratios=(1.15, 1, 1))
    _countries(country, table["country"])
    _latitudes(latitude, table["lat"])
    _distances(distance, table["distance_km"])
    return _png(figure)


def _density(figure: Figure, axes: Axes, lon: Floats, lat: Floats) -> None:
    """Places per cell in colors of a logarithmic scale; empty cells show the land below."""
    from matplotlib.colors import LogNorm

    shape = (round(180 / CELL_DEGREES), round(360 / CELL_DEGREES))
    counts, _, _ = np.histogram2d(lat, lon, shape, ((-90, 90), (-180, 180)))
    shown = np.ma.masked_equal(counts, 0)
    picture = axes.imshow(
        shown,
        origin="lower",
        extent=(-180, 180, -90, 90),
        cmap="inferno_r",
        norm=LogNorm(1, max(counts.max(), 2)),
        interpolation="nearest",
    )
    figure.colorbar(picture, ax=axes, label=f"places in a cell of {CELL_DEGREES:g}°", shrink=0.8, pad=0.01)


def _close_up(axes: Axes, lon: Floats, lat: Floats) -> None:
    axes.scatter(lon, lat, s=8, c=_PLACE, linewidths=0, alpha=0.8)
    # a kilometer has the same length in both directions
    axes.set_aspect(1 / max(float(np.cos(np.radians(lat.mean()))), 0.01), adjustable="datalim")
    axes.ticklabel_format(useOffset=False)
    axes.locator_params(nbins=4)
    axes.set(xlabel="longitude (°)", ylabel="latitude (°)", title="enlarged")


def _countries(axes: Axes, country: Any) -> None:
    names, counts = np.unique(np.where(country == "", "none", country), return_counts=True)
    order = np.lexsort((names, -counts))[:TOP_COUNTRIES]
    labels, sizes, colors = names[order].tolist(), counts[order].tolist(), [_BAR] * len(order)
    if rest := int(counts.sum()) - sum(sizes):
        labels, sizes, colors = [*labels, f"{len(names) - len(order)} others"], [*sizes, rest], [*colors, _REST]
    shares = 100 * np.array(sizes) / counts.sum()
    axes.barh(np.arange(len(labels)), shares, color=colors)
    axes.set_yticks(np.arange(len(labels)), labels, fontsize=8)
    axes.set_ylim(max(len(labels), TOP_COUNTRIES // 2) - 0.4, -0.6)
    axes.set(xlabel="share of the places (%)", title=f"{len(names)} countries")


def _latitudes(axes: Axes, lat: Floats) -> None:
    edges = np.arange(-90, 91, 5)
    share = 100 * np.histogram(lat, edges)[0] / len(lat)
    axes.barh(edges[:-1] + 2.5, share, height=4.6, color=_BAR, label="places")
    even = 50 * np.diff(np.sin(np.radians(edges)))
    axes.stairs(even, edges, orientation="horizontal", color=_REST, linewidth=1.5, label="area of the sphere")
    axes.set(
        ylim=(-90, 90), yticks=np.arange(-90, 91, 30), ylabel="latitude (°)", xlabel="share of the places (%)", title="Latitude"
    )
    axes.legend(loc="lower right", framealpha=0.9, edgecolor="none", fontsize=8)


def _distances(axes: Axes, distance: Floats) -> None:
    # a few places far from every city must not squeeze the rest into one bar
    top = max(float(np.quantile(distance, 0.995)), 0.1)
    counts, edges = np.histogram(distance, 40, (0, top))
    axes.stairs(100 * counts / len(distance), edges, fill=True, color=_BAR)
    axes.margins(y=0.12)  # space for the labels
    middle = float(np.median(distance))
    axes.axvline(middle, color=_PLACE, linewidth=1.2)
    side = -1 if middle > top / 2 else 1
    axes.annotate(
        f"half within {middle:.3g} km",
        (middle, 0.97),
        (4 * side, 0),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        ha="left" if side > 0 else "right",
        fontsize=8,
        color=_PLACE,
    )
    axes.set(xlim=(0, top), xlabel="km to its city (99.5 % of the places)", ylabel="share of the places (%)", title="Distance")


def _read(locations: Path, *columns: str) -> dict[str, Any]:
    import pyarrow.parquet as pq

    table = pq.read_table(locations, columns=list(columns))
    return {name: table[name].to_numpy() for name in columns}


def _png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
