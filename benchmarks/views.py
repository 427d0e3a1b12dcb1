"""How many CPU-seconds a sample's four views cost: packed images and the compiled kernel, against the usual way.

The usual way (as the published loaders do it): per sample, open one GeoTIFF per band and date with rasterio, stretch, then
torchvision's transforms on Pillow images. Both sides make CACo's views (query, augmented key, plain key, augmented query) of the
same chips on one thread, interleaved; the figure is the ratio of CPU times, so that other load on the machine does not enter.
Files are in the page cache.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import torch
from PIL import Image, ImageFilter
from torchvision import transforms

from caco_assets.pretraining.encoder.stretch import Stretch
from caco_assets.pretraining.loading.cpu_loader import Loader
from caco_assets.pretraining.loading.sampler import Sampler
from caco_assets.pretraining.pack.build import build
from caco_assets.pretraining.views.view_plans import PLANS

BAR = 10.0
BANDS = ("B04", "B03", "B02")
SIDE, SEASONS, BATCH = 264, 5, 16
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Chip:
    """One date of one place."""

    location_id: str
    period: int
    season: int
    lon: float
    lat: float
    pixels: np.ndarray


def make_chip(place: int, period: int, season: int) -> Chip:
    """A smooth scene with noise: compresses about as land does."""
    generator = np.random.default_rng((place, period, season))
    coarse = generator.integers(0, 256, (3, 12, 12), dtype=np.uint8)
    smooth = np.stack([np.asarray(Image.fromarray(band).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for band in coarse])
    reflectance = smooth.astype(int) * 10 + generator.integers(0, 200, smooth.shape)
    return Chip(f"L{place:07d}", period, season, 0.0, 0.0, reflectance.astype(np.uint16))


def write(folder: Path, places: int) -> None:
    """The same chips twice: a pack, and one GeoTIFF of uint8 = reflectance × 255 per band and date."""
    chips = [make_chip(place, period, season) for place in range(places) for period in range(2) for season in range(SEASONS)]
    options = {"bands": BANDS, "archive_bands": BANDS, "stretch": "seco", "chip_size": SIDE, "seasons": SEASONS}
    build(chips, folder / "pack", **options, min_seasons=SEASONS, total=len(chips))
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": SIDE, "width": SIDE, "compress": "deflate"}
    profile |= {"crs": "EPSG:32631", "transform": rasterio.transform.from_origin(500_000, 5_000_000, 10, 10)}
    for chip in chips:
        date = folder / "tif" / chip.location_id / f"p{chip.period}s{chip.season}"
        date.mkdir(parents=True)
        for band, pixels in zip(BANDS, chip.pixels, strict=True):
            with rasterio.open(date / f"{band}.tif", "w", **profile) as file:
                file.write(np.rint(np.minimum(pixels / 10_000, 1) * 255).astype(np.uint8), 1)


class Blur:
    """Pillow's Gaussian blur with a random sigma."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator

    def __call__(self, image: Image.Image) -> Image.Image:
        """The blurred image."""
        return image.filter(ImageFilter.GaussianBlur(self.generator.uniform(0.1, 2.0)))


def usual_way(folder: Path, places: int, size: int) -> Callable[[int], float]:
    """A function that makes the views of n samples and returns the CPU-seconds that took."""
    generator = np.random.default_rng(0)
    stretch = Stretch.named("seco", BANDS)
    low, high = np.array(stretch.low), np.array(stretch.high)
    crop = transforms.RandomResizedCrop(size, scale=(0.2, 1.0))
    tensor = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    augment = transforms.Compose(
        [
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            transforms.RandomGrayscale(0.2),
            transforms.RandomApply([Blur(generator)], p=0.5),
            transforms.RandomHorizontalFlip(),
        ]
    )

    def read(place: int, period: int, season: int) -> Image.Image:
        date = folder / "tif" / f"L{place:07d}" / f"p{period}s{season}"
        bands = []
        for band in BANDS:
            with rasterio.open(date / f"{band}.tif") as file:
                bands.append(file.read(1))
        stretched = np.clip((np.stack(bands, axis=-1) - low) / (high - low) * 255, 0, 255).astype(np.uint8)
        return Image.fromarray(stretched)

    def run(samples: int) -> float:
        start = time.process_time()
        for sample in range(samples):
            dates = [read(sample // 2 % places, sample % 2, season) for season in generator.choice(SEASONS, 3, replace=False)]
            views = [crop(dates[0]), crop(augment(dates[1])), crop(dates[2]), crop(augment(dates[0]))]
            torch.stack([tensor(view) for view in views])
        return time.process_time() - start

    return run


def our_way(folder: Path, size: int) -> Callable[[int], float]:
    """The same for the loader, batch by batch."""
    sampler = Sampler(folder / "pack", PLANS["caco"], batch_size=BATCH, image_size=size, crop_scale=(0.2, 1.0), seed=0)
    loader = Loader(sampler, threads=1)
    epochs = iter(range(1_000_000))

    def run(samples: int) -> float:
        start, made = time.process_time(), 0
        while made < samples:
            for batch in loader.epoch(next(epochs)):
                made += len(batch.slots)
        return (time.process_time() - start) * samples / made

    return run


def measure(folder: Path, places: int, size: int, repeats: int) -> list[float]:
    """Ratios of CPU time, theirs over ours, one for each interleaved repeat."""
    theirs, ours = usual_way(folder, places, size), our_way(folder, size)
    samples = 2 * places
    theirs(2)
    ours(samples)
    ratios = []
    for _ in range(repeats):
        a, b = theirs(samples), ours(4 * samples) / 4
        ratios.append(a / b)
        print(f"{size:3d} px  usual {1e3 * a / samples:6.2f} ms  ours {1e3 * b / samples:5.2f} ms  per sample  ratio {a / b:5.1f}")
    return ratios


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer places and repeats")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    places, repeats = (8, 3) if quick else (16, 7)
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as scratch:
        write(Path(scratch), places)
        measure(Path(scratch), places, 64, repeats)
        ratios = measure(Path(scratch), places, 224, repeats)
    ratio = statistics.median(ratios)
    line = {"benchmark": "views", "ratio": ratio, "low": min(ratios), "high": max(ratios), "bar": BAR, "pass": ratio >= BAR}
    print(json.dumps({key: round(value, 2) if isinstance(value, float) else value for key, value in line.items()}))
    return 0 if line["pass"] else 1


if __name__ == "__main__":
    sys.exit(main())
