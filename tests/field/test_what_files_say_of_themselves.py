"""Files that carry the meaning of their numbers, masks, units or a georeference, in their tags or in a file beside them."""

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from folder_chips import EPSG, GRID, HALF_A_PIXEL_OFF, LEFT, MIDDLE, TOP, folder_chip, numbers, write_raster

from caco_assets.imagery.catalogs.folder import files_say, index_folder
from caco_assets.imagery.geometry.chip_grid import Grid
from caco_assets.imagery.reading.gdal import GDAL_OPTIONS
from caco_assets.imagery.reading.http.tiff_index import read_index
from caco_assets.imagery.reading.scene_reader import SceneFiles, Want, read_chips
from caco_assets.imagery.scenes.radiometry import Radiometry
from caco_assets.inference.embed import embed
from caco_assets.pretraining.encoder.encoder import ARCHIVE, Encoder, PixelFormat, Preprocessing
from caco_assets.settings import FolderSource

BANDS = ("B02", "B03")
OWN = {"scales": (2e-4, 1e-4), "offsets": (-0.1, 0.0)}


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.random("resnet10t", Preprocessing.of_pack(BANDS, "seco", 32), 0)


def expected(layers: np.ndarray) -> np.ndarray:
    """Archive numbers by `OWN`."""
    reflectance = layers * np.array([2e-4, 1e-4])[:, None, None] + np.array([-0.1, 0.0])[:, None, None]
    return np.maximum(np.rint(reflectance * 10_000), 1)


def test_scale_and_offset_in_the_file_decide_in_a_folder_where_nothing_else_is_said(tmp_path):
    layers = numbers()
    write_raster(tmp_path / "tifs" / "a_2020-01-13.tif", layers, **OWN)
    outcome = folder_chip(tmp_path / "tifs", BANDS)
    assert outcome.pixels is not None
    assert np.abs(outcome.pixels - expected(layers)[MIDDLE]).max() <= 1


def test_the_users_word_overrides_the_file_and_the_difference_is_noted(tmp_path):
    layers = numbers()
    write_raster(tmp_path / "tifs" / "a_2020-01-13.tif", layers, **OWN, nodata=65535)
    outcome = folder_chip(tmp_path / "tifs", BANDS, scale=1e-4, offset=0.0, nodata=0)
    assert outcome.pixels is not None
    assert (outcome.pixels == layers[MIDDLE]).all()
    notes = index_folder(FolderSource(path=tmp_path / "tifs", bands=BANDS, scale=1e-4, offset=0.0, nodata=0), tmp_path / "c")[
        "notes"
    ]
    assert notes[:3] == [
        "a_2020-01-13.tif: says scale 0.0002; the given scale 0.0001 is used",
        "a_2020-01-13.tif: says offset -0.1; the given offset 0 is used",
        "a_2020-01-13.tif: says that 65535 means no data; the given nodata 0 is used",
    ]


def test_embed_and_a_folder_read_one_file_alike(encoder, tmp_path):
    layers = numbers()
    image = write_raster(tmp_path / "tifs" / "a_2020-01-13.tif", layers, names=BANDS, scales=(2e-4,) * 2, offsets=(-0.1,) * 2)
    chip = folder_chip(image.parent, BANDS, Grid(EPSG, LEFT, TOP, 64, 10.0))
    assert chip.pixels is not None
    found = embed(image, encoder, tile=64)
    of_chip = encoder.features(chip.pixels[None], PixelFormat(BANDS, ARCHIVE.reflectance_per_dn))
    np.testing.assert_allclose(found.vectors, of_chip, rtol=1e-4, atol=1e-4)


def test_embed_says_where_the_given_scale_is_not_the_files(encoder, tmp_path, logged):
    image = write_raster(tmp_path / "a.tif", numbers(), names=BANDS, scales=(2e-4,) * 2, offsets=(-0.1,) * 2)
    said = logged()
    embed(image, encoder, tile=64, reflectance_per_dn=1e-4, offset=0.0)
    assert "a.tif: says scale 0.0002; the given scale 0.0001 is used" in said
    assert "a.tif: says offset -0.1; the given offset 0 is used" in said


def test_pixels_that_a_files_mask_leaves_out_are_no_data_on_the_grid_and_between(tmp_path):
    mask = np.ones((64, 64), bool)
    mask[31:33, 31:33] = False
    write_raster(tmp_path / "tifs" / "a_2020-01-13.tif", np.full((2, 64, 64), 1500, np.uint16), mask=mask)
    on_it = folder_chip(tmp_path / "tifs", BANDS).pixels
    between = folder_chip(tmp_path / "tifs", BANDS, HALF_A_PIXEL_OFF).pixels
    assert on_it is not None
    assert between is not None
    assert ((on_it == 0) == ~mask[MIDDLE]).all()
    assert set(np.unique(between).tolist()) == {0, 1500}
    assert (between == 0).all(axis=0).sum() == 9


def test_a_file_with_a_mask_is_left_to_gdal_over_http(tmp_path):
    plain = write_raster(tmp_path / "plain.tif", numbers())
    masked = write_raster(tmp_path / "masked.tif", numbers(), mask=np.eye(64, dtype=bool))
    with rasterio.open(masked) as raster:
        cog = tmp_path / "cog.tif"
        rasterio.shutil.copy(raster, cog, driver="COG")
    assert read_index(plain.read_bytes()) is not None
    assert read_index(masked.read_bytes()) is None
    assert read_index(cog.read_bytes()) is None


def test_masked_pixels_are_embedded_as_a_chip_has_them(encoder, tmp_path):
    mask = np.ones((64, 64), bool)
    mask[:16] = False
    layers = numbers()
    image = write_raster(tmp_path / "a.tif", layers, names=BANDS, mask=mask)
    found = embed(image, encoder, tile=64)
    assert found.nodata.tolist() == [0.25]
    blank = np.where(mask, layers, 0).astype(np.uint16)
    np.testing.assert_allclose(found.vectors, encoder.features(blank[None], PixelFormat(BANDS, 1e-4)), rtol=1e-4, atol=1e-4)


def test_a_bright_fill_value_is_not_embedded_as_a_measurement(encoder, tmp_path):
    layers = numbers()
    blank = layers.copy()
    layers[:, :16], blank[:, :16] = 65535, 0
    found = embed(write_raster(tmp_path / "a.tif", layers, names=BANDS, nodata=65535), encoder, tile=64)
    assert found.nodata.tolist() == [0.25]
    np.testing.assert_allclose(found.vectors, encoder.features(blank[None], PixelFormat(BANDS, 1e-4)), rtol=1e-4, atol=1e-4)


def test_units_that_are_no_reflectance_are_noted(tmp_path):
    image = write_raster(tmp_path / "tifs" / "a_2020-01-13.tif", numbers())
    with rasterio.open(image, "r+") as raster:
        raster.units = ("W/m2/sr/um", "reflectance")
    notes = index_folder(FolderSource(path=image.parent, bands=BANDS), tmp_path / "c")["notes"]
    assert "a_2020-01-13.tif: gives its numbers the unit W/m2/sr/um, which is not reflectance; check scale and offset" in notes


def test_reflectance_read_with_the_scale_of_digital_numbers_is_noted(tmp_path):
    write_raster(tmp_path / "tifs" / "a_2020-01-13.tif", numbers(2, "float32") / 10_000)
    notes = index_folder(FolderSource(path=tmp_path / "tifs", bands=BANDS), tmp_path / "c")["notes"]
    assert notes[0].startswith("a_2020-01-13.tif: its middle reflectance is 1.7")
    assert notes[0].endswith("e-05 by scale=0.0001 and offset=0; check them")


def test_a_georeference_beside_the_file_counts_for_the_check_and_for_the_use(tmp_path):
    """As `ingest` reads: with the options of GDAL that it sets."""
    layers = numbers()
    image = write_raster(tmp_path / "tifs" / "a_2020-01-13.tif", layers)
    bare = tmp_path / "bare.tif"
    with rasterio.open(image) as raster:
        rasterio.shutil.copy(raster, bare, driver="GTiff", PROFILE="BASELINE")
    bare.replace(image)
    bare.with_name("bare.tif.aux.xml").replace(image.with_name("a_2020-01-13.tif.aux.xml"))
    with rasterio.Env(**GDAL_OPTIONS):
        outcome = folder_chip(image.parent, BANDS)
    assert outcome.detail == ""
    assert outcome.pixels is not None
    assert (outcome.pixels == layers[MIDDLE]).all()


def test_files_that_say_nothing_keep_the_fingerprint_of_their_catalog(tmp_path):
    folder = tmp_path / "tifs"
    plain = write_raster(folder / "a_2020-01-13.tif", numbers())
    zero = write_raster(folder / "b_2020-01-14.tif", numbers(), nodata=0)
    assert files_say(FolderSource(path=folder, bands=BANDS), [plain, zero]) == {}
    for name, options in {
        "scale": {"scales": (2e-4,) * 2},
        "nodata": {"nodata": 65535},
        "mask": {"mask": np.eye(64, dtype=bool)},
        "float": {"dtype": "float32"},
        "names": {"names": ("B03", "B02")},
    }.items():
        other = write_raster(folder / f"{name}_2020-01-15.tif", numbers(), **options)
        assert list(files_say(FolderSource(path=folder, bands=BANDS), [plain, other])) == [other.name], name


def test_ingest_logs_where_a_file_says_otherwise_than_its_item(tmp_path, logged):
    # numbers of its own: a note is logged once per process
    image = write_raster(tmp_path / "a.tif", numbers(1), scales=(3e-4,), offsets=(-0.3,), nodata=60001)
    scene = SceneFiles("a", {"B02": str(image)}, {"B02": Radiometry(1e-4, 0.0, 0.0)})
    said = logged()
    for _ in range(2):
        [(_, outcome)] = read_chips(scene, [GRID], Want(("B02",), 0.5, tmp_path))
    assert (outcome.pixels == numbers(1)[MIDDLE]).all()
    assert said == [
        "B02: a file says scale 0.0003; the given scale 0.0001 is used, as its item has it",
        "B02: a file says offset -0.3; the given offset 0 is used, as its item has it",
        "B02: a file says that 60001 means no data; the given nodata 0 is used, as its item has it",
    ]
