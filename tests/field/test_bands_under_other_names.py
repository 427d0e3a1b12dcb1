"""Bands that files and users spell in other ways than Sentinel-2's product, or in another order."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from folder_chips import MIDDLE, folder_chip, numbers, write_raster

from caco_assets.cli import main
from caco_assets.core.errors import UserError
from caco_assets.imagery.catalogs.folder import date_of, index_folder
from caco_assets.imagery.scenes.band_names import contradiction, same_band, spelled_as
from caco_assets.imagery.scenes.stac_item import ItemRefusedError, scene_from_item
from caco_assets.inference.embed import embed, embed_array
from caco_assets.pretraining.encoder.encoder import Encoder, PixelFormat, Preprocessing
from caco_assets.sampling.footprints import read_footprints
from caco_assets.settings import FolderSource

GIVEN = ("B02", "B03", "B04", "B08")
BACKWARDS = ["B08,B04,B03,B02", "B8,B4,B3,B2", "nir,red,green,blue", "b08,b04,b03,b02", "NIR,Red,Green,Blue"]
BACKWARDS += ["B08_10m,B04_10m,B03_10m,B02_10m", "Near Infrared,Red (B4),Green (B3),Blue (B2)", "T31_B08,T31_B04,T31_B03,T31_B02"]
IN_ORDER = ["B02,B03,B04,B08", "B2,B3,B4,B8", "blue,green,red,nir", "b2,b3,b4,b8"]
IN_ORDER += ["SR_B2,SR_B3,SR_B4,SR_B5", "SR_B1,SR_B2,SR_B3,SR_B4"]
SILENT = ["Band 1,Band 2,Band 3,Band 4", "b1,b2,b3,b4", "1,2,3,4", "first,second,third,fourth"]
SILENT += ["sur_refl_b03,sur_refl_b04,sur_refl_b01,sur_refl_b02"]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.random("resnet10t", Preprocessing.of_pack(("B04", "B03", "B02"), "seco", 32), 0)


@pytest.mark.parametrize("names", BACKWARDS)
def test_a_file_whose_names_are_in_another_order_is_refused_in_a_folder_and_by_embed(encoder, tmp_path, names):
    image = write_raster(tmp_path / "tifs" / "a_2020-01-13.tif", numbers(4), names=tuple(names.split(",")))
    with pytest.raises(UserError, match=r"names its bands .*: another order than imagery.source.bands"):
        index_folder(FolderSource(path=image.parent, bands=GIVEN), tmp_path / "c")
    with pytest.raises(UserError, match=r"names its bands .*: another order than --bands; give them as the file does"):
        embed(image, encoder, tile=64, bands=GIVEN)


@pytest.mark.parametrize("names", [*IN_ORDER, *SILENT])
def test_names_that_agree_or_say_nothing_are_accepted(names):
    assert contradiction(names.split(","), GIVEN, "--bands") is None


@pytest.mark.parametrize(
    ("named", "given", "place"),
    [
        ("B02,B03,B04,B05", "B02,B03,B04,B08", "its band 4 is B05, --bands says B08"),
        ("SR_B5,SR_B4,SR_B3,SR_B2", "B02,B03,B04,B08", "its band 1 is SR_B5, --bands says B02"),
        ("B2,B3,B4,B5", "nir,red,green,blue", "its band 1 is B2, --bands says nir"),
        ("VV,VH", "VH,VV", "another order than --bands"),
        ("nir,nir08", "B8A,B08", "another order than --bands"),
    ],
)
def test_a_contradiction_names_the_band(named, given, place):
    assert (contradiction(named.split(","), given.split(","), "--bands") or "").endswith(place)


def test_numbers_of_landsat_are_understood_under_common_names():
    """B4 is the near infrared of Landsat 5 and the red of Landsat 8; a user who says which has the last word."""
    assert contradiction(("B4", "B3", "B2", "B1"), ("nir", "red", "green", "blue"), "--bands") is None
    assert contradiction(("B5", "B4", "B3", "B2"), ("nir", "red", "green", "blue"), "--bands") is None


@pytest.mark.parametrize("spelling", ["B4", "b04", "B04", "B04_10m", "Red", "red (B4)", "band_4", "Band 4", "B4 - Red"])
def test_common_spellings_are_one_band(spelling):
    assert same_band(spelling, "B04")
    assert not same_band(spelling, "B08")


def test_a_name_that_could_be_two_bands_is_taken_for_none():
    assert spelled_as(("B4", "red"), ("B04",)) == ("B4", "red")
    assert spelled_as(("B4", "B04"), ("B04",)) == ("B4", "B04")


def test_embed_finds_its_bands_under_other_names_and_says_so(encoder, tmp_path, logged):
    layers = numbers(4)
    image = write_raster(tmp_path / "a.tif", layers, names=("blue", "B3", "b04", "nir"))
    said = logged()
    found = embed(image, encoder, tile=64)
    assert "a.tif: band blue as B02, B3 as B03, b04 as B04" in said
    wanted = encoder.features(layers[None], PixelFormat(GIVEN, 1e-4))
    np.testing.assert_allclose(found.vectors, wanted, rtol=1e-4, atol=1e-4)
    of_array = embed_array(layers, PixelFormat(("blue", "B3", "b04", "nir"), 1e-4), encoder, tile=64)
    np.testing.assert_array_equal(of_array.vectors, found.vectors)


def test_a_catalog_of_another_maker_that_spells_bands_otherwise_is_read():
    found = scene_from_item(an_item(["b4", "B3", "blue"]), ("B04", "B03", "B02"))
    assert found.hrefs == {"B04": "a.tif#band=1", "B03": "a.tif#band=2", "B02": "a.tif#band=3"}
    with pytest.raises(ItemRefusedError, match="lacks B04"):
        scene_from_item(an_item(["b4", "red", "blue"]), ("B04",))


def an_item(names: list[str]) -> dict:
    ring = [[2.9, 41.9], [3.1, 41.9], [3.1, 42.1], [2.9, 42.1], [2.9, 41.9]]
    asset = {"href": "a.tif", "bands": [{"name": name} for name in names], "raster:bands": [{"scale": 1e-4}]}
    properties = {"datetime": "2020-01-01T00:00:00Z"}
    return {"id": "a", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": properties, "assets": {"data": asset}}


def test_names_given_with_blanks_are_the_names(tmp_path):
    write_raster(tmp_path / "tifs" / "a_2020-01-13.tif", numbers())
    options = ["--bands", "B02, B03 ", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, ["catalog", "build", str(tmp_path / "tifs"), *options])
    assert done.exit_code == 0, done.stderr


def test_a_folder_of_files_with_other_spellings_gives_the_given_bands(tmp_path):
    layers = numbers()
    write_raster(tmp_path / "tifs" / "A_2020-01-13.TIF", layers, names=("b2", "Green"))
    outcome = folder_chip(tmp_path / "tifs")
    assert outcome.pixels is not None
    assert (outcome.pixels == layers[MIDDLE]).all()


def test_capitals_mean_nothing_in_the_names_of_files(tmp_path):
    assert date_of(Path("1985.TIF"), r"(\d{4})\.tif").year == 1985
    write_raster(tmp_path / "a" / "P_B02.TIF", numbers(1))
    assert read_footprints(tmp_path, "**/*_B02.tif").names == ["a/P_B02.TIF"]
