"""Values that a file declares to be no data, and numbers that are not finite, in one band alone or in all."""

import json
import math

import numpy as np
import pystac
import pytest
from click.testing import CliRunner
from folder_chips import EVER, GRID, HALF_A_PIXEL_OFF, MIDDLE, folder_chip, numbers, write_raster

from caco_assets.cli import main
from caco_assets.imagery.catalogs.static import StaticCatalog
from caco_assets.imagery.geometry.chip_grid import Grid, chip_grids
from caco_assets.imagery.scenes.radiometry import Radiometry, has_data
from caco_assets.imagery.scenes.stac_item import ItemRefusedError, scene_from_item
from caco_assets.settings.imagery_sources import FolderSource

GAPS = {
    "declared in the settings": (-9999.0, {"nodata": -9999}, {}),
    "declared in the file": (-9999.0, {}, {"nodata": -9999}),
    "NaN": (math.nan, {}, {}),
    "NaN, declared": (math.nan, {}, {"nodata": math.nan}),
    "infinite": (math.inf, {}, {}),
    "not exact in float32": (-3.4e38, {"nodata": -3.4e38}, {}),
    "in the settings another than in the file": (-9999.0, {"nodata": -9999}, {"nodata": math.nan}),
}
"""The value in the gap, what the settings say, what the file says."""
GRIDS = {
    "the file's pixels": GRID,
    "half a pixel off": HALF_A_PIXEL_OFF,
    "finer": Grid(GRID.epsg, GRID.left, GRID.top, 64, 5.0),
    "coarser": Grid(GRID.epsg, GRID.left, GRID.top, 16, 20.0),
    "another zone": chip_grids(np.array([2.9795]), np.array([42.009]), 16, 10.0)[0],
}


@pytest.fixture
def holed(tmp_path):
    """`holed(gap, **profile)`: a folder with a float file whose second band has a gap of 2 × 2 pixels in the middle."""

    def make(gap: float, **profile):
        layers = numbers(2, "float32")
        layers[1, 31:33, 31:33] = gap
        write_raster(tmp_path / "tifs" / "a_2020-01-13.tif", layers, **profile)
        return tmp_path / "tifs"

    return make


@pytest.mark.parametrize("kind", GAPS)
def test_a_gap_in_one_band_is_no_data_in_all_and_counts_against_the_chip(holed, kind):
    gap, source, profile = GAPS[kind]
    outcome = folder_chip(holed(gap, **profile), **source)
    assert outcome.pixels is not None
    gone = np.zeros((32, 32), bool)
    gone[15:17, 15:17] = True
    assert ((outcome.pixels == 0).all(axis=0) == gone).all()
    assert ((outcome.pixels == 0).any(axis=0) == gone).all(), "no other pixel is lost"
    assert outcome.clear_fraction == pytest.approx(1 - 4 / 32**2)
    expected = numbers(2, "float32")[MIDDLE]
    assert (outcome.pixels[:, ~gone] == expected[:, ~gone]).all()


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("kind", ["declared in the file", "NaN", "NaN, declared"])
def test_no_pixel_is_mixed_from_a_gap_however_the_chip_lies(tmp_path, grid, kind):
    gap, source, profile = GAPS[kind]
    layers = np.full((2, 64, 64), 2000, np.float32)
    layers[1, 31:33, 31:33] = gap
    write_raster(tmp_path / "tifs" / "a_2020-01-13.tif", layers, **profile)
    outcome = folder_chip(tmp_path / "tifs", grid=GRIDS[grid], **source)
    pixels = outcome.pixels
    if pixels is None:
        # of 16² pixels a gap is more than a chip may have
        assert outcome.reason == "nodata"
        return
    assert set(np.unique(pixels).tolist()) <= {0, 2000}
    assert ((pixels == 0).all(axis=0) == (pixels == 0).any(axis=0)).all()
    # a coarser pixel is the mean of the finer ones that were measured
    assert (pixels == 0).any() or grid == "coarser"


def test_a_gap_larger_than_a_chip_may_have_refuses_it(tmp_path):
    layers = numbers(2, "int16")
    layers[0, :30] = -32768
    write_raster(tmp_path / "tifs" / "a_2020-01-13.tif", layers, nodata=-32768)
    outcome = folder_chip(tmp_path / "tifs")
    assert outcome.pixels is None
    assert outcome.reason == "nodata"
    assert outcome.detail == "44% of the chip has no data (at most 1%)"


def test_a_single_zero_stays_the_dark_pixel_that_sentinel_2_means_by_it(tmp_path):
    layers = numbers(2)
    layers[1, 20:24, 20:24] = 0
    layers[:, 40, 40] = 0
    write_raster(tmp_path / "tifs" / "a_2020-01-13.tif", layers, nodata=0)
    outcome = folder_chip(tmp_path / "tifs")
    assert outcome.pixels is not None
    assert (outcome.pixels[1, 4:8, 4:8] == 1).all()
    assert (outcome.pixels[:, 24, 24] == 0).all()
    assert (outcome.pixels == 0).any(axis=0).sum() == 1


def test_numbers_that_are_not_finite_are_no_data_beside_a_declared_zero():
    stack = np.array([[[0.0, 0.0, 5.0, np.inf]], [[0.0, 3.0, np.nan, 4.0]]], np.float32)
    assert has_data(stack, 0.0).tolist() == [[False, True, False, False]]


@pytest.mark.parametrize("nodata", ["nan", "NaN", math.nan, "inf", "-inf"])
def test_an_item_whose_nodata_is_no_finite_number_is_used(nodata):
    scene = scene_from_item(an_item([{"scale": 1e-4, "nodata": nodata}, {"scale": 1e-4, "nodata": nodata}]), ("B02", "B03"))
    assert scene.radiometry == Radiometry(1e-4, 0.0, None)
    assert scene.exceptions == {}


@pytest.mark.parametrize(
    ("field", "value"), [("nodata", "none"), ("scale", "https://a.b/scale"), ("offset", [1]), ("scale", "nan")]
)
def test_an_item_with_something_else_than_a_number_is_refused_with_the_reason(field, value):
    facts = {"scale": 1e-4, "nodata": 0, field: value}
    with pytest.raises(ItemRefusedError, match=f"says {field}=.*which is no (finite )?number"):
        scene_from_item(an_item([facts, facts]), ("B02", "B03"))


def an_item(bands: list[dict]) -> dict:
    ring = [[2.9, 41.9], [3.1, 41.9], [3.1, 42.1], [2.9, 42.1], [2.9, 41.9]]
    return {
        "id": "a",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"datetime": "2020-01-01T00:00:00Z"},
        "assets": {f"B0{2 + number}": {"href": f"b{number}.tif", "raster:bands": [facts]} for number, facts in enumerate(bands)},
    }


def test_a_folder_of_files_with_different_gap_values_gives_a_catalog_of_valid_json(tmp_path):
    for number, nodata in enumerate((math.nan, -9999, None)):
        write_raster(tmp_path / "tifs" / f"a_2020-01-1{number}.tif", numbers(2, "float32"), nodata=nodata)
    done = CliRunner().invoke(
        main, ["catalog", "build", str(tmp_path / "tifs"), "--bands", "B02,B03", "--out", str(tmp_path / "out")]
    )
    assert done.exit_code == 0, done.stderr
    items = sorted(
        pystac.Catalog.from_file(str(tmp_path / "out" / "catalog.json")).get_items(recursive=True), key=lambda item: item.id
    )
    for item in items:
        json.dumps(item.to_dict(), allow_nan=False)
    found = [item.assets["data"].extra_fields["raster:bands"][0].get("nodata") for item in items]
    assert json.dumps(found) == "[null, -9999.0, 0]", "the default is written as it was before files were asked"
    scenes = StaticCatalog.open(tmp_path / "out", ("B02", "B03")).search((-180, -90, 180, 90), EVER)
    assert [scene.radiometry.nodata for scene in scenes] == found


@pytest.mark.parametrize("text", ["nan", "-9999", "none", "file"])
def test_every_way_to_say_what_no_data_is_can_be_given_on_the_command_line(tmp_path, text):
    write_raster(tmp_path / "tifs" / "a_2020-01-10.tif", numbers(2, "float32"))
    options = ["--bands", "B02, B03", "--nodata", text, "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, ["catalog", "build", str(tmp_path / "tifs"), *options])
    assert done.exit_code == 0, done.stderr


def test_dumps_that_enter_fingerprints_keep_what_was_the_default_before_files_were_asked(tmp_path):
    plain = FolderSource(path=tmp_path, bands=("B02",)).model_dump(mode="json")
    assert json.dumps([plain["scale"], plain["offset"], plain["nodata"]]) == "[0.0001, 0.0, 0.0]"
    asked = FolderSource(path=tmp_path, bands=("B02",)).model_dump(mode="json", by_alias=False)
    assert (asked["scale"], asked["offset"], asked["nodata"]) == (None, None, "file")


@pytest.mark.parametrize("values", [("nan", "nan"), (math.nan, math.nan), (math.nan, None)])
def test_a_parquet_index_takes_nan_for_nodata_as_items_do(tmp_path, values):
    from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

    more = {"type": "Feature", "stac_version": "1.0.0", "links": [], "bbox": [2.9, 41.9, 3.1, 42.1]}
    item = {**an_item([{"scale": 1e-4, "nodata": value} for value in values]), **more}
    to_parquet(parse_stac_items_to_arrow([item]), tmp_path / "items.parquet")
    catalog = StaticCatalog.open(tmp_path, ("B02", "B03"))
    assert catalog.refused == {}
    (scene,) = catalog.search((-180, -90, 180, 90), EVER)
    assert scene.radiometry == Radiometry(1e-4, 0.0, None)
    assert scene.exceptions == {}
