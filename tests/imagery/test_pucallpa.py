"""Imagery of another sensor through the shipped profile: eight Landsat pictures in 35 years at 90 m, no reflectance."""

import numpy as np
import pytest
import rasterio
from rasterio.vrt import WarpedVRT

from caco_assets.imagery.archive.shard import iter_chips, read_index, shard_folders
from caco_assets.imagery.archive.verify import verify_archive
from caco_assets.imagery.on_record import collect, ingest_shard, plan
from caco_assets.imagery.stage import index_folder
from caco_assets.pretraining.on_record import archive_shards
from caco_assets.pretraining.stage import build_pack
from caco_assets.sampling.stage import sample
from caco_assets.settings import Settings, load_settings


@pytest.fixture(scope="module")
def pucallpa(real, tmp_path_factory) -> Settings:
    """The shipped profile, run from the folder to the pack."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CACO_REAL", str(real))
        settings = load_settings("pucallpa", home=tmp_path_factory.mktemp("pucallpa"))
    shards = sample(settings).facts["shards"]
    index_folder(settings)
    plan(settings)
    for shard in range(shards):
        ingest_shard(settings, shard)
    collect(settings)
    build_pack(settings, archive_shards(settings))
    return settings


def test_every_place_has_four_years_in_each_period(pucallpa):
    facts = collect(pucallpa).facts
    assert (facts["places"], facts["places_complete"], facts["chips"], facts["refused"]) == (45, 45, 360, {})
    rows = read_index(shard_folders(pucallpa.paths.archive)[0]).to_pylist()[:8]
    assert [row["datetime"].year for row in rows] == [1985, 1990, 1995, 2000, 2005, 2010, 2015, 2020]
    assert [(row["period"], row["season"]) for row in rows] == [(period, season) for period in (0, 1) for season in range(4)]
    assert {row["epsg"] for row in rows} == {32718}
    assert verify_archive(pucallpa.paths.archive) == []


def test_a_warning_says_that_clouds_are_not_detected(pucallpa):
    facts = index_folder(pucallpa).facts
    assert facts["clear_test"] == "nodata"
    assert any("cloud is not looked for, only pixels without data count against a chip" in note for note in facts["notes"])


def test_the_pack_holds_the_files_own_numbers(pucallpa, real):
    """Scale 1/255 and the stretch `reflectance` give each number back; in between lies only the way onto the grid."""
    from caco_assets.pretraining.pack.format import Pack

    pack = Pack.open(pucallpa.paths.pack)
    chip = next(
        chip for chip in iter_chips(pucallpa.paths.archive, ("red", "nir", "green")) if (chip.period, chip.season) == (1, 3)
    )
    place = pack.location_id.index(chip.location_id)
    row = next(row for row in read_index(shard_folders(pucallpa.paths.archive)[0]).to_pylist() if row["datetime"].year == 2020)
    with rasterio.open(f"/vsitar/{pucallpa.paths.archive}/shard=0000/chips.tar/{row['location_id']}/p1s3.tif") as mine:
        grid = {"crs": mine.crs, "transform": mine.transform, "width": 64, "height": 64}
    with (
        rasterio.open(real / "landsat_pucallpa" / "2020.tif") as file,
        WarpedVRT(file, resampling=rasterio.enums.Resampling.bilinear, **grid) as view,
    ):
        expected = view.read([3, 2, 4]).astype(int)
    found = pack.image(place, 1, 3).transpose(2, 0, 1).astype(int)
    assert row["location_id"] == chip.location_id
    assert np.abs(found - expected).max() <= 1
    assert (found == expected).mean() > 0.99


def test_forest_is_brighter_in_the_near_infrared_than_in_red(pucallpa):
    """The order of the bands as the profile names them."""
    chips = [chip.pixels for chip in iter_chips(pucallpa.paths.archive, ("red", "nir"))]
    red, nir = np.mean([pixels.mean(axis=(1, 2)) for pixels in chips], axis=0)
    assert nir > 4 * red
