"""The stretches, against slow scalar arithmetic."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caco_assets.core.errors import UserError
from caco_assets.pretraining.encoder.preprocessing import PixelFormat, Preprocessing
from caco_assets.pretraining.encoder.stretch import KINDS, Stretch, published_table, table
from caco_assets.settings import S2_BANDS, Pretraining

REFLECTANCE = st.integers(0, 65_535)


def clip(level: int) -> int:
    return min(max(level, 0), 255)


@given(REFLECTANCE, st.sampled_from([("B02", 3, 88), ("B03", 2, 103), ("B04", 0, 129)]))
def test_seco_goes_through_eight_bits_and_truncates_as_published(archive: int, band: tuple[str, int, int]):
    name, low, high = band
    stored = min(floor(Fraction(archive, 10_000) * 255 + Fraction(1, 2)), 255)
    expected = clip(floor(Fraction(stored - low, high - low) * 255))
    assert table("seco", name)[archive] == expected


@given(REFLECTANCE, st.sampled_from([("B02", 3, 88), ("B03", 2, 103), ("B04", 0, 129)]))
def test_seco_fine_goes_to_the_nearest_level_in_one_step(archive: int, band: tuple[str, int, int]):
    name, low, high = band
    exact = (Fraction(archive, 10_000) * 255 - low) / (high - low) * 255
    assert table("seco_fine", name)[archive] == clip(floor(exact + Fraction(1, 2)))


def test_seco_and_seco_fine_differ_by_half_a_published_step_at_most():
    for band, low, high in (("B02", 3, 88), ("B03", 2, 103), ("B04", 0, 129)):
        coarse, fine = table("seco", band).astype(int), table("seco_fine", band).astype(int)
        step = 255 / (high - low)
        assert np.abs(fine - coarse).max() <= np.ceil(step / 2) + 1
        assert len(np.unique(fine)) == 256 > len(np.unique(coarse))


def test_images_stored_as_published_come_through_seco_unchanged():
    stored = PixelFormat(("B04", "B03", "B02"), 1 / 255)
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(3, axis=1)
    levels = Preprocessing.of_pack(stored.bands, "seco", 16).stretched(pixels, stored)
    for c, (low, high) in enumerate(((0, 129), (2, 103), (3, 88))):
        assert np.array_equal(levels[0, c].ravel(), published_table(low, high))


def test_eurosat_maps_its_own_pictures_back_to_themselves():
    dn = np.arange(256)
    archive = np.rint(dn * 0.275 / 255 * 10_000).astype(int)
    assert np.array_equal(table("eurosat", "B03")[archive], dn)


def test_reflectance_spans_zero_to_one():
    levels = table("reflectance", "B08")
    assert (levels[0], levels[5_000], levels[10_000], levels[65_535]) == (0, 128, 255, 255)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("band", S2_BANDS)
def test_every_table_rises_from_black_to_white(name: str, band: str):
    levels = table(name, band).astype(int)
    assert levels.shape == (65_536,)
    assert (np.diff(levels) >= 0).all()
    assert (levels[0], levels[-1]) == (0, 255)


def test_the_settings_offer_exactly_the_stretches_there_are():
    assert set(Pretraining.model_fields["stretch"].annotation.__args__) == set(KINDS)


def test_the_hash_names_the_tables():
    rgb = Stretch.named("seco", ("B04", "B03", "B02"))
    assert rgb.sha256() == Stretch.named("seco", ("B04", "B03", "B02")).sha256()
    assert rgb.sha256() != Stretch.named("seco", ("B02", "B03", "B04")).sha256()
    assert rgb.sha256() != Stretch.named("seco_fine", ("B04", "B03", "B02")).sha256()


def test_the_published_table_is_the_floating_point_formula_rounded_down():
    value = np.arange(256)
    for low, high in ((3, 88), (2, 103), (0, 129)):
        assert np.array_equal(
            published_table(low, high), np.clip((value - low) / (high - low) * 255 + 1e-9, 0, 255).astype(np.uint8)
        )


def test_an_unknown_stretch_or_band_is_named():
    with pytest.raises(UserError, match=r"stretch=sceo.*seco"):
        Stretch.named("sceo", ("B04",))
    with pytest.raises(UserError, match="no limits for B10"):
        Stretch.named("seco", ("B04", "B10"))
