"""The whole room on real Sentinel-2 dates of a reservoir, read from a folder of GeoTIFFs."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from caco_assets.imagery.archive.shard import iter_chips, read_index, shard_folders
from caco_assets.imagery.archive.verify import verify_archive
from caco_assets.imagery.on_record import collect, ingest_shard, plan
from caco_assets.imagery.stage import index_folder
from caco_assets.sampling.stage import sample
from caco_assets.settings import Settings, load_settings


@pytest.fixture(scope="module")
def boadella(real, tmp_path_factory) -> Settings:
    """The shipped profile, run from the folder to the quarantine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CACO_REAL", str(real))
        settings = load_settings("boadella", home=tmp_path_factory.mktemp("boadella"))
    shards = sample(settings).facts["shards"]
    index_folder(settings)
    plan(settings)
    for shard in range(shards):
        ingest_shard(settings, shard)
    collect(settings)
    return settings


def test_every_place_of_the_grid_is_complete_with_five_dates_per_period(boadella):
    facts = collect(boadella).facts
    assert facts["places"] == facts["places_complete"] == 25
    assert facts["chips"] == 25 * 10
    assert facts["clear_fraction"] > 0.99
    assert verify_archive(boadella.paths.archive) == []


def test_the_cloudy_dates_are_refused_with_their_clear_share(boadella):
    rows = pq.read_table(boadella.paths.quarantine).to_pylist()
    assert {row["reason"] for row in rows} == {"cloudy"}
    full = [row for row in rows if row["item_id"] == "Boadella_2020-01-18"]
    half = [row for row in rows if row["item_id"] == "Boadella_2020-01-23"]
    assert len(full) == 25
    assert len(full) + len(half) == len(rows)
    assert max(row["clear_fraction"] for row in full) < 0.1
    assert 10 <= len(half) <= 20


def test_no_date_serves_a_place_twice_and_all_dates_share_a_grid(boadella):
    for shard in shard_folders(boadella.paths.archive):
        rows = read_index(shard).to_pylist()
        keys = {(row["location_id"], row["item_id"]) for row in rows}
        assert len(keys) == len(rows)
        assert {row["epsg"] for row in rows} == {32631}


def test_chips_hold_the_reflectance_of_the_files(boadella, real):
    import rasterio

    chips = [chip for chip in iter_chips(boadella.paths.archive, ("B02", "B08")) if chip.location_id == "L0000012"]
    rows = [row for shard in shard_folders(boadella.paths.archive) for row in read_index(shard).to_pylist()]
    rows = [row for row in rows if row["location_id"] == "L0000012"]
    assert len(chips) == 10
    for chip, row in zip(chips, rows, strict=True):
        assert chip.pixels.min() >= 1
        with rasterio.open(real / "sentinel2_boadella" / f"{row['item_id']}.tif") as raster:
            line, column = raster.index(chip.lon, chip.lat)
            window = ((line - 30, line + 30), (column - 24, column + 24))  # about 540 m by 480 m: inside the chip
            truth = raster.read([2, 8], window=window)
        inner = chip.pixels[:, 5:59, 8:56]
        assert np.median(inner, axis=(1, 2)) == pytest.approx(np.median(truth, axis=(1, 2)), rel=0.1, abs=40)
