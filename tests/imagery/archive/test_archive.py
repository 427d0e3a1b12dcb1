import hashlib
from datetime import UTC, datetime

import numpy as np
import pystac
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from caco_assets.imagery.archive.chip import decode, encode
from caco_assets.imagery.archive.shard import (
    INDEX,
    QUARANTINE,
    TAR,
    band_names,
    iter_chips,
    read_chip,
    read_index,
    write_index,
    write_quarantine,
    write_tar,
)
from caco_assets.imagery.archive.verify import verify_archive
from caco_assets.imagery.geometry.chip_grid import chip_grids

BANDS = ("B02", "B03", "B04")
GRID = chip_grids(np.array([2.8]), np.array([42.3]), 32, 10.0)[0]


def pixels_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 65_536, (3, 32, 32), dtype=np.uint16)


@pytest.fixture
def archive(small_archive):
    return small_archive


@given(st.integers(0, 1000))
def test_a_chip_survives_and_its_bytes_are_always_the_same(seed):
    pixels = pixels_of(seed)
    data = encode(pixels, BANDS, GRID)
    assert data == encode(pixels, BANDS, GRID)
    assert (decode(data) == pixels).all()
    assert (decode(data, ("B04", "B02")) == pixels[[2, 0]]).all()


def test_a_band_that_was_not_archived_is_named():
    with pytest.raises(ValueError, match=r"bands=\['B12'\]: the chip has B02, B03, B04"):
        decode(encode(pixels_of(0), BANDS, GRID), ("B12",))


def test_the_tar_depends_on_its_members_alone(tmp_path):
    members = [("a/x.tif", b"one"), ("b/y.tif", b"t" * 600)]
    ranges = write_tar(tmp_path / "one.tar", members)
    write_tar(tmp_path / "two.tar", iter(members))
    data = (tmp_path / "one.tar").read_bytes()
    assert data == (tmp_path / "two.tar").read_bytes()
    for (_, content), (offset, length, sha256) in zip(members, ranges, strict=True):
        assert data[offset : offset + length] == content
        assert hashlib.sha256(content).hexdigest() == sha256


def test_rasterio_opens_a_chip_inside_the_tar(archive):
    with rasterio.open(f"/vsitar/{archive}/shard=0001/chips.tar/L0000012/p0s2.tif") as raster:
        assert raster.crs.to_epsg() == GRID.epsg == 32631
        assert raster.transform == GRID.transform
        assert raster.descriptions == BANDS
        assert raster.nodata == 0
        assert (raster.read() == pixels_of(11)).all()


def test_a_chip_is_read_by_its_byte_range(archive):
    shard = archive / "shard=0000"
    rows = read_index(shard).to_pylist()
    assert [(row["period"], row["season"]) for row in rows] == [(0, 0), (0, 2), (1, 0), (1, 2)]
    for number, row in enumerate(rows):
        assert (read_chip(shard, row) == pixels_of(number)).all()
    assert (read_chip(shard, rows[0], ("B03",)) == pixels_of(0)[1:2]).all()
    assert band_names(shard) == list(BANDS)


def test_chips_come_in_the_order_of_place_period_and_season(archive):
    chips = list(iter_chips(archive, ("B02",)))
    keys = [(chip.location_id, chip.period, chip.season) for chip in chips]
    assert keys == sorted(keys)
    assert len(keys) == 8
    assert (chips[5].pixels == pixels_of(11)[:1]).all()
    assert (chips[0].lon, chips[0].lat) == (2.8, 42.3)


def test_every_chip_is_a_stac_item_that_pystac_reads(archive, stac_items):
    items = [pystac.Item.from_dict(item) for item in stac_items(archive / "shard=0001")]
    assert [item.id for item in items] == ["L0000012-p0s0", "L0000012-p0s2", "L0000012-p1s0", "L0000012-p1s2"]
    assert items[0].datetime == datetime(2018, 1, 1, 10, 30, 15, 250_000, tzinfo=UTC)
    assert items[0].properties["sha256"] == read_index(archive / "shard=0001").to_pylist()[0]["sha256"]
    assert items[0].assets["data"].href == "chips.tar/L0000012/p0s0.tif"
    assert items[0].bbox == pytest.approx([2.798, 42.298, 2.802, 42.302], abs=1e-3)


def test_geopandas_reads_the_index(archive):
    import geopandas as gpd

    frame = gpd.read_parquet(archive / "shard=0000" / INDEX)
    assert frame.crs.to_epsg() == 4326
    assert frame.geometry.is_valid.all()
    assert str(frame["offset"].dtype) == "int64"
    assert str(frame["period"].dtype) == "int8"


def test_an_empty_shard_can_be_written_and_read(tmp_path):
    folder = tmp_path / "shard=0000"
    folder.mkdir()
    assert write_tar(folder / TAR, []) == []
    write_index(folder / INDEX, [], BANDS)
    write_quarantine(folder / QUARANTINE, [])
    assert list(iter_chips(tmp_path)) == []
    assert verify_archive(tmp_path) == []
    assert band_names(folder) == []
