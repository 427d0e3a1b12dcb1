"""Sets in the layout of SeCo and CACo with capitals in names, tags in files, gaps, and files that hold something else."""

from pathlib import Path

import numpy as np
import pytest
from folder_chips import numbers, write_raster

from caco_assets.imagery.reading.gdal import UnreadableError
from caco_assets.imagery.seco_layout.layout import DateFolder, PlaceFolder, band_file, list_dates
from caco_assets.imagery.seco_layout.pixels import Numbers, read_pixels

BANDS = ("B04", "B03")


@pytest.fixture
def date(tmp_path: Path) -> DateFolder:
    """A date of two bands."""
    for number, name in enumerate(("B4", "B3")):
        write_raster(tmp_path / "000001" / "2020-01-13" / f"{name}.tif", numbers(2)[number : number + 1])
    return list_dates(PlaceFolder(1, tmp_path / "000001"))[0][0]


def test_files_in_capitals_and_small_letters_are_the_bands(date):
    expected = read_pixels(date, BANDS, Numbers(), 64)
    (date.path / "B4.tif").rename(date.path / "b04.TIF")
    (date.path / "B3.tif").rename(date.path / "B3.TIFF")
    assert band_file(date.path, "B04") == date.path / "b04.TIF"
    assert (read_pixels(date, BANDS, Numbers(), 64) == expected).all()


@pytest.mark.parametrize(("gap", "declared"), [(-9999.0, -9999), (np.nan, None), (np.nan, np.nan)])
@pytest.mark.parametrize("side", [64, 32])
def test_a_gap_in_one_band_is_no_data_in_all_and_mixes_into_no_other_pixel(date, gap, declared, side):
    layer = np.full((1, side, side), 2000, np.float32)
    layer[0, side // 2, side // 2] = gap
    write_raster(date.path / "B3.tif", layer, nodata=declared)
    write_raster(date.path / "B4.tif", np.full((1, 64, 64), 2000, np.float32))
    pixels = read_pixels(date, BANDS, Numbers(scale=1e-4), 64)
    assert set(np.unique(pixels).tolist()) == {0, 2000}
    assert ((pixels == 0).all(axis=0) == (pixels == 0).any(axis=0)).all()
    # between coarse pixels, those that the gap has a share in
    assert (pixels[0] == 0).sum() == (1 if side == 64 else 16)


def test_pixels_that_a_mask_leaves_out_are_no_data(date):
    mask = np.ones((64, 64), bool)
    mask[3, 5] = False
    write_raster(date.path / "B3.tif", numbers(1), mask=mask)
    pixels = read_pixels(date, BANDS, Numbers(), 64)
    assert ((pixels == 0).all(axis=0) == ~mask).all()


def test_the_settings_override_a_file_and_the_difference_is_logged_once(date, logged):
    for name in ("B4", "B3"):
        write_raster(date.path / f"{name}.tif", numbers(1), scales=(3e-4,))
    said = logged()
    for _ in range(2):
        pixels = read_pixels(date, BANDS, Numbers(scale=1e-4), 64)
    assert (pixels[0] == numbers(1)[0]).all()
    notes = [line for line in said if "says scale" in line]
    assert notes == ["B04: the file says scale 0.0003; the given scale 0.0001 is used", notes[-1]]
    assert len(notes) == len(BANDS)


@pytest.mark.parametrize(
    ("count", "names", "reason"),
    [
        (3, (), "B3.tif: has 3 bands, not one"),
        (1, ("B8",), "B3.tif: names its bands B8: its band 1 is B8, its file name says B03"),
        (1, ("red",), "B3.tif: names its bands red: its band 1 is red, its file name says B03"),
    ],
)
def test_a_file_that_holds_something_else_than_its_name_says_is_refused(date, count, names, reason):
    write_raster(date.path / "B3.tif", numbers(count), names=names)
    with pytest.raises(UnreadableError) as error:
        read_pixels(date, BANDS, Numbers(), 64)
    assert error.value.detail == reason
