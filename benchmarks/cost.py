"""What a set of a million places downloads, keeps and takes: per-chip figures times the number of chips.

Measured here, on real Sentinel-2 pixels (`CACO_REAL`, the Boadella folder) in the form of providers' files:

* bits per pixel of a band as a COG stores it (deflate with predictor), and as the archive stores it;
* seconds of one core to decode the blocks that a chip touches and to encode the chip.

Computed: a chip of w pixels at a random place of a grid of blocks of b pixels touches (1 + (w - 1) / b)² blocks on average, in 1
+ (w - 1) / b rows, each row being one request; bytes = blocks × b² × bits per pixel. One request more per file reads its index
and is shared by the chips that one scene serves. A date that the scene classification refuses costs its classification alone.

Assumed, and said in the table: what the options say (block, latency, bandwidth, connections, cores, share of refused dates, chips
per scene, and the two prices). With `--requests` and `--bytes` the figures that `ingest.py` measured replace the computed ones.
Money is the machine's hours and the archive's month at the prices given; the providers ask nothing for reading.

This compares nothing: it prints a table, and as its last line one JSON object with the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.io import MemoryFile

from caco_assets.imagery.archive.chip import encode
from caco_assets.imagery.geometry.chip_grid import chip_grids

GSD = dict.fromkeys(("B02", "B03", "B04", "B08"), 10) | dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12"), 20)
GSD |= {"B01": 60, "B09": 60}
SCL_GSD = 20
CHIP, SAMPLE, PLACES = 264, 512, 1_000_000
SCL_BITS = 0.5
"""Bits per pixel of a scene classification in a COG: classes in large areas; an assumption, a tenth of one band's in any case."""


@dataclass(frozen=True)
class Measured:
    """Per-pixel and per-chip figures."""

    cog_bits: dict[str, float]
    """Band → bits per pixel in a COG."""
    chip_bytes: float
    """Of a chip with all bands in the archive."""
    encode_s: float
    """Core seconds to write one."""
    decode_s: float
    """Core seconds to decode the blocks that one touches, all bands."""


def main() -> None:
    """Measure, compute, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--places", type=int, default=PLACES)
    parser.add_argument("--dates", type=int, default=10, help="two periods of five seasons")
    parser.add_argument("--bands", default=",".join(sorted(GSD)), help="separated by commas")
    parser.add_argument("--block", type=int, default=512, help="pixels on a side of a block in the provider's files: see gdalinfo")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds from a request to its first byte")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--bandwidth", type=float, default=1000, help="megabits per second")
    parser.add_argument("--cores", type=int, default=8)
    parser.add_argument("--core-price", type=float, default=0.05, help="of a core for an hour")
    parser.add_argument("--storage-price", type=float, default=23.0, help="of a terabyte for a month")
    parser.add_argument("--refused", type=float, default=0.5, help="dates tried in vain for each chip that is kept")
    parser.add_argument("--chips-per-scene", type=float, default=20, help="that share the indexes of a scene's files")
    parser.add_argument("--requests", type=float, help="per chip, from ingest.py; default computed")
    parser.add_argument("--bytes", type=float, help="per chip, from ingest.py; default computed")
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    options = parser.parse_args()
    bands = tuple(options.bands.split(","))
    measured = measure(bands, options.block, repeats=3 if options.quick else 9)
    requests, size = computed(bands, measured, options)
    requests, size = options.requests or requests, options.bytes or size
    chips = options.places * options.dates
    cpu = measured.encode_s + measured.decode_s
    pace = {
        "latency": options.connections / (options.latency * requests),
        "bandwidth": options.bandwidth * 1e6 / 8 / size,
        "cores": options.cores / cpu,
    }
    slowest = min(pace, key=lambda name: pace[name])
    days, archive_tb = chips / pace[slowest] / 86_400, chips * measured.chip_bytes / 1e12
    rows = [
        ("chips", f"{chips:,}", f"{options.places:,} places × {options.dates} dates"),
        ("requests per chip", f"{requests:.1f}", "ingest.py" if options.requests else f"computed, blocks of {options.block}"),
        ("downloaded per chip", f"{size / 1e6:.2f} MB", "ingest.py" if options.bytes else "computed from measured bits per pixel"),
        ("archived per chip", f"{measured.chip_bytes / 1e6:.2f} MB", "measured"),
        (
            "core time per chip",
            f"{cpu * 1e3:.0f} ms",
            f"measured: decode {measured.decode_s * 1e3:.0f}, encode {measured.encode_s * 1e3:.0f}",
        ),
        ("downloaded", f"{chips * size / 1e12:.1f} TB", ""),
        ("archive", f"{archive_tb:.1f} TB", ""),
        ("requests", f"{chips * requests / 1e6:,.0f} million", ""),
        ("core time", f"{chips * cpu / 3600:,.0f} core hours", ""),
        *((f"chips/s by {name}", f"{value:,.1f}", of_options(name, options)) for name, value in pace.items()),
        ("time", f"{days:.1f} days", f"set by {slowest}"),
        (
            "the machine",
            f"{days * 24 * options.cores * options.core_price:,.0f}",
            f"assumed: {options.core_price:g} a core and hour",
        ),
        ("the archive", f"{archive_tb * options.storage_price:,.0f} a month", f"assumed: {options.storage_price:g} a TB and month"),
    ]
    print("| what | figure | from |\n|---|---|---|")
    for row in rows:
        print("| {} | {} | {} |".format(*row))
    figures = {"requests_per_chip": requests, "bytes_per_chip": size, "archive_bytes_per_chip": measured.chip_bytes}
    print(json.dumps({"benchmark": "cost", **figures, "core_s_per_chip": cpu, "days": days}))


def of_options(name: str, options: argparse.Namespace) -> str:
    """The assumption behind a pace."""
    return {
        "latency": f"assumed: {options.connections} connections, {options.latency * 1e3:.0f} ms per request",
        "bandwidth": f"assumed: {options.bandwidth:g} Mbit/s",
        "cores": f"assumed: {options.cores} cores",
    }[name]


def computed(bands: tuple[str, ...], measured: Measured, options: argparse.Namespace) -> tuple[float, float]:
    """Requests and bytes per kept chip."""
    tries = 1 + options.refused
    rows = [touched(GSD[band], options.block) for band in bands]
    classes = touched(SCL_GSD, options.block)
    index = (len(bands) + tries) / options.chips_per_scene
    pixels = sum(row**2 * measured.cog_bits[band] for band, row in zip(bands, rows, strict=True)) + tries * classes**2 * SCL_BITS
    return sum(rows) + tries * classes + index, pixels * options.block**2 / 8


def touched(gsd: int, block: int) -> float:
    """Rows (and columns) of blocks that a chip meets on average."""
    return 1 + (width(gsd) - 1) / block


def width(gsd: int) -> int:
    """Pixels of a chip's side at a band's resolution."""
    return -(-CHIP * 10 // gsd)


def measure(bands: tuple[str, ...], block: int, repeats: int) -> Measured:
    """Real pixels as COG blocks and as a chip."""
    pixels = {band: layer for band, layer in real_pixels().items() if band in bands}
    bits, decode = {}, 0.0
    for band, layer in pixels.items():
        step = GSD[band] // 10
        # the file's pixels are all at 10 m: every other one has the contrast of a 20 m band, not the smoothness of a mean
        part = layer[::step, ::step]
        tiled = np.tile(part, [-(-SAMPLE // side) for side in part.shape])[:SAMPLE, :SAMPLE]
        data = cog_block(tiled)
        bits[band] = 8 * len(data) / tiled.size
        samples = (touched(GSD[band], block) * block / SAMPLE) ** 2
        decode += samples * median_s(lambda data=data: read(data), repeats)
    (grid,) = chip_grids(np.array([2.815]), np.array([42.347]), CHIP, 10.0)
    chip = np.stack([pixels[band][:CHIP, :CHIP] for band in pixels]).astype(np.uint16)
    return Measured(
        bits, len(encode(chip, tuple(pixels), grid)), median_s(lambda: encode(chip, tuple(pixels), grid), repeats), decode
    )


def real_pixels() -> dict[str, np.ndarray]:
    """Band → one clear date of the Boadella folder."""
    root = Path(os.environ.get("CACO_REAL") or Path(__file__).resolve().parents[2] / "shared" / "real")
    names = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
    with rasterio.open(root / "sentinel2_boadella" / "Boadella_2021-07-16.tif") as raster:
        return dict(zip(names, np.maximum(raster.read(), 0).astype(np.uint16), strict=True))


def cog_block(layer: np.ndarray) -> bytes:
    """A GeoTIFF of one block, compressed as providers do."""
    profile = {
        "driver": "GTiff",
        "dtype": "uint16",
        "count": 1,
        "height": SAMPLE,
        "width": SAMPLE,
        "tiled": True,
        "blockxsize": SAMPLE,
    }
    profile |= {
        "blockysize": SAMPLE,
        "compress": "deflate",
        "predictor": 2,
        "crs": "EPSG:32631",
        "transform": Affine(10, 0, 0, 0, -10, 0),
    }
    with MemoryFile() as memory:
        with memory.open(**profile) as raster:
            raster.write(layer, 1)
        return bytes(memory.getbuffer())


def read(data: bytes) -> None:
    """Decode a block."""
    with MemoryFile(data) as memory, memory.open() as raster:
        raster.read(1)


def median_s(work, repeats: int) -> float:
    """Median CPU seconds of this process."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
