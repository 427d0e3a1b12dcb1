"""Places without files in between: each by its number alone, with the truth about its change."""

import numpy as np
import pytest

from caco_assets.synthetic.chips import DrawnPlace, Wanted, draw_places
from caco_assets.synthetic.eurosat_twin import town_region

WANTED = Wanted(side=48, seasons=2)


@pytest.fixture(scope="module")
def places() -> list[DrawnPlace]:
    return list(draw_places(0, 0, 16, WANTED))


def test_a_place_depends_on_its_number_alone(places: list[DrawnPlace]) -> None:
    (again,) = draw_places(0, 9, 10, WANTED)
    for one, two in zip(places[9].chips, again.chips, strict=True):
        np.testing.assert_array_equal(one.pixels, two.pixels)
        assert (one.location_id, one.lon, one.lat) == (two.location_id, two.lon, two.lat)
    (other,) = draw_places(1, 9, 10, WANTED)
    assert not np.array_equal(places[9].chips[0].pixels, other.chips[0].pixels)


def test_chips_come_as_an_archive_gives_them(places: list[DrawnPlace]) -> None:
    for number, place in enumerate(places):
        assert [(chip.period, chip.season) for chip in place.chips] == [(0, 0), (0, 1), (1, 0), (1, 1)]
        for chip in place.chips:
            assert chip.location_id == f"S{number:07d}"
            assert chip.pixels.shape == (3, 48, 48)
            assert chip.pixels.dtype == np.uint16
            assert 1 <= chip.pixels.min() < chip.pixels.max() < 10_000
            assert -180 <= chip.lon <= 180
            assert -46 < chip.lat < 66


def test_about_the_wanted_share_changes_and_only_marked_places_do(places: list[DrawnPlace]) -> None:
    assert 2 <= sum(place.changed for place in places) <= 5
    assert all(place.fraction == 0 for place in draw_places(0, 0, 16, Wanted(48, 1, changed_share=0.0)))


def test_true_change_shows_in_the_pixels_more_than_seasons_do() -> None:
    wanted = Wanted(48, 3, bands=("B04", "B08", "B11"))
    strong = [place for place in draw_places(0, 0, 60, wanted) if place.fraction > 0.1]
    still = [place for place in draw_places(0, 0, 60, wanted) if not place.changed]

    def gap(place: DrawnPlace) -> float:
        """Largest difference between the means over seasons, robust against haze by the median over pixels."""
        early, late = (
            np.mean([chip.pixels.astype(float) for chip in place.chips if chip.period == period], axis=0) for period in (0, 1)
        )
        return float(np.quantile(np.abs((late - np.median(late)) - (early - np.median(early))), 0.95))

    assert np.median([gap(place) for place in strong]) > 1.3 * np.median([gap(place) for place in still])


def test_balanced_places_show_every_cover() -> None:
    usual, balanced = (
        np.mean([place.cover for place in draw_places(0, 0, 64, Wanted(48, 1, balanced=count))], axis=0) for count in (1, 12)
    )
    assert usual.min() < 0.02
    assert balanced.min() > 2 * usual.min()
    assert balanced.max() < usual.max()
    assert balanced.sum() == pytest.approx(1)


def test_60_m_bands_are_on_the_same_grid() -> None:
    (place,) = draw_places(0, 3, 4, Wanted(48, 1, bands=("B01", "B04")))
    blocks = place.chips[0].pixels[0].reshape(8, 6, 8, 6)
    assert (blocks == blocks[:, :1, :, :1]).all()


def test_towns_are_none_of_the_twins() -> None:
    from caco_assets.synthetic.chips import _town

    keys = {_town(0, town, WANTED).key for town in range(50)}
    assert not keys & {town_region(0, town).key for town in range(50)}


def test_a_side_that_no_60_m_pixel_divides_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 6"):
        list(draw_places(0, 0, 1, Wanted(side=50, seasons=1)))
