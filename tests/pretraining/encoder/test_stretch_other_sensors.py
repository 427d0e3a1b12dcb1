"""Bands that Sentinel-2 does not have."""

import numpy as np
import pytest

from caco_assets.core.errors import UserError
from caco_assets.pretraining.encoder.stretch import KINDS, Stretch, table


def test_the_stretch_reflectance_takes_any_band():
    assert Stretch.named("reflectance", ("swir16", "B04")) == Stretch("reflectance", (0, 0), (10_000, 10_000))


def test_it_gives_8_bit_numbers_back_that_were_archived_with_a_scale_of_1_by_255():
    numbers = np.arange(256)
    archived = np.maximum(np.rint(numbers / 255 * 10_000), 1).astype(int)
    assert (table("reflectance", "swir16")[archived] == numbers).all()


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"reflectance"}))
def test_the_others_say_which_band_they_do_not_know_and_what_to_do(kind):
    with pytest.raises(
        UserError, match=rf"stretch {kind} has no limits for swir16; choose among B01, .* or the stretch reflectance"
    ):
        Stretch.named(kind, ("B04", "swir16"))
