import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from caco_assets.imagery.scenes.clear_sky import SCL_CLEAR, TEST_BANDS, clear_in_reflectance, clear_in_scl
from caco_assets.imagery.scenes.radiometry import harmonize, has_data

FILE_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")


def slow(numbers, scale, offset, valid):
    """The formula, pixel by pixel."""
    result = np.zeros(numbers.shape, int)
    for band, row, column in np.ndindex(numbers.shape):
        if valid[row, column]:
            reflectance = float(numbers[band, row, column]) * scale[band] + offset[band]
            result[band, row, column] = min(max(round(reflectance * 10_000), 1), 65_535)
    return result


@given(
    hnp.arrays(np.uint16, (2, 3, 3)),
    st.sampled_from([1e-4, 2e-4, 1e-3]),
    st.sampled_from([0.0, -0.1, -0.7, 0.05]),
    hnp.arrays(bool, (3, 3)),
)
def test_harmonised_numbers_follow_the_formula(numbers, scale, offset, valid):
    scales, offsets = np.full(2, scale), np.full(2, offset)
    result = harmonize(numbers, scales, offsets, valid)
    assert result.dtype == np.uint16
    assert np.abs(result.astype(int) - slow(numbers, scales, offsets, valid)).max() <= 1  # halves, in float32
    assert (result[:, ~valid] == 0).all()
    assert (result[:, valid] >= 1).all()


def test_the_offset_of_baseline_04_is_taken_away_once():
    numbers = np.array([[[0, 1, 1000, 1001, 3000, 65_535]]], np.uint16)
    valid = has_data(numbers, 0)
    assert harmonize(numbers, np.array([1e-4]), np.array([-0.1]), valid).tolist() == [[[0, 1, 1, 1, 2000, 64_535]]]


def test_each_band_has_its_own_scale_and_offset():
    numbers = np.full((2, 1, 1), 5000, np.uint16)
    result = harmonize(numbers, np.array([1e-4, 2e-4]), np.array([0.0, -0.7]), np.ones((1, 1), bool))
    assert result.ravel().tolist() == [5000, 3000]


def test_negative_int16_reflectance_becomes_the_smallest_valid_number():
    numbers = np.array([[[-300, 4000]]], np.int16)
    assert harmonize(numbers, np.array([1e-4]), np.array([0.0]), has_data(numbers, 0)).tolist() == [[[1, 4000]]]


def test_a_zero_in_one_band_alone_is_a_dark_pixel_not_a_hole():
    numbers = np.array([[[0, 0]], [[7, 0]]], np.uint16)
    assert has_data(numbers, 0).tolist() == [[True, False]]
    assert has_data(numbers, None).all()


def test_nan_is_no_data_in_floating_files():
    numbers = np.array([[[np.nan, 0.5]]], np.float32)
    valid = has_data(numbers, None)
    assert valid.tolist() == [[False, True]]
    assert harmonize(numbers, np.array([1.0]), np.array([0.0]), valid).tolist() == [[[0, 5000]]]


def test_cloud_shadow_cirrus_and_defects_are_not_clear_but_water_and_snow_are():
    assert clear_in_scl(np.arange(12, dtype=np.uint8)).nonzero()[0].tolist() == list(SCL_CLEAR) == [2, 4, 5, 6, 7, 11]


def spectrum(**reflectance: float) -> dict:
    return {band: np.full((1, 1), value, np.float32) for band, value in reflectance.items()}


GROUND = {
    "forest": spectrum(B02=0.03, B03=0.05, B04=0.03, B08=0.35, B11=0.15, B12=0.07),
    "deep water": spectrum(B02=0.05, B03=0.04, B04=0.02, B08=0.01, B11=0.005, B12=0.003),
    "bright sand": spectrum(B02=0.22, B03=0.32, B04=0.42, B08=0.50, B11=0.60, B12=0.55),
    "fresh snow": spectrum(B02=0.95, B03=0.94, B04=0.93, B08=0.88, B11=0.10, B12=0.08),
    "turbid lake": spectrum(B02=0.10, B03=0.14, B04=0.13, B08=0.06, B11=0.02, B12=0.01),
    "black": spectrum(B02=0.0001, B03=0.0001, B04=0.0001, B08=0.0001, B11=0.0001, B12=0.0001),
}


@pytest.mark.parametrize("name", GROUND)
def test_the_reflectance_test_lets_ground_pass(name):
    assert clear_in_reflectance(GROUND[name]).all()


@pytest.mark.parametrize("brightness", [0.25, 0.5, 0.9])
def test_the_reflectance_test_sees_cloud_with_all_bands_and_with_the_visible_alone(brightness):
    cloud = spectrum(**dict.fromkeys(("B02", "B03", "B04", "B08"), brightness), B11=0.6 * brightness, B12=0.5 * brightness)
    assert not clear_in_reflectance(cloud).any()
    assert not clear_in_reflectance({band: cloud[band] for band in ("B02", "B04")}).any()


# What the test finds on the real dates; the provider's own estimate is ~97 % for 2020-01-18 and ~34 % for 2020-01-23, where
# thin cloud around the thick one is counted here too.
MEASURED = {"2020-01-18": 0.996, "2020-01-23": 0.467, "2020-01-13": 0.001, "2021-06-26": 0.010}


def test_real_dates_have_the_cloud_they_are_known_for(real):
    files = sorted((real / "sentinel2_boadella").glob("*.tif"))
    assert len(files) == 12
    for path in files:
        with rasterio.open(path) as raster:
            layers = raster.read([FILE_BANDS.index(band) + 1 for band in TEST_BANDS]).astype(np.float32) / 10_000
        cloudy = 1 - clear_in_reflectance(dict(zip(TEST_BANDS, layers, strict=True))).mean()
        assert cloudy == pytest.approx(MEASURED.get(path.stem[-10:], 0.0), abs=0.002), path.stem
