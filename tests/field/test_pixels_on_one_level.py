"""Images whose numbers mean something else than they are read as: almost all pixels fall on one level of the encoder's stretch."""

import numpy as np
import pytest
from folder_chips import numbers, write_raster

from caco_assets.inference.embed import embed, embed_array
from caco_assets.pretraining.encoder.encoder import Encoder, PixelFormat, Preprocessing

BANDS = ("B02", "B03")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.random("resnet10t", Preprocessing.of_pack(BANDS, "seco", 32), 0)


def warnings(lines: list[str]) -> list[str]:
    return [line for line in lines if "on one level" in line]


def test_landsat_numbers_without_their_scale_are_warned_of(encoder, tmp_path, logged):
    """Collection 2: reflectance = DN · 0.0000275 - 0.2, so that all numbers lie between 7 273 and 43 636."""
    landsat = numbers(2, low=9000, high=18_000)
    image = write_raster(tmp_path / "a.tif", landsat, names=BANDS)
    said = logged()
    embed(image, encoder, tile=32)
    (line,) = warnings(said)
    assert line == (
        "a.tif: 100% of its pixels are on one level of the stretch seco (of 0 to 255: 255, 255), so its vectors say next to "
        "nothing; check scale and offset: they were read as reflectance = number · 0.0001 + 0"
    )
    said = logged()
    embed(image, encoder, tile=32, reflectance_per_dn=2.75e-5, offset=-0.2)
    assert warnings(said) == []


def test_an_array_of_8_bit_numbers_is_warned_of_and_sound_ones_are_not(encoder, logged):
    said = logged()
    embed_array(numbers(2, low=0, high=100), PixelFormat(BANDS, 1e-4), encoder, tile=32)
    assert len(warnings(said)) == 1
    said = logged()
    embed_array(numbers(2), PixelFormat(BANDS, 1e-4), encoder, tile=32)
    assert warnings(said) == []


def test_pixels_without_data_are_not_counted(encoder, tmp_path, logged):
    layers = numbers()
    layers[:, :62] = 0
    said = logged()
    embed(write_raster(tmp_path / "a.tif", layers, names=BANDS, nodata=0), encoder, tile=64)
    embed(write_raster(tmp_path / "b.tif", np.zeros_like(layers), names=BANDS, nodata=0), encoder, tile=64)
    assert warnings(said) == []
