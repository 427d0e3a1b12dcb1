"""Places without files in between: each by its number alone, with the truth about its change."""

import numpy as np
import pytest

from caco_assets.synthetic.chips import DrawnPlace, Wanted, draw_places
from caco_assets.synthetic.twins.eurosat import town_region

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


def test_pure_places_show_every_cover_and_much_of_one() -> None:
    anywhere, pure = (np.stack([place.cover for place in draw_places(0, 0, 64, Wanted(48, 1, pure=share))]) for share in (0.0, 1.0))
    assert anywhere.mean(axis=0).min() < 0.02
    assert pure.mean(axis=0).min() > 2 * anywhere.mean(axis=0).min()
    assert pure.mean(axis=0).max() < anywhere.mean(axis=0).max()
    assert np.median(pure.max(axis=1)) > 0.9
    assert pure.sum() == pytest.approx(64)


def test_a_pure_place_depends_on_its_number_alone() -> None:
    wanted = Wanted(48, 1, pure=1.0, level="1C")
    several = list(draw_places(0, 0, 12, wanted))
    (again,) = draw_places(0, 11, 12, wanted)
    np.testing.assert_array_equal(several[11].chips[0].pixels, again.chips[0].pixels)


def test_level_1c_adds_blue_light_and_leaves_the_ground_where_it_is() -> None:
    (surface,), (top) = draw_places(0, 5, 6, Wanted(48, 1)), next(draw_places(0, 5, 6, Wanted(48, 1, level="1C")))
    red, green, blue = (top.chips[0].pixels.astype(float) - surface.chips[0].pixels).mean(axis=(1, 2))
    assert blue > green > red
    np.testing.assert_array_equal(surface.cover, top.cover)
    ground, seen = surface.chips[0].pixels[0].ravel(), top.chips[0].pixels[0].ravel()
    assert np.corrcoef(ground, seen)[0, 1] > 0.99


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
