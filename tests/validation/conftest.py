"""A small, valid twin of every product, in memory: a test breaks one thing, writes it, and validates."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
from rasterio.io import MemoryFile
from rasterio.transform import from_origin
from shapely.geometry import Point, box

from caco_assets.imagery.scenes.periods import period_windows
from caco_assets.settings import Settings, load_settings

SIZE, SEASONS, BANDS = 32, 3, ("B02", "B03", "B04", "B08")
UTM = 32631  # of Paris, where the twin's places lie


@dataclass
class World:
    settings: Settings
    locations: pd.DataFrame
    scenes: pd.DataFrame
    chips: pd.DataFrame
    pixels: dict[str, np.ndarray]
    quarantine: pd.DataFrame
    about: dict
    pack_rows: pd.DataFrame
    arrays: dict[str, np.ndarray]
    scores: pd.DataFrame
    crs: str = "EPSG:4326"
    points: list[Point] | None = None
    profile: dict = field(default_factory=dict)
    """Overrides of the GeoTIFF profile, by chip id."""
    on_chips: list[Callable[[pd.DataFrame], pd.DataFrame]] = field(default_factory=list)
    """Called with a shard's finished `chips.parquet` before it is written."""
    after: list[Callable[[], object]] = field(default_factory=list)
    """Called when all is on disk."""

    def write(self) -> None:
        paths = self.settings.paths
        _mkdir(paths.locations)
        points = self.points or [Point(xy) for xy in zip(self.locations["lon"], self.locations["lat"], strict=True)]
        gpd.GeoDataFrame(self.locations, geometry=points, crs=self.crs).to_parquet(paths.locations, index=False)
        self.scenes.to_parquet(_mkdir(paths.scenes), index=False)
        self.scores.to_parquet(_mkdir(paths.scores), index=False)
        self._write_archive(paths.archive)
        self.quarantine.to_parquet(_mkdir(paths.quarantine), index=False)
        self._write_pack(paths.pack)
        for call in self.after:
            call()

    def _write_archive(self, folder: Path) -> None:
        for shard, chips in self.chips.groupby("shard"):
            target = folder / f"shard={shard:04d}"
            target.mkdir(parents=True)
            rows = []
            with tarfile.open(target / "chips.tar", "w") as tar:
                for chip in chips.to_dict("records"):
                    data = tiff(self.pixels[chip["id"]], **self.profile.get(chip["id"], {}))
                    info = tarfile.TarInfo(chip["id"] + ".tif")
                    info.size = len(data)
                    offset = tar.offset + 512
                    tar.addfile(info, io.BytesIO(data))
                    rows.append({**chip, "offset": offset, "length": len(data), "sha256": hashlib.sha256(data).hexdigest()})
            frame = pd.DataFrame(rows).drop(columns="shard")
            for edit in self.on_chips:
                frame = edit(frame)
            frame.to_parquet(target / "chips.parquet", index=False)
            self.quarantine[self.quarantine["shard"] == shard].to_parquet(target / "quarantine.parquet", index=False)

    def _write_pack(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "pack.json").write_text(json.dumps(self.about))
        self.pack_rows.to_parquet(folder / "pack.parquet", index=False)
        for name, array in self.arrays.items():
            np.save(folder / name, array)


def tiff(pixels: np.ndarray, **overrides: object) -> bytes:
    profile = {
        "driver": "GTiff",
        "dtype": "uint16",
        "count": pixels.shape[0],
        "height": pixels.shape[1],
        "width": pixels.shape[2],
        "crs": f"EPSG:{UTM}",
        "transform": from_origin(450_000, 5_411_000, 10, 10),
        "nodata": 0,
        "compress": "deflate",
        **overrides,
    }
    with MemoryFile() as memory:
        with rasterio.Env(), memory.open(**profile) as target:
            target.write(pixels.astype(profile["dtype"]))
        return memory.read()


def _mkdir(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _locations() -> pd.DataFrame:
    index = np.arange(12)
    return pd.DataFrame(
        {
            "location_id": [f"L{i:07d}" for i in index],
            "lon": np.round(2.30 + 0.02 * (index % 4), 6),
            "lat": np.round(48.85 + 0.02 * (index // 4), 6),
            "city": "Paris",
            "country": "FR",
            "population": np.int64(2_138_551),
            "distance_km": np.round(1.0 + 0.1 * index, 3),
            "shard": (index // 6).astype(np.int32),
        }
    )


def _scenes(locations: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    windows = period_windows(settings.vintage, settings.gap_years, settings.imagery.period_months, settings.imagery.seasons)
    rows = []
    for place, shard in zip(locations["location_id"], locations["shard"], strict=True):
        for period in (0, 1):
            for season in range(SEASONS):
                start, end = windows[period][season]
                for rank in (0, 1):
                    rows.append(
                        {
                            "location_id": place,
                            "shard": shard,
                            "period": period,
                            "season": season,
                            "rank": rank,
                            "item_id": f"S2_{period}{season}{rank}",
                            "datetime": start + (end - start) * (0.3 + 0.3 * rank),
                            "cloud_cover": 5.0 + 10 * rank,
                            "epsg": UTM,
                            "processing_baseline": ("02.09", "05.11")[period],
                            "scale": 1e-4,
                            "offset": (0.0, -0.1)[period],
                            "hrefs": json.dumps({band: f"items/{band}.tif" for band in BANDS}),
                            "status": "planned",
                        }
                    )
    return pd.DataFrame(rows)


def _chips(locations: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    rng = np.random.default_rng(7)
    rows, pixels = [], {}
    for place, lon, lat, shard in locations[["location_id", "lon", "lat", "shard"]].itertuples(index=False):
        footprint = box(lon - 0.002, lat - 0.002, lon + 0.002, lat + 0.002).wkb
        for period in (0, 1):
            for season in range(SEASONS):
                name = f"{place}/p{period}s{season}"
                pixels[name] = rng.integers(200, 3000, (len(BANDS), SIZE, SIZE), dtype=np.uint16)
                rows.append(
                    {
                        "id": name,
                        "location_id": place,
                        "shard": shard,
                        "period": period,
                        "season": season,
                        "datetime": pd.Timestamp("2022-03-01", tz="UTC"),
                        "item_id": f"S2_{period}{season}0",
                        "epsg": UTM,
                        "clear_fraction": 0.97,
                        "cloud_cover": 5.0,
                        "status": "planned",
                        "geometry": footprint,
                    }
                )
    return pd.DataFrame(rows), pixels


def _quarantine(locations: pd.DataFrame) -> pd.DataFrame:
    first = locations.iloc[0]
    refused = {
        "location_id": first["location_id"],
        "shard": first["shard"],
        "period": 0.0,
        "season": 1.0,
        "item_id": "S2_011",
        "reason": "cloudy",
        "detail": "41 % of the chip is clear, 90 % are wanted",
        "clear_fraction": 0.41,
    }
    return pd.DataFrame([refused])


def _pack(locations: pd.DataFrame, settings: Settings) -> tuple[dict, pd.DataFrame, dict[str, np.ndarray]]:
    rng = np.random.default_rng(8)
    files = ("images-0000.npy", "images-0001.npy")
    shape = (6, 2, SEASONS, SIZE, SIZE, 3)
    about = {
        "bands": ["B04", "B03", "B02"],
        "stretch": settings.pretraining.stretch,
        "stretch_table_sha256": "ab" * 32,
        "chip_size": SIZE,
        "seasons": SEASONS,
        "count": 12,
        "files": [{"name": name, "rows": 6, "sha256": "cd" * 32} for name in files],
    }
    rows = locations[["location_id", "lon", "lat"]].assign(
        shard_file=np.repeat(files, 6), row=np.tile(np.arange(6), 2), valid=[[True] * 2 * SEASONS] * 12
    )
    return about, rows, {name: rng.integers(1, 250, shape, dtype=np.uint8) for name in files}


def _scores() -> pd.DataFrame:
    rows = [
        {
            "row": "eurosat_twin",
            "task": "eurosat",
            "encoder": encoder,
            "role": role,
            "protocol": "clean",
            "method": method,
            "size": 64,
            "seed": seed,
            "metric": "accuracy",
            "value": value,
            "ci_low": value - 0.02,
            "ci_high": value + 0.02,
            "n": 400,
            "data_version": "d41d8cd98f00b204e9800998ecf8427e.dir",
            "model_uri": None if role == "baseline" else "models:/caco-tiny/1",
            "status": "measured",
            "note": None,
            "items": None,
        }
        for encoder, role, value in (("caco", "candidate", 0.8), ("random", "baseline", 0.5), ("imagenet", "baseline", 0.7))
        for method in ("linear_probe", "knn5")
        for seed in (0, 1)
    ]
    absent = {"row": "eurosat_real", "task": "eurosat", "encoder": "caco", "role": "candidate", "protocol": "clean"}
    return pd.DataFrame([*rows, {**absent, "status": "not_measured", "note": "no data at EuroSAT.zip"}])


@pytest.fixture(scope="session", autouse=True)
def great_expectations():
    """Import it once with the warnings of its import let pass: an optional package, and two deprecated standard modules."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Please install grpcio-status", ImportWarning)
        warnings.filterwarnings("ignore", "module 'sre_(constants|parse)' is deprecated", DeprecationWarning)
        import great_expectations
    return great_expectations


@pytest.fixture
def world(tmp_path: Path) -> World:
    settings = load_settings(
        "tiny",
        home=tmp_path,
        vintage="2026-10",
        gap_years=4,
        sampling={"strategy": "caco", "places": 12, "places_per_shard": 6, "sigma_km": 1.0, "min_distance_km": 0.7, "region": None},
        imagery={"chip_size": SIZE, "seasons": SEASONS, "min_seasons": 3, "bands": BANDS, "period_months": 12, "min_clear": 0.9},
    )
    locations = _locations()
    return World(
        settings,
        locations,
        _scenes(locations, settings),
        *_chips(locations),
        _quarantine(locations),
        *_pack(locations, settings),
        _scores(),
    )
