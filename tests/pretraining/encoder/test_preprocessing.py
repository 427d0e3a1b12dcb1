"""What pixels become on their way into a backbone."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from caco_assets.core.errors import UserError
from caco_assets.pretraining.encoder.preprocessing import ARCHIVE, EUROSAT_RGB, RGB, PixelFormat, Preprocessing
from caco_assets.pretraining.encoder.stretch import table


@given(arrays(np.uint16, (2, 12, 3, 3)))
def test_archive_values_pass_unchanged(pixels: np.ndarray):
    assert np.array_equal(ARCHIVE.to_archive(pixels), pixels)


@given(st.sampled_from([np.uint8, np.int8, np.int16, np.uint16, np.int32, np.int64]), st.data())
def test_every_integer_type_means_the_same(dtype: type, data: st.DataObject):
    info = np.iinfo(np.int8 if dtype == np.int8 else np.uint8)
    pixels = data.draw(arrays(dtype, (4, 4), elements=st.integers(info.min, info.max)))
    fmt = PixelFormat(("B04",), 0.275 / 255, offset=-0.01)
    slow = [[min(max(round((int(dn) * 0.275 / 255 - 0.01) * 10_000), 0), 65_535) for dn in row] for row in pixels]
    assert np.array_equal(fmt.to_archive(pixels), slow)


def test_a_scale_and_an_offset_give_reflectance():
    fmt = PixelFormat(("B04",), 1e-4, offset=-0.1)  # Sentinel-2 since processing baseline 04.00
    assert fmt.to_archive(np.array([0, 1_000, 3_500], np.uint16)).tolist() == [0, 0, 2_500]


def test_bands_are_taken_by_name_in_the_encoders_order():
    pixels = np.zeros((1, 12, 2, 2), np.uint16)
    pixels[0, ARCHIVE.bands.index("B03")] = 900
    preprocessing = Preprocessing.of_pack(("B08", "B03"), "reflectance", 2)
    stretched = preprocessing.stretched(pixels, ARCHIVE)
    assert stretched.shape == (1, 2, 2, 2)
    assert stretched[0, 0].max() == 0
    assert (stretched[0, 1] == table("reflectance", "B03")[900]).all()


def test_a_missing_band_is_named():
    preprocessing = Preprocessing.of_pack(("B04", "B08"), "seco", 8)
    with pytest.raises(UserError, match=r"the pixels have B04, B03, B02, the encoder also needs B08"):
        preprocessing.stretched(np.zeros((1, 3, 8, 8), np.uint8), EUROSAT_RGB)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 4, 8, 8)])
def test_pixels_of_another_shape_than_said_are_refused(shape: tuple[int, ...]):
    with pytest.raises(UserError, match="is not \\(images, 3 bands"):
        Preprocessing.unit_rgb().stretched(np.zeros(shape, np.uint8), EUROSAT_RGB)


def test_floating_point_pixels_are_refused():
    with pytest.raises(UserError, match="float32 is not an integer"):
        Preprocessing.unit_rgb().stretched(np.zeros((1, 3, 8, 8), np.float32), EUROSAT_RGB)


def test_the_paper_protocol_sees_the_jpg_itself():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(3, axis=1)
    preprocessing = Preprocessing.unit_rgb(16)
    assert np.array_equal(preprocessing.stretched(pixels, EUROSAT_RGB), pixels)
    assert (preprocessing.mean, preprocessing.std) == ((0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize(
    "preprocessing", [Preprocessing.unit_rgb(), Preprocessing.of_pack((*RGB, "B08", "B11"), "seco_fine", 224)], ids=["unit", "pack"]
)
def test_preprocessing_survives_json(preprocessing: Preprocessing):
    assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing


def test_bands_that_are_no_colour_take_the_mean_of_imagenets_channels():
    preprocessing = Preprocessing.of_pack(("B08", "B04"), "seco", 64)
    assert preprocessing.mean == (0.449, 0.485)
    assert preprocessing.std == (0.226, 0.229)


def test_the_archive_can_hold_other_bands():
    assert replace(ARCHIVE, bands=("B02", "B08")).select(("B08",)) == [1]
